"""While a step does not end: what waits behind it goes on without the model, and no word is lost for it.

Sessions, listeners and the engine are the real ones; the clock is the test's, and sound comes in step with it.
"""

import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from demo_speech import demo_speech
from hypothesis import given, settings
from hypothesis import strategies as st
from program import LONG_S
from protocol import check_session

import streamer
from streamer.events import FRAME_SAMPLES
from streamer.events.plans import Beat, DecodeTask, Hop, Hypothesis, SegmentClosed, StepRequest, StepResult
from streamer.model.engine import Engine
from streamer.model.whisper import Model
from streamer.runtime.model_turns import HANG_TIMES
from streamer.runtime.overload import PASS_OVER_S, Backlog
from streamer.runtime.stream import Hearing, Listener, Stream
from streamer.runtime.worker import HANG_S, TELL_S, Worker
from streamer.settings.config import Settings, WindowSettings
from streamer.vad.planner import Planner, VoiceFrame

BEAT_S = 0.1
UNSURE = Hypothesis((), "en", 1.0, 0.0, -2.0, 1.0, True)


@pytest.fixture(scope="module")
def nano() -> Model:
    return streamer.load_model("nano", dtype="float32")


@pytest.fixture(scope="module")
def spoken() -> np.ndarray:
    """14 s of the demo with words."""
    return demo_speech(14)


class Waits:
    """A real engine that waits in each of its steps from `at_s` of the room's clock on, until it is let go."""

    def __init__(self, room: "Room", engine: Any, at_s: float) -> None:
        self.room, self.engine, self.at_s = room, engine, at_s
        self.began, self.go, self.asked = threading.Event(), threading.Event(), list[int]()

    def step(self, work: Any) -> Any:
        self.asked += [request.end_sample for _, request in work]
        if self.room.now_s >= self.at_s:
            self.began.set()
            assert self.go.wait(LONG_S)
        return self.engine.step(work)


class Room:
    """One stream that is heard in step with a clock of its own; the watch looks every tenth of a second."""

    def __init__(self, model: Model, engine: Any, sound: np.ndarray, hangs_at_s: float) -> None:
        self.now_s, self.events, self.lags_s = 0.0, list[Any](), list[float]()
        self.hung, self.spare = Waits(self, engine, hangs_at_s), Waits(self, engine, float("inf"))
        self.worker = Worker(self.hung, lambda: self.now_s, lambda: self.spare)
        self.lane = self.worker.add(Hearing(model, Settings(), "s1"), self.events.extend)
        self._listener, self._sound = Listener(Settings()), sound
        self.worker.start()

    @property
    def _hangs(self) -> bool:
        return self.worker._turns._engine is self.hung and self.hung.began.is_set() and not self.hung.go.is_set()

    @property
    def _idle(self) -> bool:
        return not self.lane.waiting and self.worker._round_s is None

    def hear(self, until_s: float) -> None:
        """Everything up to there. Where no step hangs, the worker is through with it before more comes."""
        while self.now_s < until_s - 1e-6:
            at = round(self.now_s * 16_000)
            self.now_s = round(self.now_s + BEAT_S, 1)
            self.lane.put(self._listener.step(self._sound[at : round(self.now_s * 16_000)]))
            while not (self._hangs or self._idle):
                time.sleep(0.001)
            self.worker.watch()
            self.lags_s.append(self.lane.lag_s)

    def end(self) -> list[dict[str, Any]]:
        self.lane.put(self._listener.finish())
        self.lane.finish()
        assert self.lane.done.wait(LONG_S)
        assert self.worker.stop(LONG_S)
        return [event.to_dict() for event in self.events]


def words_of(events: Any) -> list[str]:
    return [word["word"] for event in events if event.get("final") for word in event["words"]]


def alone(nano: Model, spoken: np.ndarray) -> list[str]:
    stream = Stream(nano)
    return words_of([event.to_dict() for event in [*stream.push(spoken), *stream.finish()]])


def test_the_lag_levels_off_while_a_step_takes_long_and_every_word_comes_with_it_or_behind_it(nano, spoken):
    room = Room(nano, Engine(nano), spoken, hangs_at_s=1.5)
    room.hear(6.0)
    assert room.hung.began.is_set()
    assert max(room.lags_s) <= TELL_S + 0.6
    told = [event.detail for event in room.events if event.type == "status"][-1]
    assert told == "the model has not answered for 2 s: captions wait, tags are left out"  # /readyz goes by it
    room.hung.go.set()
    room.hear(14.0)
    said = room.end()
    check_session(said, degraded=True)
    assert words_of(said) == alone(nano, spoken)
    assert [event["state"] for event in said if event["type"] == "status"][-3:] == ["degraded", "listening", "stopped"]


def test_what_comes_first_behind_a_step_that_hung_is_of_now_and_brings_the_words_of_all(nano, spoken):
    room = Room(nano, Engine(nano), spoken, hangs_at_s=1.5)
    room.hear(14.0)
    assert room.hung.began.is_set()
    assert max(room.lags_s) <= TELL_S + 0.6
    said = room.end()
    room.hung.go.set()
    check_session(said, degraded=True)
    assert words_of(said) == alone(nano, spoken)
    assert room.spare.asked[0] >= (1.5 + HANG_S - 5) * 16_000


def test_an_alarm_is_recognised_by_its_pattern_while_the_model_does_not_answer(nano):
    t = np.arange(14 * 16_000) / 16_000
    beeps = (t % 4.0 < 3.0) & (t % 1.0 < 0.5)  # ISO 8201: three of half a second, then a pause
    sound = np.where(beeps, 0.2 * np.sin(2 * np.pi * 3100 * t), 0.0).astype(np.float32)
    sound += np.random.default_rng(0).normal(0, 1e-3, len(sound)).astype(np.float32)
    room = Room(nano, Engine(nano), sound, hangs_at_s=0.9)
    room.hear(10.5)
    assert room.hung.began.is_set()
    assert not room.hung.go.is_set()
    raised = [event for event in list(room.events) if event.type == "alert"]
    assert [(event.rule, event.state) for event in raised[:1]] == [("smoke_alarm", "raised")]
    room.hung.go.set()
    check_session(room.end(), degraded=True)


def planned(voices: list[bool]) -> list[Any]:
    planner, frame = Planner(Settings()), np.full(FRAME_SAMPLES, 0.1, np.float32)
    plans = [plan for voiced in voices for plan in planner.step(frame, VoiceFrame(voiced, -20.0))]
    return plans + planner.finish(np.zeros(0, np.float32))


TALK = st.lists(st.tuples(st.booleans(), st.integers(10, 200)), min_size=2, max_size=8)


@settings(deadline=None, max_examples=60)
@given(TALK, st.lists(st.floats(0.1, 9.0), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_all_sound_is_carried_out_in_order_and_no_utterance_ends_before_its_text(talk, steps_s, random):
    """Steps that take their time or fail, one after the other; the watch passes over what waits behind them."""
    plans = planned([voiced for voiced, count in talk for _ in range(count)])
    backlog, now_s, decoded = Backlog(WindowSettings()), 0.0, 0
    coming, carried = list(plans), list[Any]()

    def come(until_s: float) -> None:
        while coming and coming[0].end_sample <= until_s * 16_000:
            backlog.put(coming[0], coming.pop(0).end_sample / 16_000)

    def done(job: Any) -> None:
        if isinstance(job.plan, SegmentClosed):
            assert decoded >= job.plan.speech_end_sample
        carried.append(job.plan)

    while coming or backlog:
        come(now_s)
        while (job := backlog.take(now_s, 0.0)) is not None:
            asked = isinstance(job.plan, Hop) and (job.plan.text and job.text)
            if not asked:
                done(job)
                continue
            ends_s = now_s + random.choice(steps_s)
            while now_s < ends_s:
                now_s += 0.1
                come(now_s)
                while (passed := backlog.pass_over(now_s, PASS_OVER_S, text_in_hand=True)) is not None:
                    done(passed)
                assert backlog.lag_s <= PASS_OVER_S + 0.6
            if random.random() < 0.2 and len(job.plan.samples):
                backlog.failed(job, RuntimeError("no"))
            else:
                decoded = max(decoded, job.plan.end_sample)
            carried.append(job.plan)
        now_s += 0.1
    hops = [plan for plan in carried if isinstance(plan, Hop) and len(plan.samples)]
    assert sorted(hops, key=lambda plan: plan.end_sample) == [plan for plan in plans if isinstance(plan, Hop)]
    beats = [plan for plan in carried if isinstance(plan, Beat)]
    assert beats == [plan for plan in plans if isinstance(plan, Beat)]


class Machine:
    """A worker on a scripted clock whose steps take `step_s` each; streams are heard meanwhile, and the watch looks."""

    def __init__(self, streams: list[list[Any]], step_s: float) -> None:
        self.now_s, self.step_s, self.lags_s, self.steps = 0.0, step_s, list[float](), 0
        self.worker = Worker(self, lambda: self.now_s, hang_s=60.0)
        self.worker._thread = threading.current_thread()  # which does what the worker's thread does
        self.coming = [list(plans) for plans in streams]
        self.heard = [Heard() for _ in streams]
        self.lanes = [self.worker.add(one, lambda events: None, 5.0) for one in self.heard]  # as senders have it

    def step(self, work: Any) -> list[StepResult]:
        self.steps += 1
        self.wait(self.step_s)
        return [StepResult(request, UNSURE if request.decode else None) for _, request in work]

    def wait(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s - 1e-6:
            self.now_s = min(self.now_s + BEAT_S, until_s)
            for plans, lane in zip(self.coming, self.lanes, strict=True):
                while plans and plans[0].end_sample <= self.now_s * 16_000:
                    assert not lane.backlog.full
                    lane.put([plans.pop(0)])
            self.worker.watch()
            self.lags_s += [lane.lag_s for lane in self.lanes]

    def run(self, until_s: float = float("inf")) -> None:
        while self.now_s < until_s and (any(self.coming) or any(lane.waiting for lane in self.lanes)):
            if waiting := [lane for lane in self.lanes if lane.waiting]:
                self.worker._serve(waiting)
            self.wait(0.02)


class Heard:
    """A stream's session, as far as the worker knows it: an utterance never ends before its voice was decoded."""

    def __init__(self) -> None:
        self.mel, self.decoded, self.finals, self.judged = np.zeros(1), 0, 0, list[int]()
        self.session = SimpleNamespace(name="s", last_seq=0, status=lambda *said, **of: [], finish=list)

    def begin(self, plan: Any, *, text: bool, judge: bool) -> StepRequest | None:
        if not isinstance(plan, Hop) or not ((text and plan.text) or (judge and plan.judge)):
            return None
        return StepRequest(0, plan.end_sample, (2.0,) if judge and plan.judge else (), DecodeTask() if text else None)

    def complete(self, plan: Any, result: StepResult | None) -> list[Any]:
        if isinstance(plan, SegmentClosed):
            assert self.decoded >= plan.speech_end_sample
            self.finals += 1
        if result and result.request.decode:
            self.decoded = result.request.end_sample
        if result and result.request.tag_spans_s:
            self.judged.append(result.request.end_sample)
        return []


@pytest.mark.parametrize("step_s", [1.0, 2.4, 4.0, 7.0])
@pytest.mark.parametrize(("talk", "pause"), [(15, 40), (60, 50), (100, 250), (3000, 100)])
def test_senders_too_are_never_more_than_five_seconds_behind_however_slow_a_step_is(step_s, talk, pause):
    voices = ([True] * talk + [False] * pause) * max(1, 4500 // (talk + pause))
    machine = Machine([planned(voices)] * 2, step_s)
    machine.run()
    assert max(machine.lags_s) <= 5
    assert all(one.finals and one.judged for one in machine.heard)


def test_one_step_in_a_bad_minute_is_no_measure_for_what_hangs_later():
    machine = Machine([planned([True] * 10_000)], 5.0)
    machine.run(until_s=20.0)
    assert HANG_TIMES * machine.worker._turns._longest_s > 1.9 * HANG_S
    machine.step_s = 0.1
    machine.run()
    assert HANG_TIMES * machine.worker._turns._longest_s <= HANG_S
