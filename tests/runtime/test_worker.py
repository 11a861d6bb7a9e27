"""Lanes and the worker thread: order, catching up, failures, shutdown. The engine only answers, or fails."""

import threading
from typing import Any

import numpy as np
import pytest
from protocol import check_session
from random_whisper import random_model

from streamer.errors import EngineError
from streamer.events import Status
from streamer.events.plans import Hop, SegmentClosed, SegmentOpened, StateChanged, StepResult
from streamer.runtime.lane import Lane
from streamer.runtime.overload import JUDGEMENTS_BEHIND, Drain
from streamer.runtime.stream import Hearing, Listener
from streamer.runtime.worker import Worker
from streamer.settings.config import Settings

SAMPLES = np.full(8000, 0.1, np.float32)


def hop(number: int, *, text: bool = True) -> Hop:
    end = number * 8000
    return Hop(end, SAMPLES, (True,) * 25, text, end % 16_000 == 0, False, -20.0)


def utterance(number: int) -> list[Any]:
    end = number * 8000
    return [SegmentOpened(end, end - 8000), hop(number), SegmentClosed(end + 4000, end), hop(number + 1, text=False)]


class Answers:
    """An engine that finds nothing, or raises what it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.requests: list[Any] = []

    def step(self, work: Any) -> list[StepResult]:
        if self.failures:
            self.failures -= 1
            raise EngineError("out of memory in a step of 1 windows; run fewer streams")
        self.requests += [request for _, request in work]
        return [StepResult(request) for _, request in work]


def lane_with(engine: Answers) -> tuple[Worker, Lane, list[Any]]:
    worker, events = Worker(engine), []  # type: ignore[arg-type]
    return worker, worker.add(Hearing(random_model(1), Settings()), events.extend), events


def test_plans_are_carried_out_in_order_and_the_session_is_finished():
    worker, lane, events = lane_with(Answers())
    worker.start()
    listener = Listener(Settings())
    lane.put(listener.step(np.full(20_000, 0.01, np.float32)))
    lane.put(listener.finish())
    lane.finish()
    assert lane.done.wait(10)
    assert worker.stop(5)
    check_session([event.to_dict() for event in events])
    assert events[-1].audio_t == 1.25


def test_a_worker_that_is_behind_decodes_the_last_hop_of_an_utterance_only():
    worker, lane, _ = lane_with(Answers())
    plans = [SegmentOpened(960, 0), hop(1), hop(2), hop(3), SegmentClosed(30_000, 24_000), hop(4, text=False)]
    lane.put(plans)
    jobs = [worker._take(lane) for _ in plans]
    assert [job.text for job in jobs if isinstance(job.plan, Hop)] == [False, False, True, True]
    assert worker._take(lane) is None


def test_text_does_not_starve_where_a_later_hop_always_waits():
    worker, lane, _ = lane_with(Answers())
    lane.put([SegmentOpened(960, 0), *(hop(number) for number in range(1, 4))])
    decoded = []
    for number in range(4, 40):
        lane.put([hop(number)])
        job = worker._take(lane)
        if isinstance(job.plan, Hop) and job.text:
            decoded.append(job.plan.end_sample // 8000)
    assert decoded == [4, 8, 12, 16, 20, 24, 28, 32]


def test_tags_of_seconds_that_are_far_behind_are_left_out_and_counted():
    worker, lane, _ = lane_with(Answers())
    lane.put([hop(number, text=False) for number in range(1, 13)])
    judged = [job.judge for _ in range(12) if (job := worker._take(lane)) and job.plan.judge]
    assert judged == [False] * (6 - JUDGEMENTS_BEHIND) + [True] * JUDGEMENTS_BEHIND
    assert lane.backlog.skipped_judgements == 6 - JUDGEMENTS_BEHIND


def test_a_full_lane_makes_the_listener_wait():
    worker, lane, _ = lane_with(Answers())
    done = threading.Event()

    def put() -> None:
        lane.put([hop(number) for number in range(1, 40)])
        done.set()

    threading.Thread(target=put, daemon=True).start()
    assert not done.wait(0.2)
    assert lane.lag_s == 10
    worker.start()
    assert done.wait(10)
    worker.stop(5)


def test_a_window_that_fails_is_said_and_the_stream_goes_on():
    engine = Answers(failures=2)
    worker, lane, events = lane_with(engine)
    for number in (1, 3, 5):
        lane.put(utterance(number))
    lane.finish()
    worker.start()
    assert lane.done.wait(10)
    worker.stop(5)
    said = [event for event in events if isinstance(event, Status) and "s behind" not in event.detail]
    assert [event.state for event in said] == ["degraded", "degraded", "listening", "stopped"]
    assert "out of memory" in said[0].detail
    assert worker.failure is None
    assert engine.requests


def test_actions_run_on_the_worker_thread():
    worker, lane, events = lane_with(Answers())
    names = []
    lane.ask(lambda session: names.append(threading.current_thread().name) or session.status("listening"))
    lane.finish()
    worker.start()
    assert lane.done.wait(10)
    worker.stop(5)
    assert names == ["worker"]
    assert [event.state for event in events] == ["listening", "stopped"]


def test_where_the_program_must_end_the_model_is_left_out_and_that_is_said():
    engine = Answers()
    worker, lane, events = lane_with(engine)
    lane.put([SegmentOpened(960, 0), *(hop(number) for number in range(1, 10))])
    lane.drain(Drain.OVER)
    lane.drain(Drain.ENDING)  # an earlier stage changes nothing
    lane.finish()
    worker.start()
    assert lane.done.wait(10)
    worker.stop(5)
    assert engine.requests == []
    assert events[-1].detail == "the program had to end before the last 4.5 s were transcribed"


def test_where_the_program_ends_only_the_last_words_of_each_utterance_count():
    worker = Worker(Answers())  # type: ignore[arg-type]
    lane = worker.add(Hearing(random_model(1), Settings()), [].extend, patience_s=5.0)
    lane.drain(Drain.ENDING)
    for first in (1, 9):
        lane.put([SegmentOpened(8000 * first, 0), *(hop(number) for number in range(first, first + 7))])
        lane.put([SegmentClosed(8000 * first + 56_000, 8000 * first + 48_000), hop(first + 7, text=False)])
    jobs = []
    while (job := worker._take(lane)) is not None:
        jobs.append(job)
    decoded = [job.plan for job in jobs if isinstance(job.plan, Hop) and job.text and job.plan.text]
    assert [plan.end_sample // 8000 for plan in decoded] == [6, 7, 14, 15]


@pytest.mark.parametrize("number", [1, 3])
def test_many_lanes_share_one_step(number):
    engine = Answers()
    sizes = []
    step = engine.step
    engine.step = lambda work: sizes.append(len(work)) or step(work)  # type: ignore[method-assign]
    worker = Worker(engine)  # type: ignore[arg-type]
    lanes = [worker.add(Hearing(random_model(1), Settings()), [].extend) for _ in range(number)]
    for lane in lanes:
        lane.put([SegmentOpened(960, 0), hop(1), hop(2)])
        lane.finish()
    worker.start()
    assert all(lane.done.wait(10) for lane in lanes)
    worker.stop(5)
    assert set(sizes) == {number}


class Slow(Answers):
    """An engine on a scripted clock: text costs `text_s` a window, tags alone 20 ms. Hops come meanwhile."""

    def __init__(self, text_s: float) -> None:
        super().__init__()
        self.now_s, self.text_s, self.hops = 0.0, text_s, 0
        self.lane: Lane | None = None

    def step(self, work: Any) -> list[StepResult]:
        self.wait(sum(self.text_s if request.decode else 0.02 for _, request in work))
        return super().step(work)

    def wait(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self.lane and (self.hops + 1) * 0.5 <= until_s:
            self.hops += 1
            self.now_s = max(self.now_s, self.hops * 0.5)
            self.lane.put([hop(self.hops)])
        self.now_s = until_s

    def serve(self, worker: Worker, lane: Lane, seconds: float) -> None:
        """What the worker thread does in this time."""
        self.lane, until_s = lane, self.now_s + seconds
        while self.now_s < until_s:
            if lane.waiting:
                worker._serve([lane])
            else:
                self.wait(0.1)


def test_the_hop_grows_when_the_machine_cannot_keep_up_and_people_are_told_once():
    engine = Slow(0.65)
    worker, events = Worker(engine, lambda: engine.now_s), []  # type: ignore[arg-type]
    lane = worker.add(Hearing(random_model(1), Settings()), events.extend)
    lane.put([SegmentOpened(960, 0)])
    engine.serve(worker, lane, 60)
    assert lane.backlog.schedule.hop_s(worker.overload.pace.hop_s) == 1.0
    assert lane.lag_s <= 1.0
    engine.text_s = 0.05
    engine.serve(worker, lane, 60)
    told = [(event.state, event.detail) for event in events if isinstance(event, Status)]
    assert told == [
        ("degraded", "the machine cannot keep up: text comes every 1 s instead of 0.5 s; a smaller --model helps"),
        ("listening", ""),
    ]
    assert lane.backlog.skipped_judgements == 0
    judged = [request.end_sample for request in engine.requests if request.decode or request.tag_spans_s]
    assert set(range(16_000, max(judged), 16_000)) <= set(judged)


def test_a_stream_without_sound_is_not_said_to_listen():
    engine = Slow(0.01)
    worker, events = Worker(engine, lambda: engine.now_s), []  # type: ignore[arg-type]
    lane = worker.add(Hearing(random_model(1), Settings()), events.extend)
    lane.put([StateChanged(0, "no_audio", "unplugged"), hop(1)])
    worker.overload.pace.hop_s = 1.0
    for _ in range(2):
        worker._serve([lane])
    lane.put([StateChanged(8000, "listening", ""), hop(2)])
    for _ in range(2):
        worker._serve([lane])
    assert [event.state for event in events if isinstance(event, Status)] == ["no_audio", "degraded"]
