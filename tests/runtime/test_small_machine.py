"""Many streams on a machine that is too small for them: a worker on a scripted clock, each window at its cost."""

from types import SimpleNamespace

import numpy as np
import pytest

from streamer.events.plans import DecodeTask, Hop, SegmentOpened, StepRequest, StepResult
from streamer.runtime.worker import Worker
from streamer.settings.config import WindowSettings

SAMPLES = np.full(8000, 0.1, np.float32)
ENCODE_S, DECODE_S, STEP_S = 0.06, 0.03, 0.01


class Heard:
    """One stream of unbroken speech: what of it was decoded and judged, each with the second at which that was done."""

    def __init__(self, machine: "Machine", phase_s: float) -> None:
        self.machine, self.phase_s, self.mel = machine, phase_s, None
        self.session = SimpleNamespace(name="s", last_seq=0, status=lambda *said, **of: [], finish=list)
        self.texts: list[tuple[float, float]] = []
        self.tags: list[tuple[float, float]] = []

    def begin(self, plan, *, text, judge):
        if not isinstance(plan, Hop) or not (text or (judge and plan.judge)):
            return None
        spans = (2.0,) if judge and plan.judge else ()
        return StepRequest(0, plan.end_sample, spans, DecodeTask() if text else None)

    def complete(self, plan, result):
        done = (plan.end_sample / 16_000, self.machine.now_s - self.phase_s) if isinstance(plan, Hop) else None
        if result and result.request.decode:
            self.texts.append(done)
        if result and result.request.tag_spans_s:
            self.tags.append(done)
        return []


class Machine:
    """The engine, and the listeners that put hops into the lanes when they are due, also while a step runs."""

    def __init__(self, streams: int, window: WindowSettings) -> None:
        self.now_s = 0.0
        self.worker = Worker(self, lambda: self.now_s)  # type: ignore[arg-type]
        self.heard = [Heard(self, 0.5 * number / streams) for number in range(streams)]
        self.lanes = [self.worker.add(one, lambda events: None, 0.0, window) for one in self.heard]  # type: ignore[arg-type]
        self._next = [1] * streams
        for lane in self.lanes:
            lane.put([SegmentOpened(0, 0)])

    def step(self, work):
        self.wait(STEP_S + sum(ENCODE_S + (DECODE_S if request.decode else 0.0) for _, request in work))
        return [StepResult(request) for _, request in work]

    def wait(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while True:
            due = [0.5 * number + one.phase_s for number, one in zip(self._next, self.heard, strict=True)]
            first = int(np.argmin(due))
            if due[first] > until_s or self.lanes[first].lag_s >= 10:
                break
            self.now_s = max(self.now_s, due[first])
            end = 8000 * self._next[first]
            self.lanes[first].put([Hop(end, SAMPLES, (True,) * 25, True, end % 16_000 == 0, False, -20.0)])
            self._next[first] += 1
        self.now_s = until_s

    def run(self, seconds: float) -> None:
        while self.now_s < seconds:
            if waiting := [lane for lane in self.lanes if lane.waiting]:
                self.worker._serve(waiting)
            else:
                self.wait(0.02)


@pytest.mark.parametrize(("streams", "hop_s"), [(3, 0.0), (7, 1.0), (10, 2.0)])
def test_the_hop_is_the_shortest_that_the_machine_carries_and_nothing_queues(streams, hop_s):
    machine = Machine(streams, WindowSettings())
    machine.run(60)
    assert machine.worker.overload.pace.hop_s == hop_s
    every = hop_s or 0.5
    for one in machine.heard:
        later = [(end, done) for end, done in one.texts if end > 30]
        assert np.diff([end for end, _ in later]).max() <= every
        assert max(done - end for end, done in later + one.tags[-20:]) < 1.5
        assert [end for end, _ in one.tags] == list(range(1, len(one.tags) + 1))


@pytest.mark.parametrize("streams", [7, 10])
def test_where_the_hop_may_not_grow_text_is_merged_but_does_not_starve(streams):
    machine = Machine(streams, WindowSettings(hop_max_s=0.5))
    machine.run(60)
    for one in machine.heard:
        assert np.diff([end for end, _ in one.texts]).max() <= 2.5
        assert max(done - end for end, done in one.texts) < 10
