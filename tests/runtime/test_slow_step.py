"""The end of the program while a step of the model takes long: the sessions end, once, and in one thread."""

import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from program import LONG_S, ROOT, environment, events_of
from protocol import check_session
from random_whisper import random_model

from streamer.audio.block import AudioBlock
from streamer.events.plans import Hop, SegmentClosed, SegmentOpened, StateChanged, StepResult
from streamer.runtime.lane import Lane
from streamer.runtime.overload import Drain
from streamer.runtime.pipeline import Pipeline
from streamer.runtime.stream import Hearing
from streamer.runtime.worker import Worker
from streamer.settings.config import Settings

SAMPLES = np.full(8000, 0.1, np.float32)


def hop(number: int) -> Hop:
    return Hop(number * 8000, SAMPLES, (True,) * 25, True, number % 2 == 0, False, -20.0)


class Stuck:
    """An engine whose steps last until they are let go."""

    def __init__(self) -> None:
        self.began, self.go = threading.Event(), threading.Event()

    def step(self, work: Any) -> list[StepResult]:
        self.began.set()
        assert self.go.wait(LONG_S)
        return [StepResult(request) for _, request in work]


def stuck_worker(unread: int = 0) -> tuple[Stuck, Worker, Lane, list[Any]]:
    """A worker in a step for the second hop of an utterance, and a second of it behind that."""
    engine, events = Stuck(), []
    worker = Worker(engine)  # type: ignore[arg-type]
    rule = {"id": "lost", "lost": True, "severity": "critical"}
    settings = Settings.model_validate({"alerts": {"defaults": False, "rules": [rule]}})
    hearing = Hearing(random_model(1), settings)
    lane = worker.add(hearing, events.extend, unread_samples=lambda: unread)
    lane.put([StateChanged(0, "no_audio", "unplugged"), SegmentOpened(960, 0), hop(1)])
    worker.start()
    assert engine.began.wait(LONG_S)
    lane.put([hop(2), hop(3), SegmentClosed(24_500, 24_000)])
    lane.finish()
    return engine, worker, lane, events


def test_sessions_end_without_the_step_and_what_it_finds_is_not_used():
    engine, worker, lane, events = stuck_worker(unread=16_000)
    lane.drain(Drain.OVER)
    assert not worker.stop(0.0)
    assert worker.take_over(0.0)
    assert lane.done.is_set()
    said = [event.to_dict() for event in events]
    check_session(said)
    assert said[-1]["detail"] == "the program had to end before the last 2.5 s were transcribed"
    assert [event["state"] for event in said if event["type"] == "alert"] == ["raised", "cleared"]
    engine.go.set()
    assert worker.stop(LONG_S)
    assert [event.to_dict() for event in events] == said


def test_a_worker_that_waits_for_a_reader_keeps_its_sessions():
    """Two threads never have one session: where the worker is not in a step, nobody takes it."""
    blocked, go, events = threading.Event(), threading.Event(), []
    engine = Stuck()
    engine.go.set()
    worker = Worker(engine)  # type: ignore[arg-type]

    def emit(some: Any) -> None:
        events.extend(some)
        blocked.set()
        assert go.wait(LONG_S)

    lane = worker.add(Hearing(random_model(1), Settings()), emit)
    lane.put([StateChanged(0, "listening", "")])
    worker.start()
    assert blocked.wait(LONG_S)
    assert not worker.stop(0.0)
    assert not worker.take_over(0.0)
    go.set()
    assert worker.stop(LONG_S)
    assert [event.state for event in events] == ["listening", "stopped"]
    assert worker.take_over(0.0)  # nothing is left to take


class Still:
    """A source that has handed on nothing of what it received."""

    name, live = "still", True

    def blocks(self) -> Any:
        yield AudioBlock(SAMPLES)

    def close(self) -> None:
        pass


def test_what_ring_and_sender_still_hold_counts_as_left_out():
    pipeline = Pipeline(
        Still(), Settings(), Worker(Stuck()), Hearing(random_model(1), Settings()), [].extend, lambda: 4000
    )  # type: ignore[arg-type]
    pipeline._capture()
    pipeline.lane.drain(Drain.OVER)
    assert pipeline.lane.left_out_samples == 12_000


SLOW = """
import os, signal, sys, torch
from streamer.model.engine import Engine
steps, big, real = [0], torch.randn(1500, 1500), Engine.step
def slow(self, work):
    steps[0] += 1
    if steps[0] > 2:
        for number in range({signals}):
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(0.5)
        while True:
            big @ big
    return real(self, work)
import threading
Engine.step = slow
from streamer.commands.cli import program
sys.exit(program(["run", "--input", "demo", "--model", "nano", "--no-server", "--quiet", "--jsonl", sys.argv[1]]))
"""


@pytest.mark.parametrize("signals", [1, 2])
def test_ctrl_c_ends_the_program_while_the_model_works(signals, tmp_path):
    path = tmp_path / "events.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", SLOW.format(signals=signals), str(path)],
        capture_output=True,
        timeout=LONG_S,
        cwd=ROOT,
        env=environment(),
        check=False,
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    events = events_of(path.read_text())
    if signals == 1:  # the second one ends at once
        check_session(events)
        assert events[-1]["state"] == "stopped"
