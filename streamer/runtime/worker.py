"""The worker thread: sole owner of the model and of the sessions. It serves all lanes, one plan of each at a time.

Its loop reads: wait, carry out what needs no model, take, begin (mel, requests), step (one batch through the model),
complete (events), emit. What is taken, of which lane first, and what of it the model is asked for, `Overload` says.

Between steps the thread lends the model to whoever has other work for it (`lend`: windows of uploaded recordings), one
piece at a time and behind the lanes.

While a step or such work runs the thread touches no session. Where the program ends and the step takes too long,
another thread may `take_over` then: it finishes the sessions without the model, and what the step finds is not used.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeVar

from streamer.errors import StreamerError
from streamer.events import SAMPLE_RATE, Event
from streamer.model.engine import Engine, Work
from streamer.model.graphs import BATCH_BUCKETS
from streamer.plans import Plan, StepRequest, StepResult
from streamer.runtime.admission import Admission
from streamer.runtime.loans import Loans
from streamer.runtime.overload import FAILURES_MAX, Backlog, Drain, Job, Overload
from streamer.runtime.session import Session
from streamer.runtime.stream import Emit, Hearing
from streamer.settings.config import WindowSettings

log = logging.getLogger(__name__)

BATCH = BATCH_BUCKETS[-1]  # windows that go through the model together
PLANS_A_ROUND = 32  # most that one lane carries out while the others wait for their step
LIMIT_ACTIONS = 64  # more is refused: somebody sends nonsense

Made = TypeVar("Made")
Action = Callable[[Session], list[Event]]
Clock = Callable[[], float]  # seconds that never go back


class Lane:
    """One stream's bounded way from its listener thread to the worker: plans, and what else is asked of its session.

    Full-queue rule: `put` waits, so the listener stops reading. `ready` is shared with the worker and other lanes.
    """

    def __init__(
        self,
        hearing: Hearing,
        emit: Emit,
        backlog: Backlog,
        ready: threading.Condition,
        clock: Clock,
        unread_samples: Callable[[], int],
    ) -> None:
        """`unread_samples`: the audio that was received and has not come here yet."""
        self.hearing, self.emit, self.backlog = hearing, emit, backlog
        self.done = threading.Event()
        self._ready, self._clock, self._unread_samples = ready, clock, unread_samples
        self.opened_s = clock()
        self._actions: deque[Action] = deque()
        self._finishing = False

    @property
    def lag_s(self) -> float:
        """Seconds of audio that wait for the worker."""
        return self.backlog.lag_s

    @property
    def left_out_samples(self) -> int:
        """Audio that is not transcribed, since the program had to end: speech that came here, all that did not."""
        unread = self._unread_samples() if self.backlog.drain is Drain.OVER else 0
        return self.backlog.left_out_samples + unread

    def put(self, plans: Iterable[Plan]) -> None:
        """Append plans as they come (listener thread); waits while more than 10 s of audio are queued."""
        for plan in plans:
            with self._ready:
                self._ready.wait_for(lambda: not self.backlog.full or self.done.is_set())
                self.backlog.put(plan, self._clock())
                self._ready.notify_all()

    def ask(self, action: Action) -> bool:
        """Have the worker thread call `action` with the session and emit what it returns; False: it is too late."""
        with self._ready:
            if self.done.is_set() or len(self._actions) >= LIMIT_ACTIONS:
                return False
            self._actions.append(action)
            self._ready.notify_all()
            return True

    def finish(self) -> None:
        """No more plans come; the worker empties the lane, finishes the session and sets `done`."""
        with self._ready:
            self._finishing = True
            self._ready.notify_all()

    def drain(self, drain: Drain) -> None:
        """The program ends; less of an end than before changes nothing."""
        with self._ready:
            before = self.backlog.drain
            if drain.value > before.value:
                log.debug("%s: drain %s -> %s", self.hearing.session.name, before.name, drain.name)
                self.backlog.drain = drain
            self._ready.notify_all()

    # What follows is for the worker thread, which holds `ready`.

    @property
    def waiting(self) -> bool:
        """Whether the worker has something to do here."""
        return bool(self.backlog or self._actions or self._finishing) and not self.done.is_set()

    @property
    def empty(self) -> bool:
        """Whether all plans were taken and no more come."""
        return self._finishing and not self.backlog and not self._actions

    def take_actions(self) -> list[Action]:
        """What was asked of the session."""
        actions = list(self._actions)
        self._actions.clear()
        return actions


@dataclass(frozen=True, slots=True)
class _Window:
    """What the model is asked for a job of a lane."""

    lane: Lane
    job: Job
    request: StepRequest


class _Phase(Enum):
    """SERVING: the worker's thread has the sessions; STEPPING: the model works, for them or on loan, and nobody touches
    them; TAKEN: another thread has them for good; ENDED: the worker's thread is through with all of them.
    """

    SERVING = auto()
    STEPPING = auto()
    TAKEN = auto()
    ENDED = auto()


class _TakenOver(Exception):  # noqa: N818 what happened, not what was wrong
    """The sessions are no longer the worker's."""


class Worker:
    """Runs `engine` for every lane. `failure` holds the error that ended it, if one did. `clock` measures its steps."""

    def __init__(self, engine: Engine, clock: Clock = time.monotonic) -> None:
        self.overload = Overload()
        self.admission = Admission()
        self.failure: Exception | None = None
        self._engine, self._clock = engine, clock
        self._ready = threading.Condition()
        self._lanes: list[Lane] = []
        self._loans = Loans()
        self._stopping = False
        self._phase = _Phase.SERVING
        self._in_hand: Sequence[_Window] = ()  # what the step at hand is for
        self._taken_samples = 0  # of plans, since the last step
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def add(
        self,
        hearing: Hearing,
        emit: Emit,
        patience_s: float = 0.0,
        window: WindowSettings | None = None,
        unread_samples: Callable[[], int] = lambda: 0,
    ) -> Lane:
        """A lane for one more stream, as in `Lane` and `Backlog`; from any thread."""
        backlog = Backlog(window or WindowSettings(), patience_s)
        lane = Lane(hearing, emit, backlog, self._ready, self._clock, unread_samples)
        with self._ready:
            self._lanes.append(lane)
        return lane

    def lend(self, work: Callable[[], Made]) -> Made:
        """Have the worker's thread do `work` with the model and wait for what it returns or raises; from any thread.

        Raises EngineError where the worker ends before.
        """
        with self._ready:
            done = self._loans.ask(work, self._clock())
            self._ready.notify_all()
        result: Made = done.result()
        return result

    def refusal(self) -> str | None:
        """Why one more stream cannot be carried now, in a line; None: it can. From any thread."""
        with self._ready:
            now_s = self._clock()
            ages_s = [now_s - lane.opened_s for lane in self._lanes]
            late_s = max((lane.backlog.late_s(now_s) for lane in self._lanes), default=0.0)
            slowed = any(lane.backlog.announced.hop_s for lane in self._lanes)
            return self.admission.refusal(ages_s, late_s, slowed=slowed)

    def lanes(self) -> tuple[Lane, ...]:
        """The lanes that are not done."""
        with self._ready:
            return tuple(self._lanes)

    def stop(self, timeout_s: float) -> bool:
        """End the thread after what it is doing; False when it did not end in time."""
        with self._ready:
            self._stopping = True
            self._ready.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def take_over(self, timeout_s: float) -> bool:
        """Finish every session from the calling thread, without the model, because a step of it takes too long.

        After `stop`. False: within `timeout_s` the worker neither ended nor began a step (it waits for who writes the
        events), and the sessions stay as they are.
        """
        with self._ready:
            if not self._ready.wait_for(lambda: self._phase is not _Phase.SERVING, timeout_s):
                return False
            if self._phase is _Phase.ENDED:
                return True
            self._enter(_Phase.TAKEN)
        for window in self._in_hand:
            window.lane.backlog.give_up(window.job)
            window.lane.emit(window.lane.hearing.complete(window.job.plan, None))
        for lane in self.lanes():
            self._leave_out(lane)
        return True

    def _run(self) -> None:
        try:
            while (lanes := self._wait()) is not None:
                self._serve(lanes)
                self._lend()
        except _TakenOver:
            return
        except Exception as error:  # the top of the thread
            log.error("the worker stopped: %s", error, exc_info=log.isEnabledFor(logging.DEBUG))
            self.failure = error
        finally:
            with self._ready:
                self._loans.refuse()
        for lane in self.lanes():
            if self.failure:
                self._finish(lane)
            else:
                self._leave_out(lane)
        with self._ready:
            self._enter(_Phase.ENDED)

    def _enter(self, phase: _Phase) -> None:
        """The one place where the phase changes; with `ready` held."""
        log.debug("worker: %s -> %s", self._phase.name, phase.name)
        self._phase = phase
        self._ready.notify_all()

    def _wait(self) -> list[Lane] | None:
        """The lanes that have something to do, none where somebody else wants the model; None: the end."""
        with self._ready:
            self._ready.wait_for(lambda: self._stopping or self._loans or any(lane.waiting for lane in self._lanes))
            return None if self._stopping else [lane for lane in self._lanes if lane.waiting]

    def _lend(self) -> None:
        """Do one piece of what others asked for, if it is its turn."""
        with self._ready:
            others_wait = any(lane.waiting for lane in self._lanes)
            loan = self._loans.take(self._clock(), others_wait=others_wait)
        if loan:
            with self._model_at_work():
                loan.carry_out()

    def _serve(self, lanes: Sequence[Lane]) -> None:
        """One round: what needs no model, of every lane; then one batch of windows, the most urgent lanes' first."""
        began_s = self._clock()
        for lane in lanes:
            with self._ready:
                actions = lane.take_actions()
            for action in actions:
                lane.emit(action(lane.hearing.session))
            self._carry_out(lane)
        self._in_hand = self._gather(lanes)
        windows, results = self._in_hand, self._step(self._in_hand)
        self._in_hand = ()
        now_s = self._clock()
        self.overload.stepped([lane.backlog for lane in self.lanes()], now_s, now_s - began_s)
        with self._ready:
            self.admission.stepped(now_s - began_s, self._taken_samples / SAMPLE_RATE)
            self._taken_samples = 0
        for window, result in zip(windows, results, strict=True):
            self._complete(window.lane, window.job, result)
            self._carry_out(window.lane)

    def _gather(self, lanes: Sequence[Lane]) -> list[_Window]:
        """The windows of the next batch, in the order of their lanes' turns."""
        with self._ready:
            waiting = [lane for lane in lanes if lane.waiting]
            order = self.overload.order([lane.backlog for lane in waiting], self._clock())
        windows: list[_Window] = []
        for place in order:
            if len(windows) == BATCH:
                break
            window = self._carry_out(waiting[place], model=True)
            windows += [window] if window else []
        return windows

    def _carry_out(self, lane: Lane, *, model: bool = False) -> _Window | None:
        """Carry out what the lane has up to the first plan that may need the model.

        With `model` up to the first that does need it: that one is begun, and its window is what the model is asked.
        """
        for _ in range(PLANS_A_ROUND):
            job = self._take(lane, model=model)
            if job is None:
                with self._ready:
                    empty = lane.empty
                if empty:
                    self._finish(lane)
                break
            request = lane.hearing.begin(job.plan, text=job.text, judge=job.judge) if model else None
            if request is not None:
                return _Window(lane, job, request)
            self._complete(lane, job, None)
        return None

    def _take(self, lane: Lane, *, model: bool = True) -> Job | None:
        with self._ready:
            self._ready.notify_all()  # a full lane will have room
            job = self.overload.take(lane.backlog, self._clock(), model=model)
            self._taken_samples += job.plan.new_samples if job else 0
            return job

    def _complete(self, lane: Lane, job: Job, result: StepResult | None) -> None:
        lane.emit(lane.hearing.complete(job.plan, result))
        if news := self.overload.news(lane.backlog):
            lane.emit(lane.hearing.session.status(*news))

    def _step(self, windows: Sequence[_Window]) -> Sequence[StepResult | None]:
        if not windows:
            return []
        try:
            results = self._ask([(window.lane.hearing.mel, window.request) for window in windows])
        except (StreamerError, RuntimeError) as error:
            if len(windows) > 1:  # one bad window must not cost the others theirs
                return [self._step([window])[0] for window in windows]
            self._failed(windows[0].lane, error)
            return [None]
        for window in windows:
            window.lane.backlog.failures = 0
        return results

    def _ask(self, work: Sequence[Work]) -> Sequence[StepResult]:
        with self._model_at_work():
            return self._engine.step(work)

    @contextmanager
    def _model_at_work(self) -> Iterator[None]:
        """While the model works. Raises _TakenOver where another thread took the sessions meanwhile."""
        with self._ready:
            self._enter(_Phase.STEPPING)
        try:
            yield
        finally:
            with self._ready:
                if self._phase is _Phase.TAKEN:
                    raise _TakenOver
                self._enter(_Phase.SERVING)

    def _failed(self, lane: Lane, error: Exception) -> None:
        """One window is lost; people are told; after three in a row the program ends."""
        log.error("the model failed on a window: %s", error)
        lane.emit(lane.hearing.session.status(*lane.backlog.failed(error)))
        if lane.backlog.failures >= FAILURES_MAX:
            raise error

    def _leave_out(self, lane: Lane) -> None:
        """Carry out what the lane still has without the model, and finish its session."""
        lane.drain(Drain.OVER)
        while (job := self._take(lane)) is not None:
            lane.emit(lane.hearing.pass_over(job.plan))
        self._finish(lane)

    def _finish(self, lane: Lane) -> None:
        left_out_s = lane.left_out_samples / SAMPLE_RATE
        detail = f"the program had to end before the last {left_out_s:.1f} s were transcribed" if left_out_s else ""
        lane.emit(lane.hearing.session.finish(detail))
        with self._ready:
            self._lanes.remove(lane)
        lane.done.set()
