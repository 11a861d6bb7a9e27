"""`Engine.step` by engines elsewhere: the worker asks this one as it asks an `Engine`, in its own thread.

A window is all that an engine needs, so any replica may do it, and one that was lost with its replica is sent again.
Nothing of Ray is imported here: `handle` is a Serve deployment's.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from streamer.cluster.engine_facts import RoundFacts
from streamer.cluster.wire import RecordingAnswer, Refused, SentRecordingWindow, SentWindow, SpectrumWanted
from streamer.errors import EngineError
from streamer.events.plans import StepResult
from streamer.model.engine import Context, Padding, Work
from streamer.model.outline import ModelOutline
from streamer.runtime.offline import WindowRequest, WindowResult

log = logging.getLogger(__name__)

STEP_S = 40.0  # so long windows are tried: what a new replica needs where none is left, and the ring holds 60 s
RECORDING_S = 180.0  # the same for one of an uploaded recording: 30 s of sound, at up to six temperatures
PAUSE_S = 0.05  # before windows are sent again: the one that refused them may be the only one there is


class Pending(Protocol):
    """An answer that will come."""

    def result(self, *, timeout_s: float | None = None) -> Any:
        """Wait for it; raises TimeoutError, and whatever became of the replica."""


class Handle(Protocol):
    """Where windows are sent."""

    def remote(self, window: Any, /) -> Pending:
        """Send one; waits for nothing."""


class Rounds:
    """Has engines do windows, each by any of them, and takes their answers.

    `lost(error)`: whether an error of the handle says that a replica is gone or has no room, so that another may do.
    `tries_s`: for so long. `facts`: where it is counted what they did.
    """

    def __init__(
        self,
        handle: Handle,
        lost: Callable[[BaseException], bool],
        facts: RoundFacts,
        tries_s: float = STEP_S,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._handle, self._lost, self._tries_s = handle, lost, tries_s
        self._clock, self._pause = clock, pause
        self.facts = facts
        self.sending_s = 0.0  # what it took to send windows

    def do(self, windows: Sequence[Any]) -> list[Any]:
        """The answers, in order. Raises EngineError: no engine did one in time, or it cannot be done."""
        answers: dict[int, Any] = {}
        began_s = self._clock()
        deadline_s = began_s + self._tries_s
        while True:
            waiting = [place for place in range(len(windows)) if place not in answers]
            failure = self._round(windows, waiting, deadline_s, answers)
            if failure is None:
                break
            if self._clock() + PAUSE_S >= deadline_s:
                count = len(windows)
                raise EngineError(f"no engine of the cluster did {count} windows in {self._tries_s:g} s: {failure}")
            log.warning("%d windows are sent again: %s", len(windows) - len(answers), failure)
            self.facts.resent += len(windows) - len(answers)
            self._pause(PAUSE_S)
        self.facts.windows += len(windows)
        self.facts.rounds.add(self._clock() - began_s)
        results: list[Any] = []
        for place in range(len(windows)):
            answer = answers[place]
            if isinstance(answer, Refused):
                raise answer.error()
            results.append(answer)
        return results

    def _round(
        self, windows: Sequence[Any], waiting: Sequence[int], deadline_s: float, answers: dict[int, Any]
    ) -> str | None:
        """Send the windows that wait and take the answers; why some have none and may be sent again, None: all have."""
        began_s = self._clock()
        pending = [(place, self._handle.remote(windows[place])) for place in waiting]
        self.sending_s += self._clock() - began_s
        self.facts.sent_bytes += sum(windows[place].values.nbytes for place in waiting)
        failure = None
        for place, answer in pending:
            try:
                found = answer.result(timeout_s=max(0.0, deadline_s - self._clock()))
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


class RemoteEngine:
    """What asks the engines of a cluster in place of one. `model`: what is known of the one that they have."""

    def __init__(
        self,
        model: ModelOutline,
        handle: Handle,
        lost: Callable[[BaseException], bool],
        *,
        context: Context = "auto",
        facts: RoundFacts | None = None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """The rest as for `Rounds`."""
        self._model, self._clock = model, clock
        self._rounds = Rounds(handle, lost, facts or RoundFacts(), clock=clock, pause=pause)
        self._padding = Padding.of(model, context)
        self._making_s = 0.0
        self._own_sounds = model.own_sounds

    @property
    def model(self) -> ModelOutline:
        """The model without its weights."""
        return self._model

    @property
    def facts(self) -> RoundFacts:
        """What the engines did."""
        return self._rounds.facts

    @property
    def sending_s(self) -> float:
        """What it took to make windows and send them."""
        return self._making_s + self._rounds.sending_s

    def step(self, work: Sequence[Work]) -> list[StepResult]:
        """Have the windows done, each by any replica; results in the same order. Raises EngineError as `Engine.step`.

        What a replica takes with it when it dies is sent again, to whichever there is, for `STEP_S`. So is, with the
        fine spectrum from then on, what a newer replica knows sounds of one's own for that the first did not.
        """
        try:
            return self.do(self._windows(work))
        except SpectrumWanted as error:
            log.info("windows are sent again: %s", error)
            self._own_sounds = True
            return self.do(self._windows(work))

    def _windows(self, work: Sequence[Work]) -> list[SentWindow]:
        began_s, own = self._clock(), self._own_sounds
        found = [SentWindow.of(mel, request, self._padding, self._model.dtype, own_sounds=own) for mel, request in work]
        self._making_s += self._clock() - began_s
        return found

    def do(self, windows: Sequence[SentWindow]) -> list[StepResult]:
        """As `step`, for windows that are made."""
        return self._rounds.do(windows)


class RemoteRecordings:
    """Uploaded recordings by the engines of a cluster. `handle` takes windows of theirs; `engine`: as `Rounds` are."""

    def __init__(
        self,
        model: ModelOutline,
        handle: Handle,
        lost: Callable[[BaseException], bool],
        engine: Callable[[], RemoteEngine],
    ) -> None:
        self.model, self.engine = model, engine
        self._handle, self._lost = handle, lost
        self._facts = RoundFacts()  # these are no windows of streams: nobody waits for them so

    def window(self, request: WindowRequest) -> WindowResult:
        """Do a window of a recording; its track goes on behind it. Raises EngineError."""
        rounds = Rounds(self._handle, self._lost, self._facts, RECORDING_S)
        answer: RecordingAnswer = rounds.do([SentRecordingWindow.of(request)])[0]
        if request.track is not None and answer.track is not None:
            answer.track.put(request.track)
        return answer.result
