"""The model, one use of it at a time, and which thread has the sessions meanwhile.

A step of the live streams and a piece of work on loan are turns alike: nobody touches a session while one runs, so
another thread may have the sessions then, for a moment or for good, and what the turn still finds is not used. An
error of the device has a spare engine do the same windows.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, TypeVar

from streamer.errors import DeviceFailed, EngineError
from streamer.events.plans import StepResult
from streamer.model.engine import Engine, StepEngine, Work
from streamer.model.memory import CPU, hand_back
from streamer.model.own_sounds import OwnLayer

log = logging.getLogger(__name__)

PATIENCE_S = 2.0  # a piece waits behind the lanes for at most so long, then they wait for it once
SPARE_S = 60.0  # in which a spare engine is made: another device's model may have to be loaded
FORGOTTEN = 0.005  # of the longest turn, with each: one in a bad minute is no measure for months
HANG_TIMES = 4.0  # where others take nearly all of the machine a turn may take this many times the longest

Made = TypeVar("Made")


class Phase(Enum):
    """SERVING: the worker's thread has the sessions; STEPPING: the model works, for them or on loan, and nobody touches
    them; LENT: `Worker.watch` has them for a moment; TAKEN: another thread has them for good; ENDED: the worker's
    thread is through with all of them.
    """

    SERVING = auto()
    STEPPING = auto()
    LENT = auto()
    TAKEN = auto()
    ENDED = auto()


class TakenOver(BaseException):
    """The sessions are no longer this thread's."""


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


class ModelTurns:
    """The turns at `engine`. `spare` makes the one to go on with where a step hangs or the device failed.

    `ready`: shared with the worker and its lanes; `clock` measures the turns.
    """

    def __init__(
        self,
        engine: StepEngine,
        spare: Callable[[], StepEngine],
        ready: threading.Condition,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.phase = Phase.SERVING
        self.loans = Loans()
        self._engine: StepEngine | None = engine  # None: the spare one is to be made
        self._spare, self._ready, self._clock = spare, ready, clock
        self._spared = False  # since the last step that worked
        self._owner = 0  # number of the thread that has the sessions; earlier ones are of no account
        self._began_s = 0.0  # when the turn at hand began
        self._makes_spare = False  # what it is for
        self._longest_s = 0.0  # of those that worked lately

    def new_owner(self) -> int:
        """The number of a thread that is to have the sessions from now on."""
        self._owner += 1
        return self._owner

    def enter(self, phase: Phase) -> None:
        """The one place where the phase changes; with `ready` held."""
        log.debug("worker: %s -> %s", self.phase.name, phase.name)
        self.phase = phase
        if phase in (Phase.TAKEN, Phase.ENDED):
            self.loans.refuse()
        self._ready.notify_all()

    def end(self, owner: int) -> None:
        """The thread with this number is through with all sessions."""
        with self._ready:
            if owner == self._owner:
                self.enter(Phase.ENDED)

    @property
    def taken_s(self) -> float:
        """How long the turn at hand has taken so far; 0 where there is none."""
        return self._clock() - self._began_s if self.phase is Phase.STEPPING else 0.0

    def never_ends(self, hang_s: float) -> bool:
        """Whether the turn at hand will not end, as far as we can tell: it took `hang_s`, and far longer than any."""
        return self.taken_s >= max(SPARE_S if self._makes_spare else hang_s, HANG_TIMES * self._longest_s)

    # What follows is for the thread that has the sessions.

    def step(self, work: Sequence[Work]) -> Sequence[StepResult]:
        """Have the model do these windows. Raises what it raises, TakenOver."""
        engine = self._engine
        assert engine is not None
        try:
            with self._turn():
                results = engine.step(work)
        except DeviceFailed as error:
            if self._spared:
                raise
            self._spared = True
            log.error("%s; going on with another engine", error)
            del engine
            self._take_spare(error)
            return self.step(work)
        self._worked()
        self._spared = False
        return results

    def do_loan(self, *, others_wait: bool) -> None:
        """Do one piece of what others asked for, if it is its turn. `others_wait`: lanes do."""
        with self._ready:
            loan = self.loans.take(self._clock(), others_wait=others_wait)
        if loan:
            with self._turn():
                loan.carry_out()
            self._worked()

    def lend(self, work: Callable[[], Made]) -> Made:
        """Have `work` done by the thread that has the sessions, as a turn, and wait for it; from any other thread."""
        with self._ready:
            done = self.loans.ask(work, self._clock())
            self._ready.notify_all()
        result: Made = done.result()
        return result

    def listen_for(self, own: OwnLayer) -> None:
        """Judge these sounds of one's own from the next step on."""
        assert isinstance(self._engine, Engine)  # those of a cluster are not taught from the pages
        self._engine.own = own

    def drop_engine(self) -> None:
        """The engine is of no use any more: the next thread makes the spare one."""
        self._engine = None

    def open_engine(self) -> None:
        """Make the spare engine, if there is none at hand."""
        if self._engine is None:
            self._take_spare(None)

    def _take_spare(self, error: BaseException | None) -> None:
        """The spare engine, once the failed one's memory is given back: the traceback of its `error` keeps it."""
        self._engine = None
        while error is not None:
            error.__traceback__ = None
            error = error.__cause__ or error.__context__
        hand_back(CPU)
        with self._turn(makes_spare=True):
            engine = self._spare()
        self._engine = engine  # not where another thread has one by now

    def _worked(self) -> None:
        self._longest_s = max(self._longest_s * (1 - FORGOTTEN), self._clock() - self._began_s)

    @contextmanager
    def _turn(self, *, makes_spare: bool = False) -> Iterator[None]:
        """While the model works, or is made. Raises TakenOver where another thread took the sessions meanwhile."""
        owner = self._owner
        with self._ready:
            self._began_s, self._makes_spare = self._clock(), makes_spare
            self.enter(Phase.STEPPING)
        try:
            yield
        finally:
            with self._ready:
                self._ready.wait_for(lambda: self.phase is not Phase.LENT)
                if self.phase is Phase.TAKEN or owner != self._owner:
                    raise TakenOver
                self.enter(Phase.SERVING)
