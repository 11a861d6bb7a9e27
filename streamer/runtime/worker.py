"""The worker thread: sole owner of the model and of the sessions. It serves all lanes, one plan of each at a time.

Its loop reads: wait, settle what needs no model, take, prepare (mel, requests), step (one batch through the model),
complete (events), emit. Where more lanes wait than a batch holds, `streamer.runtime.order` says whose turn it is; who
is left waits in its lane, where later hops supersede earlier ones, and is weighed anew before the next batch.

While a step runs the thread touches no session. Where the program ends and the step takes too long, another thread may
`take_over` then: it finishes the sessions without the model, and what the step finds is not used.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum, auto

from streamer.errors import StreamerError
from streamer.events import SAMPLE_RATE
from streamer.model.engine import Engine, Work
from streamer.model.graphs import BATCH_BUCKETS
from streamer.plans import StepRequest, StepResult
from streamer.runtime.lane import Clock, Emit, Haste, Job, Lane, Trouble
from streamer.runtime.order import in_turn
from streamer.runtime.pace import Pace
from streamer.runtime.stream import Hearing
from streamer.settings.config import WindowSettings

log = logging.getLogger(__name__)

DEGRADED_LAG_S = 3.0  # so far behind, people are told
RECOVERED_LAG_S = 1.0
BATCH = BATCH_BUCKETS[-1]  # windows that go through the model together
PLANS_A_ROUND = 32  # most that one lane carries out while the others wait for their step
FAILURES_MAX = 3  # steps in a row that may fail before the stream ends


class _Phase(Enum):
    """SERVING: the worker's thread has the sessions; STEPPING: the model works, nobody touches them; TAKEN: another
    thread has them for good; ENDED: the worker's thread is through with all of them.
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
        self._engine, self._clock = engine, clock
        self._pace = Pace()
        self._waited_s = 0.0  # longest of this round
        self._ready = threading.Condition()
        self._lanes: list[Lane] = []
        self._stopping = False
        self._phase = _Phase.SERVING
        self._in_hand: Sequence[tuple[Lane, Job]] = ()  # what the step at hand is for
        self.failure: Exception | None = None
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
        """A lane for one more stream, as in `Lane`; from any thread."""
        lane = Lane(hearing, emit, self._ready, patience_s, window, self._clock, unread_samples)
        with self._ready:
            self._lanes.append(lane)
        return lane

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
        for lane, job in self._in_hand:
            lane.give_up(job)
            lane.emit(lane.hearing.complete(job.plan, None))
        for lane in self.lanes():
            self._leave_out(lane)
        return True

    def _run(self) -> None:
        try:
            while lanes := self._wait():
                self._serve(lanes)
        except _TakenOver:
            return
        except Exception as error:  # the top of the thread
            log.error("the worker stopped: %s", error, exc_info=log.isEnabledFor(logging.DEBUG))
            self.failure = error
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

    def _wait(self) -> list[Lane]:
        with self._ready:
            self._ready.wait_for(lambda: self._stopping or any(lane.waiting for lane in self._lanes))
            return [] if self._stopping else [lane for lane in self._lanes if lane.waiting]

    def _serve(self, lanes: Sequence[Lane]) -> None:
        """One round: what needs no model, of every lane; then one batch of windows, the most urgent lanes' first."""
        began_s = self._clock()
        for lane in lanes:
            with self._ready:
                actions = lane.take_actions()
            for action in actions:
                lane.emit(action(lane.hearing.session))
            self._settle(lane)
        work = self._gather(lanes)
        self._in_hand = [(lane, job) for lane, job, _ in work]
        results = self._step([(lane, request) for lane, _, request in work])
        self._in_hand = ()
        self._measure(began_s)
        for (lane, job, _), result in zip(work, results, strict=True):
            self._complete(lane, job, result)
            self._settle(lane)

    def _settle(self, lane: Lane) -> None:
        """Carry out what the lane has up to the first plan that may need the model."""
        for _ in range(PLANS_A_ROUND):
            with self._ready:
                job, empty = (lane.take() if lane.free else None), lane.empty
            if job is None:
                if empty:
                    self._finish(lane)
                break
            self._complete(lane, job, None)

    def _gather(self, lanes: Sequence[Lane]) -> list[tuple[Lane, Job, StepRequest]]:
        """The windows of the next batch, in the order of their lanes' turns."""
        with self._ready:
            waiting = [lane for lane in lanes if lane.waiting]
            order = in_turn([lane.turn for lane in waiting], self._clock())
        work: list[tuple[Lane, Job, StepRequest]] = []
        for place in order:
            if len(work) == BATCH:
                break
            work += self._begin(waiting[place])
        return work

    def _begin(self, lane: Lane) -> list[tuple[Lane, Job, StepRequest]]:
        """Carry out what the lane has up to the first plan that needs the model, and prepare that one."""
        for _ in range(PLANS_A_ROUND):
            with self._ready:
                job, empty = lane.take(self._pace.hop_s), lane.empty
            if job is None:
                if empty:
                    self._finish(lane)
                break
            self._waited_s = max(self._waited_s, job.waited_s)
            request = lane.hearing.begin(job.plan, text=job.text, judge=job.judge)
            if request is not None:
                return [(lane, job, request)]
            self._complete(lane, job, None)
        return []

    def _complete(self, lane: Lane, job: Job, result: StepResult | None) -> None:
        lane.emit(lane.hearing.complete(job.plan, result))
        self._tell(lane)

    def _measure(self, began_s: float) -> None:
        now_s, turns = self._clock(), [lane.turns for lane in self.lanes()]
        waited_s, self._waited_s = self._waited_s, 0.0
        if not turns:
            return
        own_s, longest_s = min(turn.own_s for turn in turns), max(turn.longest_s for turn in turns)
        if self._pace.step(now_s, now_s - began_s, waited_s, own_s, longest_s):
            log.info("the hop of live streams is now at least %g s (0: each its own)", self._pace.hop_s)

    def _step(self, work: Sequence[tuple[Lane, StepRequest]]) -> Sequence[StepResult | None]:
        if not work:
            return []
        try:
            results = self._ask([(lane.hearing.mel, request) for lane, request in work])
        except (StreamerError, RuntimeError) as error:
            if len(work) > 1:  # one bad window must not cost the others theirs
                return [self._step([item])[0] for item in work]
            self._failed(work[0][0], error)
            return [None]
        for lane, _ in work:
            lane.failures = 0
        return results

    def _ask(self, work: Sequence[Work]) -> Sequence[StepResult]:
        """Ask the model. Raises _TakenOver where another thread took the sessions meanwhile."""
        with self._ready:
            self._enter(_Phase.STEPPING)
        try:
            return self._engine.step(work)
        finally:
            with self._ready:
                if self._phase is _Phase.TAKEN:
                    raise _TakenOver
                self._enter(_Phase.SERVING)

    def _failed(self, lane: Lane, error: Exception) -> None:
        """One window is lost; people are told; after three in a row the program ends."""
        lane.failures += 1
        lane.told = replace(lane.told, failed=True)
        log.error("the model failed on a window: %s", error)
        lane.emit(lane.hearing.session.status("degraded", f"the model failed on a window: {error}"))
        if lane.failures >= FAILURES_MAX:
            raise error

    def _leave_out(self, lane: Lane) -> None:
        """Carry out what the lane still has without the model, and finish its session."""
        lane.hasten(Haste.OVER)
        while (job := lane.take()) is not None:
            lane.emit(lane.hearing.pass_over(job.plan))
        self._finish(lane)

    def _finish(self, lane: Lane) -> None:
        left_out_s = lane.left_out_samples / SAMPLE_RATE
        detail = f"the program had to end before the last {left_out_s:.1f} s were transcribed" if left_out_s else ""
        lane.emit(lane.hearing.session.finish(detail))
        with self._ready:
            self._lanes.remove(lane)
        lane.done.set()

    def _tell(self, lane: Lane) -> None:
        """Say once that text comes late or less often, and once that it does not any more."""
        if lane.failures or lane.state == "no_audio":
            return
        lag_s, hop_s = lane.lag_s, lane.turns.hop_s(self._pace.hop_s)
        behind = lag_s > (RECOVERED_LAG_S if lane.told.behind else DEGRADED_LAG_S)
        trouble = Trouble(behind, hop_s if hop_s > lane.turns.own_s else None)
        if trouble == lane.told:
            return
        lane.told = trouble
        parts = []
        if trouble.behind:
            parts.append(f"{lag_s:.0f} s behind: captions come late, some tags are left out")
        if trouble.hop_s:
            parts.append(f"the machine cannot keep up: text comes every {hop_s:g} s instead of {lane.turns.own_s:g} s")
        detail = "; ".join([*parts, "a smaller --model helps"])
        lane.emit(lane.hearing.session.status("degraded" if parts else "listening", detail if parts else ""))
