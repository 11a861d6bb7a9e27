"""Work of other threads with the model, which the worker's thread does between the steps of the live streams (pure)."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from streamer.errors import EngineError

PATIENCE_S = 2.0  # a piece waits behind the lanes for at most so long, then they wait for it once


@dataclass(frozen=True, slots=True)
class Loan:
    """One piece of work. `done` gets what it returns or raises; `asked_s`: since when it waits."""

    work: Callable[[], Any]
    done: "Future[Any]"
    asked_s: float

    def carry_out(self) -> None:
        """Do it, in the thread that owns the model."""
        try:
            result = self.work()
        except Exception as error:  # noqa: BLE001 - it is raised where the work came from
            self.done.set_exception(error)
        else:
            self.done.set_result(result)


class Loans:
    """What waits, oldest first; whoever asks waits for it, so there is no more of it than threads that ask."""

    def __init__(self) -> None:
        self._waiting: deque[Loan] = deque()
        self._over = False

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def ask(self, work: Callable[[], Any], now_s: float) -> "Future[Any]":
        """Queue a piece. Raises EngineError where no more is done."""
        if self._over:
            raise EngineError("the program ends")
        done: Future[Any] = Future()
        self._waiting.append(Loan(work, done, now_s))
        return done

    def take(self, now_s: float, *, others_wait: bool) -> Loan | None:
        """The piece whose turn it is; `others_wait`: the live streams have something to do."""
        if not self._waiting or (others_wait and now_s - self._waiting[0].asked_s < PATIENCE_S):
            return None
        return self._waiting.popleft()

    def refuse(self) -> None:
        """No more is done: whoever waits gets an EngineError."""
        self._over = True
        while self._waiting:
            self._waiting.popleft().done.set_exception(EngineError("the program ends"))
