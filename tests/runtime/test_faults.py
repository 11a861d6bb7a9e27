"""Faults, each injected where it would happen: one session, one window, one device fails, and the rest goes on.

The sessions, the listeners and, unless a test is about what they are asked, the engine and the model are the real ones.
"""

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from demo_speech import demo_speech
from program import LONG_S
from protocol import check_session
from random_whisper import random_model

import streamer
from streamer.audio.block import AudioBlock
from streamer.errors import DeviceFailed, EngineError
from streamer.events.plans import Hop, SegmentClosed, SegmentOpened, StateChanged, StepResult
from streamer.model.engine import Engine
from streamer.model.whisper import Model
from streamer.runtime import worker as workers
from streamer.runtime.pipeline import Pipeline
from streamer.runtime.stream import Hearing, Listener
from streamer.runtime.worker import Worker
from streamer.settings.config import Settings

SAMPLES = np.full(8000, 0.1, np.float32)
SECONDS = 9


@pytest.fixture(scope="module")
def nano() -> Model:
    return streamer.load_model("nano", dtype="float32")


@pytest.fixture(scope="module")
def spoken() -> np.ndarray:
    """Nine seconds of the demo with words."""
    return demo_speech(SECONDS)


def plans_of(audio: np.ndarray) -> list[Any]:
    listener = Listener(Settings())
    return [*listener.step(audio), *listener.finish()]


def hop(number: int) -> Hop:
    return Hop(number * 8000, SAMPLES, (True,) * 25, True, number % 2 == 0, False, -20.0)


def utterance(number: int) -> list[Any]:
    end = number * 8000
    return [SegmentOpened(end, end - 8000), hop(number), SegmentClosed(end + 4000, end)]


def states(events: Sequence[Any], name: str = "s1") -> list[tuple[str, str]]:
    """What was said of the state, but for that the worker is behind: these tests give it all sound at once."""
    said = [(one.state, one.detail) for one in events if one.type == "status" and one.session == name]
    said = [one for one in said if "behind: captions come late" not in one[1]]
    return [one for number, one in enumerate(said) if one != ("listening", "") or (number and said[number - 1] != one)]


def finals(events: Sequence[Any], name: str = "s1") -> list[str]:
    return [one.text for one in events if one.type == "transcript" and one.final and one.session == name]


def of(events: Sequence[Any], name: str = "s1") -> list[dict[str, Any]]:
    return [event.to_dict() for event in events if event.session == name]


class Rig:
    """A worker with a lane for each name, on a clock that the test moves."""

    def __init__(self, model: Model, engine: Any, *names: str, spare: Callable[[], Any] | None = None) -> None:
        self.now_s, self.events = 0.0, list[Any]()
        self.worker = Worker(engine, lambda: self.now_s, spare)
        self.lanes = {
            name: self.worker.add(Hearing(model, Settings(), name), self.events.extend, 1e9)
            for name in names or ("s1",)
        }

    def hear(self, plans: Sequence[Any]) -> None:
        for lane in self.lanes.values():
            lane.put(plans)
            lane.finish()

    def serve(self) -> None:
        """What the worker's thread does, until nothing is left. A round takes less than a hop sounds, but for rests."""
        while lanes := [lane for lane in self.worker.lanes() if lane.waiting]:
            self.worker._serve(lanes)
            self.now_s += 1.0 if any(lane.rests for lane in lanes) else 0.1

    def end(self) -> list[Any]:
        self.worker.start()
        assert all(lane.done.wait(LONG_S) for lane in self.lanes.values())
        assert self.worker.stop(LONG_S)
        return self.events


class Answers:
    """An engine that finds nothing, and fails as it is told to: a list of what its next steps raise (None: nothing)."""

    def __init__(self, *raises: BaseException | None) -> None:
        self.raises = list(raises)
        self.asked = 0

    def step(self, work: Any) -> list[StepResult]:
        self.asked += 1
        if self.raises and (error := self.raises.pop(0)) is not None:
            raise error
        return [StepResult(request) for _, request in work]


def without_fault(nano: Model, spoken: np.ndarray, *names: str) -> list[Any]:
    rig = Rig(nano, Engine(nano), *names)
    rig.hear(plans_of(spoken))
    return rig.end()


@pytest.mark.parametrize("error", [KeyError("attended"), RuntimeError("shape"), MemoryError()])
def test_a_session_that_raises_is_closed_and_started_again_and_the_other_says_what_it_says_alone(nano, spoken, error):
    rig = Rig(nano, Engine(nano), "bad", "good")
    policy, asked = rig.lanes["bad"].hearing.session.text, []
    real = policy.step

    def failing(*given: Any) -> Any:
        asked.append(given)
        if len(asked) == 5:
            raise error
        return real(*given)

    policy.step = failing  # type: ignore[method-assign]
    rig.hear(plans_of(spoken))
    rig.serve()
    assert finals(rig.events, "good") == finals(without_fault(nano, spoken, "good"), "good")
    check_session(of(rig.events, "bad"), degraded=True)
    said = states(rig.events, "bad")
    assert [state for state, _ in said] == ["degraded", "listening", "stopped"]
    assert said[0][1].startswith(f"this session failed ({type(error).__name__}")
    assert finals(rig.events, "bad")  # words that were committed before are final, and it hears on
    assert rig.worker.failure is None


def test_a_session_that_fails_all_the_time_is_left_alone_for_longer_and_longer():
    rig = Rig(random_model(1), Answers())
    lane, rests = rig.lanes["s1"], []

    def broken(*given: Any) -> Any:
        raise ValueError("broken for good")

    for number in range(1, 130):
        lane.hearing.session.text.step = lane.hearing.session.complete = broken  # type: ignore[method-assign]
        before = len(states(rig.events))
        lane.put([hop(number)])
        while lane.waiting:
            rig.worker._serve([lane])
        rests += [rig.now_s] if any(state == "degraded" for state, _ in states(rig.events)[before:]) else []
        rig.now_s += 0.5
    assert list(np.diff(rests)[:4]) == sorted(np.diff(rests)[:4])
    assert np.diff(rests)[-1] >= 16
    lane.finish()
    rig.serve()
    check_session(of(rig.events), degraded=True)


def test_three_failures_of_the_model_in_a_row_close_that_session_alone(nano, spoken):
    engine = Engine(nano)
    rig = Rig(nano, engine, "bad", "good")
    real, failed = engine.step, []
    mel = rig.lanes["bad"].hearing.mel

    def step(work: Any) -> Any:
        if any(own is mel for own, _ in work):
            failed.append(len(work))
            raise RuntimeError("a shape that nobody expected")
        return real(work)

    engine.step = step  # type: ignore[method-assign]
    rig.hear(plans_of(spoken))
    rig.serve()
    assert finals(rig.events, "good") == finals(without_fault(nano, spoken, "good"), "good")
    said = states(rig.events, "bad")
    assert failed.count(1) == 3  # alone, after the batch that it was in
    assert [state for state, _ in said] == ["degraded", "degraded", "listening", "stopped"]
    assert "left out: a shape that nobody expected" in said[0][1]
    assert "this session failed (RuntimeError" in said[1][1]
    check_session(of(rig.events, "bad"), degraded=True)


def test_a_window_that_fails_once_is_left_out_and_the_end_of_its_utterance_is_decoded():
    engine = Answers(RuntimeError("poison"))
    rig = Rig(random_model(1), engine)
    rig.hear(utterance(1))
    rig.serve()
    assert engine.asked == 2  # again, before the segment closes
    assert states(rig.events)[0] == ("degraded", "the model failed on a window, which is left out: poison")


def test_what_the_model_fails_on_to_the_end_is_said_to_be_given_up():
    engine = Answers(RuntimeError("poison"), RuntimeError("poison"))
    rig = Rig(random_model(1), engine)
    rig.hear([*utterance(1), *utterance(4)])
    rig.serve()
    said = states(rig.events)
    assert said[1] == ("degraded", "the model failed on the end of an utterance, 0.5 s are given up: poison")
    assert [state for state, _ in said] == ["degraded", "degraded", "listening", "stopped"]


@pytest.mark.parametrize("fails", [1, 5, 9, 14])
def test_a_sender_leaves_while_its_sound_waits_and_a_step_fails_every_segment_is_final(nano, spoken, fails):
    engine = Engine(nano)
    rig, real, steps = Rig(nano, engine), engine.step, []

    def step(work: Any) -> Any:
        steps.append(1)
        if len(steps) == fails:
            raise RuntimeError("once")
        return real(work)

    engine.step = step  # type: ignore[method-assign]
    rig.hear(plans_of(spoken))  # and the lane is finished: nothing more comes
    rig.serve()
    said = of(rig.events)
    check_session(said, degraded=True)  # every segment that had text is final
    assert len(steps) > fails
    assert len("".join(finals(rig.events))) >= 0.8 * len("".join(finals(without_fault(nano, spoken))))


class Hangs:
    """A real engine of which some steps never return, until the test lets them go."""

    def __init__(self, engine: Any, steps: int) -> None:
        self.engine, self.left = engine, steps
        self.began, self.go = threading.Event(), threading.Event()

    def step(self, work: Any) -> Any:
        if self.left == 0:
            self.began.set()
            assert self.go.wait(LONG_S)
        self.left -= 1
        return self.engine.step(work)


def test_a_step_that_hangs_is_said_and_another_thread_goes_on_with_the_session(nano, spoken):
    hung = Hangs(Engine(nano), 4)
    rig = Rig(nano, hung, spare=lambda: Engine(nano))
    rig.hear(plans_of(spoken))
    rig.worker.start()
    assert hung.began.wait(LONG_S)
    before = len(rig.events)
    rig.now_s += 1.0
    rig.worker.watch()
    assert states(rig.events[before:]) == []
    rig.now_s += 1.9
    rig.worker.watch()
    rig.worker.watch()
    told = "the model has not answered for 3 s: captions wait, tags are left out"
    assert states(rig.events[before:]) == [("degraded", told)]
    rig.now_s += 8.0
    rig.worker.watch()
    assert rig.lanes["s1"].done.wait(LONG_S)
    assert rig.worker.stop(LONG_S)
    said = of(rig.events)
    check_session(said, degraded=True)
    assert [state for state, _ in states(rig.events)][-2:] == ["listening", "stopped"]
    committed = [event.text for event in rig.events[:before] if event.type == "transcript"][-1]
    assert any(text.startswith(committed) for text in finals(rig.events))
    hung.go.set()
    assert [thread.name for thread in threading.enumerate()].count("worker") <= 1
    assert of(rig.events) == said  # what the old one found is not used


def test_a_step_that_takes_long_and_comes_back_changes_nothing_but_that_it_was_said(nano, spoken):
    slow = Hangs(Engine(nano), 4)
    rig = Rig(nano, slow)
    rig.hear(plans_of(spoken))
    rig.worker.start()
    assert slow.began.wait(LONG_S)
    rig.now_s += 3.0
    rig.worker.watch()
    slow.go.set()
    assert rig.lanes["s1"].done.wait(LONG_S)
    assert finals(rig.events) == finals(without_fault(nano, spoken))
    assert [state for state, _ in states(rig.events)] == ["degraded", "listening", "stopped"]


def test_a_thread_that_ends_is_replaced(nano, spoken):
    engine = Answers(None, SystemExit("somebody called exit"))
    rig = Rig(nano, engine, spare=lambda: Engine(nano))
    rig.hear(plans_of(spoken))
    rig.worker.start()
    rig.worker._thread.join(LONG_S)
    assert not rig.lanes["s1"].done.is_set()
    rig.worker.watch()
    assert rig.lanes["s1"].done.wait(LONG_S)
    assert rig.worker.stop(LONG_S)
    check_session(of(rig.events), degraded=True)
    assert states(rig.events)[0] == ("degraded", "the thread that asks the model ended")
    assert finals(rig.events)


def test_where_the_model_never_comes_back_the_program_is_to_end_and_nothing_that_is_open_stays_so():
    hung = [Hangs(Answers(), 0) for _ in range(workers.RESTARTS_MAX + 1)]
    rig = Rig(random_model(1), hung[0], spare=iter(hung[1:]).__next__)
    lane = rig.lanes["s1"]
    for number in (1, 4, 7, 10):
        lane.put(utterance(number))
    rig.worker.start()
    for one in hung:
        assert rig.worker.failure is None
        assert one.began.wait(LONG_S)
        rig.now_s += workers.HANG_S
        rig.worker.watch()
    assert isinstance(rig.worker.failure, EngineError)
    assert "must be started again" in str(rig.worker.failure)
    assert not rig.worker.stop(0.0)
    assert rig.worker.take_over(0.0)
    assert lane.done.is_set()
    check_session(of(rig.events), degraded=True)
    for one in hung:
        one.go.set()


def cuda_error(*given: Any, **named: Any) -> Any:
    raise RuntimeError("CUDA error: device-side assert triggered\nCompile with `TORCH_USE_CUDA_DSA`")


def no_memory(*given: Any, **named: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


@pytest.mark.parametrize("fault", [cuda_error, no_memory])
@pytest.mark.parametrize("part", ["encode_windows", "decode"])
def test_a_device_that_fails_costs_no_final(nano, spoken, fault, part):
    """Emulated on the CPU: the engine's own calls of the device raise what torch raises there, from the fourth on."""
    broken = Engine(streamer.load_model("nano", dtype="float32"))
    owner = broken.model if part == "encode_windows" else broken.search
    real, calls = getattr(owner, part), []

    def call(*given: Any, **named: Any) -> Any:
        calls.append(1)
        return (real if len(calls) < 4 else fault)(*given, **named)

    setattr(owner, part, call)
    rig = Rig(nano, broken, spare=lambda: Engine(nano))
    rig.hear(plans_of(spoken))
    assert finals(rig.end()) == finals(without_fault(nano, spoken))
    assert len(calls) >= 4
    assert [state for state, _ in states(rig.events)] == ["stopped"]


def test_the_engine_names_a_device_that_fails(nano, monkeypatch):
    engine = Engine(nano)
    monkeypatch.setattr(engine.search, "decode", cuda_error)
    lane_work = Hearing(nano, Settings())
    request = None
    for plan in [SegmentOpened(960, 0), hop(1)]:
        request = lane_work.begin(plan)
        lane_work.session.complete(plan, None) if request is None else None
    with pytest.raises(DeviceFailed, match="device-side assert"):
        engine.step([(lane_work.mel, request)])


@pytest.mark.parametrize("fault", [DeviceFailed, SystemExit])
def test_the_memory_of_an_engine_that_failed_is_free_before_there_is_another(nano, spoken, monkeypatch, fault):
    """On a GPU there may be no room for both."""
    alive, whole, failed = [], Engine.step, threading.Event()

    def step(engine: Engine, work: Any) -> Any:
        if not failed.is_set():
            failed.set()
            try:
                whole(engine, "nonsense")  # what the device says, deep inside
            except Exception as error:
                raise fault("the device failed") from error
        return whole(engine, work)

    def spare() -> Engine:
        alive.append(first() is not None)
        return Engine(nano)

    monkeypatch.setattr(Engine, "step", step)
    engine, events = Engine(nano), list[Any]()
    first = weakref.ref(engine)
    worker = Worker(engine, spare=spare)
    del engine
    lane = worker.add(Hearing(nano, Settings()), events.extend, 1e9)
    worker.start()
    lane.put(Listener(Settings()).step(spoken))
    while not alive:
        worker.watch()
        time.sleep(0.01)
    lane.finish()
    assert lane.done.wait(60)
    worker.stop(10)
    assert alive == [False]


class Noise:
    """Ten seconds of noise in blocks of 50 ms, as fast as they go."""

    name, live = "noise", False

    def blocks(self) -> Any:
        rng = np.random.default_rng(0)
        for _ in range(200):
            yield AudioBlock(rng.normal(0, 0.1, 800).astype(np.float32))

    def close(self) -> None:
        pass


def test_a_listener_that_raises_is_started_again_and_what_it_missed_is_a_gap(monkeypatch):
    events, worker = list[Any](), Worker(Answers())  # type: ignore[arg-type]
    pipeline = Pipeline(Noise(), Settings(), worker, Hearing(random_model(1), Settings()), events.extend)  # type: ignore[arg-type]
    heard, real = [], pipeline._listener._detector.step

    def failing(frame: Any) -> Any:
        heard.append(1)
        if len(heard) == 110:
            raise IndexError("a frame that nobody expected")
        return real(frame)

    pipeline._listener._detector.step = failing  # type: ignore[method-assign]
    worker.start()
    pipeline.start()
    assert pipeline.lane.done.wait(LONG_S)
    worker.stop(LONG_S)
    said = of(events)
    check_session(said)
    (gap,) = [event for event in said if event["type"] == "gap"]
    assert gap["start"] == 2.0  # the last whole hop before the 110th frame
    assert "IndexError: a frame that nobody expected" in gap["reason"]
    assert said[-1]["audio_t"] == 10.0  # the clock is right again
    assert pipeline.failure is None
    assert pipeline.listener_restarts == 1


def test_a_state_that_is_well_again_does_not_hide_one_that_is_not():
    session = Hearing(random_model(1), Settings()).session

    def told(*said: Any, **of: Any) -> list[tuple[str, str]]:
        return [(one.state, one.detail) for one in session.status(*said, **of) if one.type == "status"]

    assert told("listening") == [("listening", "")]
    assert told("degraded", "the disk is full", subject="output") == [("degraded", "the disk is full")]
    assert told("listening", "a constant offset of +0.1 is taken out", subject="signal") == [
        ("degraded", "a constant offset of +0.1 is taken out")
    ]
    assert told("degraded", "4 s behind", subject="pace") == [("degraded", "4 s behind")]
    assert told("no_audio", "unplugged") == [("no_audio", "unplugged")]
    assert told("listening", subject="pace") == []
    assert told("listening") == [("degraded", "the disk is full")]
    assert told("listening", subject="output") == [("listening", "")]


def test_other_states_do_not_clear_the_alert_of_a_lost_microphone():
    rule = {"id": "lost", "lost": True, "severity": "critical"}
    settings = Settings.model_validate({"alerts": {"defaults": False, "rules": [rule]}})
    session = Hearing(random_model(1), settings).session
    raised = session.complete(StateChanged(0, "no_audio", "unplugged"), None)
    assert [event.type for event in raised] == ["status", "alert"]
    assert session.status("degraded", "4 s behind", subject="pace") == []
    assert [event.state for event in session.status("listening")] == ["degraded", "cleared"]
