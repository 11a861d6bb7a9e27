"""`Engine.step` by engines elsewhere: the worker asks this one as it asks an `Engine`, in its own thread.

A window is all that an engine needs, so any replica may do it, and one that was lost with its replica is sent again.
Nothing of Ray is imported here: `handle` is a Serve deployment's.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from streamer.cluster.wire import Answer, Refused, SentWindow
from streamer.errors import EngineError
from streamer.events.plans import StepResult
from streamer.model.engine import Context, Padding, Work
from streamer.model.outline import ModelOutline

log = logging.getLogger(__name__)

STEP_S = 40.0  # so long windows are tried: what a new replica needs where none is left, and the ring holds 60 s
PAUSE_S = 0.05  # before windows are sent again: the one that refused them may be the only one there is


class Pending(Protocol):
    """An answer that will come."""

    def result(self, *, timeout_s: float | None = None) -> Any:
        """Wait for it; raises TimeoutError, and whatever became of the replica."""


class Handle(Protocol):
    """Where windows are sent."""

    def remote(self, window: SentWindow, /) -> Pending:
        """Send one; waits for nothing."""


class RemoteEngine:
    """`lost(error)`: whether an error of the handle says that a replica is gone or has no room, so that another may do.

    `model`: what is known of the one that the replicas have.
    """

    def __init__(
        self,
        model: ModelOutline,
        handle: Handle,
        lost: Callable[[BaseException], bool],
        *,
        context: Context = "auto",
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._model, self._handle, self._lost = model, handle, lost
        self._padding = Padding.of(model, context)
        self._clock, self._pause = clock, pause
        self.sent_bytes = self.resent = 0  # of mel; and windows that were sent again
        self.sending_s = 0.0  # what it took to make windows and send them

    @property
    def model(self) -> ModelOutline:
        """The model without its weights."""
        return self._model

    def step(self, work: Sequence[Work]) -> list[StepResult]:
        """Have the windows done, each by any replica; results in the same order. Raises EngineError as `Engine.step`.

        What a replica takes with it when it dies is sent again, to whichever there is, for `STEP_S`.
        """
        began_s = self._clock()
        windows = [SentWindow.of(mel, request, self._padding, self._model.dtype) for mel, request in work]
        self.sending_s += self._clock() - began_s
        return self.do(windows)

    def do(self, windows: Sequence[SentWindow]) -> list[StepResult]:
        """As `step`, for windows that are made."""
        answers: dict[int, Answer] = {}
        deadline_s = self._clock() + STEP_S
        while True:
            waiting = [place for place in range(len(windows)) if place not in answers]
            failure = self._round(windows, waiting, deadline_s, answers)
            if failure is None:
                break
            if self._clock() + PAUSE_S >= deadline_s:
                raise EngineError(f"no engine of the cluster did {len(windows)} windows in {STEP_S:g} s: {failure}")
            log.warning("%d windows are sent again: %s", len(windows) - len(answers), failure)
            self.resent += len(windows) - len(answers)
            self._pause(PAUSE_S)
        results: list[StepResult] = []
        for place in range(len(windows)):
            answer = answers[place]
            if isinstance(answer, Refused):
                raise answer.error()
            results.append(answer)
        return results

    def _round(
        self, windows: Sequence[SentWindow], waiting: Sequence[int], deadline_s: float, answers: dict[int, Answer]
    ) -> str | None:
        """Send the windows that wait and take the answers; why some have none and may be sent again, None: all have."""
        began_s = self._clock()
        pending = [(place, self._handle.remote(windows[place])) for place in waiting]
        self.sending_s += self._clock() - began_s
        self.sent_bytes += sum(windows[place].values.nbytes for place in waiting)
        failure = None
        for place, answer in pending:
            try:
                found: Answer = answer.result(timeout_s=max(0.0, deadline_s - self._clock()))
            except TimeoutError:
                failure = "no answer"
            except Exception as error:
                if not self._lost(error):
                    raise EngineError(
                        f"the cluster failed: {type(error).__name__}: {error}".partition("\n")[0]
                    ) from error
                failure = type(error).__name__
            else:
                if isinstance(found, Refused) and found.device:
                    failure = found.reason
                else:
                    answers[place] = found
        return failure
