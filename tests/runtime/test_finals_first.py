"""More streams than one batch holds: what ends an utterance goes first, nobody starves, and all say what they would."""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamer
from streamer.audio.files import demo_path, read_audio
from streamer.events import Transcript
from streamer.events.plans import DecodeTask, Hop, Plan, SegmentClosed, SegmentOpened, StepRequest, StepResult
from streamer.model.engine import Engine
from streamer.model.whisper import Model
from streamer.runtime.lane import Lane
from streamer.runtime.overload import OVERDUE_EVERY, OVERDUE_S
from streamer.runtime.stream import Hearing, Listener, Stream
from streamer.runtime.worker import BATCH, Worker
from streamer.settings.config import Settings, WindowSettings

SAMPLES = np.full(8000, 0.1, np.float32)
UNHURRIED_S = 1e9  # what came in a burst may take as long as it sounds


def hop(number: int, *, text: bool) -> Hop:
    end = number * 8000
    return Hop(end, SAMPLES, (text,) * 25, text, end % 16_000 == 0, False, -20.0)


class Ear:
    """One stream's plans as they are carried out: which, and whether the model was asked for text and for tags."""

    def __init__(self, machine: "Machine") -> None:
        self.machine, self.mel = machine, None
        self.session = SimpleNamespace(name="s", last_seq=0, status=lambda *said, **of: [], finish=list)
        self.done: list[tuple[Any, ...]] = []

    def begin(self, plan: Plan, *, text: bool, judge: bool) -> StepRequest | None:
        if not isinstance(plan, Hop) or not ((text and plan.text) or (judge and plan.judge)):
            return None
        spans = (2.0,) if judge and plan.judge else ()
        return StepRequest(id(self), plan.end_sample, spans, DecodeTask() if text and plan.text else None)

    def complete(self, plan: Plan, result: StepResult | None) -> list[Any]:
        at = plan.end_sample
        asked = (bool(result.request.decode), bool(result.request.tag_spans_s)) if result else (False, False)
        self.done.append((type(plan).__name__, at, *asked))
        self.machine.carried_out.append((self, self.done[-1]))
        return []


class Machine:
    """A worker whose engine answers after `step_s` of a scripted clock; 0: nothing ever waits, so nothing is merged."""

    def __init__(self, lanes: int, patience_s: float = UNHURRIED_S, step_s: float = 0.1) -> None:
        self.now_s, self.step_s = 0.0, step_s
        self.worker = Worker(self, lambda: self.now_s)  # type: ignore[arg-type]
        self.ears = [Ear(self) for _ in range(lanes)]
        self.lanes = [self._lane(ear, patience_s) for ear in self.ears]
        self.batches: list[list[int]] = []
        self.carried_out: list[tuple[Ear, tuple[Any, ...]]] = []

    def _lane(self, ear: Ear, patience_s: float) -> Lane:
        return self.worker.add(ear, lambda events: None, patience_s, WindowSettings())  # type: ignore[arg-type]

    def step(self, work: Any) -> list[StepResult]:
        self.now_s += self.step_s
        known = [id(ear) for ear in self.ears]
        self.batches.append([known.index(request.start_sample) for _, request in work])
        return [StepResult(request) for _, request in work]

    def serve(self) -> bool:
        """One round; whether there was anything to do."""
        waiting = [lane for lane in self.lanes if lane.waiting]
        if waiting:
            self.worker._serve(waiting)
        return bool(waiting)


@st.composite
def streams(draw: st.DrawFn) -> list[list[Plan]]:
    """Up to 40 streams, each of up to 12 hops with utterances that open and close anywhere."""
    found = []
    for _ in range(draw(st.integers(1, 40))):
        plans: list[Plan] = []
        speaking = False
        for number, changes in enumerate(draw(st.lists(st.booleans(), max_size=12)), start=1):
            at = number * 8000 - 4000
            if changes:
                plans.append(SegmentClosed(at, at) if speaking else SegmentOpened(at, at))
                speaking = not speaking
            plans.append(hop(number, text=speaking))
        found.append(plans)
    return found


@settings(max_examples=60, deadline=None)
@given(streams(), st.randoms(use_true_random=False))
def test_every_stream_is_carried_out_as_if_it_were_alone(plans, random):
    together = Machine(len(plans), step_s=0.0)
    waiting = [list(each) for each in plans]
    while any(waiting):  # in bursts, while the others are being served
        for lane, left in zip(together.lanes, waiting, strict=True):
            count = random.randint(0, 4)
            lane.put(left[:count])
            del left[:count]
        together.serve()
    for lane in together.lanes:
        lane.finish()
    rounds = 0
    while together.serve():
        rounds += 1
        assert rounds < 1000
    assert all(len(batch) <= BATCH and len(set(batch)) == len(batch) for batch in together.batches)
    for number, (ear, each) in enumerate(zip(together.ears, plans, strict=True)):
        alone = Machine(1, step_s=0.0)
        alone.lanes[0].put(each)
        alone.lanes[0].finish()
        while alone.serve():
            pass
        assert together.lanes[number].done.is_set()
        assert ear.done == alone.ears[0].done


@settings(max_examples=60, deadline=None)
@given(streams())
def test_no_window_is_served_before_that_of_an_utterance_which_ends(plans):
    machine = Machine(len(plans))
    for lane, each in zip(machine.lanes, plans, strict=True):
        lane.put(each)
    while True:
        before = machine.now_s
        closing = {number for number, lane in enumerate(machine.lanes) if lane.backlog.closing}
        if not machine.serve():
            break
        batch = machine.batches[-1] if machine.now_s > before else []
        left = closing - set(batch) - {n for n, lane in enumerate(machine.lanes) if not lane.backlog.closing}
        if left:  # some had to wait: only those that were overdue went before them
            overdue = len(batch) // OVERDUE_EVERY if before >= OVERDUE_S else 0
            assert len(set(batch) - closing) <= overdue


def test_a_final_that_needs_no_model_waits_for_no_batch():
    machine = Machine(BATCH + 1)
    for lane in machine.lanes[:-1]:
        lane.put([hop(2, text=False)])
    machine.lanes[-1].put([SegmentOpened(0, 0), hop(1, text=True)])
    while machine.serve():
        pass
    for lane in machine.lanes[:-1]:
        lane.put([hop(4, text=False)])
    machine.carried_out.clear()
    machine.lanes[-1].put([SegmentClosed(12_000, 8000)])
    machine.serve()
    assert machine.carried_out[0] == (machine.ears[-1], ("SegmentClosed", 12_000, False, False))


def test_finals_come_with_the_first_batch_and_before_the_rest_of_it():
    machine = Machine(3 * BATCH)
    for lane in machine.lanes:
        lane.put([SegmentOpened(0, 0), hop(1, text=True)])
    for lane in machine.lanes[-4:]:
        lane.put([SegmentClosed(8000, 8000)])
    machine.serve()
    last = list(range(3 * BATCH - 4, 3 * BATCH))
    assert machine.batches == [[*last, *range(BATCH - 4)]]
    hops = [(ear, done) for ear, done in machine.carried_out if done[0] != "SegmentOpened"]
    closed = [(machine.ears[number], done[0]) for number in last for done in machine.ears[number].done[1:]]
    assert [(ear, done[0]) for ear, done in hops[:8]] == closed
    assert [kind for _, kind in closed] == ["Hop", "SegmentClosed"] * 4


def test_utterances_that_end_all_the_time_starve_nobody():
    machine = Machine(4 * BATCH)
    quiet = machine.lanes[:4]
    for lane in quiet:
        lane.put([hop(2, text=False)])
    for number in itertools.count(1):
        for lane in machine.lanes[4:]:
            if not lane.backlog.closing:
                lane.put([SegmentOpened(16_000 * number, 0), hop(2 * number, text=True)])
                lane.put([SegmentClosed(16_000 * number, 0)])
        machine.serve()
        if all(ear.done for ear in machine.ears[:4]):
            break
    assert OVERDUE_S <= machine.now_s <= OVERDUE_S + 0.2


def test_a_late_hop_supersedes_the_one_that_waits_for_its_turn():
    machine = Machine(BATCH + 1, patience_s=0.0)
    for lane in machine.lanes:
        lane.put([SegmentOpened(0, 0), hop(1, text=True)])
    machine.serve()
    machine.lanes[-1].put([hop(2, text=True)])
    while machine.serve():
        pass
    assert machine.ears[-1].done == [
        ("SegmentOpened", 0, False, False),
        ("Hop", 8000, False, False),
        ("Hop", 16_000, True, True),
    ]


@pytest.fixture(scope="module")
def spoken() -> list[np.ndarray]:
    """Twenty pieces of the demo, of 2.5 to 3.5 s, in which somebody speaks."""
    audio = read_audio(str(demo_path()))
    words = json.loads(Path(demo_path()).with_suffix(".json").read_text())["words"]
    starts = [round((word["start"] - 0.6) * 16_000) for word in words if 0.6 < word["start"] < len(audio) / 16_000 - 5]
    starts = [starts[number * len(starts) // 20] for number in range(20)]
    return [audio[start : start + 40_000 + 800 * number] for number, start in enumerate(starts)]


@pytest.fixture(scope="module")
def nano() -> Model:
    return streamer.load_model("nano", dtype="float32")


def transcripts(events: Iterable[Any], name: str) -> list[tuple[str, str, bool]]:
    found = [event for event in events if isinstance(event, Transcript) and event.session == name]
    return [(event.text, event.partial, event.final) for event in found]


def test_twenty_streams_of_nano_say_what_each_says_alone(nano, spoken):
    worker, emitted = Worker(Engine(nano), lambda: 0.0), []  # nothing ever waits, so nothing is merged
    lanes = []
    for number, audio in enumerate(spoken):
        lanes.append(worker.add(Hearing(nano, Settings(), f"s{number}"), emitted.extend))
        listener = Listener(Settings())
        lanes[-1].put(listener.step(audio) + listener.finish())
        lanes[-1].finish()
    worker.start()
    assert all(lane.done.wait(120) for lane in lanes)
    assert worker.stop(10)
    for number, audio in enumerate(spoken):
        stream = Stream(nano, name=f"s{number}")
        alone = stream.push(audio) + stream.finish()
        assert transcripts(emitted, f"s{number}") == transcripts(alone, f"s{number}")


def test_of_twenty_streams_of_nano_those_that_end_are_final_before_the_others_have_caught_up(nano, spoken):
    worker, emitted = Worker(Engine(nano), lambda: 0.0), []
    lanes = [worker.add(Hearing(nano, Settings(), f"s{n}"), emitted.extend) for n in range(20)]
    for number, (lane, audio) in enumerate(zip(lanes, spoken, strict=True)):
        listener = Listener(Settings())
        lane.put([plan for plan in listener.step(audio[:40_000]) if not isinstance(plan, SegmentClosed)])
        if number >= BATCH:
            lane.put(listener.finish())
    while any(lane.waiting for lane in lanes):
        worker._serve([lane for lane in lanes if lane.waiting])
    ending = {f"s{number}" for number in range(BATCH, 20)}
    finals = [at for at, event in enumerate(emitted) if isinstance(event, Transcript) and event.final]
    assert {emitted[at].session for at in finals} <= ending
    assert len(finals) >= 3
    behind = {event.session for event in emitted[finals[-1] :] if event.session not in ending and event.audio_t == 2.0}
    assert len(behind) >= 2
