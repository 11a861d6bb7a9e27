"""The worker thread: sole owner of the model and of the sessions. It serves all lanes, one plan of each at a time.

Its loop reads: wait, take, prepare (mel, requests), step (one batch through the model), complete (events), emit.
"""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from streamer.config import WindowSettings
from streamer.errors import StreamerError
from streamer.runtime.engine import Engine
from streamer.runtime.lane import Clock, Emit, Job, Lane, Trouble
from streamer.runtime.pace import Pace
from streamer.runtime.stream import Hearing
from streamer.steps import StepRequest, StepResult

log = logging.getLogger(__name__)

DEGRADED_LAG_S = 3.0  # so far behind, people are told
RECOVERED_LAG_S = 1.0
FAILURES_MAX = 3  # steps in a row that may fail before the stream ends


class Worker:
    """Runs `engine` for every lane. `failure` holds the error that ended it, if one did. `clock` measures its steps."""

    def __init__(self, engine: Engine, clock: Clock = time.monotonic) -> None:
        self._engine, self._clock = engine, clock
        self._pace = Pace()
        self._ready = threading.Condition()
        self._lanes: list[Lane] = []
        self._stopping = False
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def add(self, hearing: Hearing, emit: Emit, patience_s: float = 0.0, window: WindowSettings | None = None) -> Lane:
        """A lane for one more stream; from any thread."""
        lane = Lane(hearing, emit, self._ready, patience_s, window, self._clock)
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

    def _run(self) -> None:
        try:
            while lanes := self._wait():
                self._serve(lanes)
        except Exception as error:  # the top of the thread
            log.error("the worker stopped: %s", error, exc_info=log.isEnabledFor(logging.DEBUG))
            self.failure = error
        finally:
            for lane in self.lanes():
                self._finish(lane)
            with self._ready:
                self._ready.notify_all()

    def _wait(self) -> list[Lane]:
        with self._ready:
            self._ready.wait_for(lambda: self._stopping or any(lane.waiting for lane in self._lanes))
            return [] if self._stopping else [lane for lane in self._lanes if lane.waiting]

    def _serve(self, lanes: Sequence[Lane]) -> None:
        jobs: list[tuple[Lane, Job]] = []
        for lane in lanes:
            with self._ready:
                actions, job, empty = lane.take_actions(), lane.take(self._pace.hop_s), lane.empty
            for action in actions:
                lane.emit(action(lane.hearing.session))
            if job is not None:
                jobs.append((lane, job))
            elif empty:
                self._finish(lane)
        began_s = self._clock()
        requests = [(lane.hearing.begin(job.plan, text=job.text, judge=job.judge)) for lane, job in jobs]
        results = self._step([(lane, request) for (lane, _), request in zip(jobs, requests, strict=True)])
        self._measure(jobs, began_s)
        for (lane, job), result in zip(jobs, results, strict=True):
            lane.emit(lane.hearing.complete(job.plan, result))
            self._tell(lane)

    def _measure(self, jobs: Sequence[tuple[Lane, Job]], began_s: float) -> None:
        if not jobs:
            return
        now_s, turns = self._clock(), [lane.turns for lane in self.lanes()]
        waited_s = max(job.waited_s for _, job in jobs)
        own_s, longest_s = min(turn.own_s for turn in turns), max(turn.longest_s for turn in turns)
        if self._pace.step(now_s, now_s - began_s, waited_s, own_s, longest_s):
            log.info("the hop of live streams is now at least %g s (0: each its own)", self._pace.hop_s)

    def _step(self, work: Sequence[tuple[Lane, StepRequest | None]]) -> list[StepResult | None]:
        due = [(lane.hearing.mel, request) for lane, request in work if request]
        if not due:
            return [None] * len(work)
        try:
            results = iter(self._engine.step(due))
        except (StreamerError, RuntimeError) as error:
            if len(due) > 1:  # one bad window must not cost the others theirs
                return [self._step([item])[0] for item in work]
            for lane, request in work:
                if request:
                    self._failed(lane, error)
            return [None] * len(work)
        for lane, request in work:
            lane.failures = 0 if request else lane.failures
        return [next(results) if request else None for _, request in work]

    def _failed(self, lane: Lane, error: Exception) -> None:
        """One window is lost; people are told; after three in a row the program ends."""
        lane.failures += 1
        lane.told = replace(lane.told, failed=True)
        log.error("the model failed on a window: %s", error)
        lane.emit(lane.hearing.session.status("degraded", f"the model failed on a window: {error}"))
        if lane.failures >= FAILURES_MAX:
            raise error

    def _finish(self, lane: Lane) -> None:
        lane.emit(lane.hearing.session.finish())
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
