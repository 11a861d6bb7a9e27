"""While a step does not end: what waits behind it goes on without the model, and no word is lost for it.

Sessions, listeners and the engine are the real ones; the clock is the test's, and sound comes in step with it.
"""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program import LONG_S
from protocol import check_session
from random_whisper import random_model

import streamer
from streamer.audio.files import demo_path, read_audio
from streamer.model.engine import Engine
from streamer.model.whisper import Model
from streamer.plans import Hop, SegmentClosed, SegmentOpened, StepResult
from streamer.runtime.overload import PASS_OVER_S, Backlog
from streamer.runtime.stream import Hearing, Listener, Stream
from streamer.runtime.worker import HANG_S, TELL_S, Worker
from streamer.settings.config import Settings, WindowSettings

SAMPLES = np.full(8000, 0.1, np.float32)
BEAT_S = 0.1


@pytest.fixture(scope="module")
def nano() -> Model:
    return streamer.load_model("nano", dtype="float32")


@pytest.fixture(scope="module")
def spoken() -> np.ndarray:
    """Ten seconds of the demo with words."""
    words = json.loads(Path(demo_path()).with_suffix(".json").read_text())["words"]
    start = round((words[0]["start"] - 0.5) * 16_000)
    return read_audio(demo_path())[start : start + 160_000]


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
        self.worker = Worker(self.hung, lambda: self.now_s, lambda: self.spare)  # type: ignore[arg-type, return-value]
        self.lane = self.worker.add(Hearing(model, Settings(), "s1"), self._take)
        self._idle = threading.Condition()
        self._listener, self._sound = Listener(Settings()), sound
        self.worker.start()

    def _take(self, events: Any) -> None:
        self.events.extend(events)

    def hear(self, until_s: float) -> None:
        """Everything up to there. Where no step hangs, the worker is through with it before more comes."""
        while self.now_s < until_s - 1e-6:
            at = round(self.now_s * 16_000)
            self.now_s = round(self.now_s + BEAT_S, 1)
            self.lane.put(self._listener.step(self._sound[at : round(self.now_s * 16_000)]))
            while not self.hung.began.is_set() or self.hung.go.is_set():
                if not self.lane.waiting and self.worker._phase.name == "SERVING" and self.worker._round_s is None:
                    break
                threading.Event().wait(0.001)
                if self.hung.began.is_set() and not self.hung.go.is_set():
                    break
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


@pytest.mark.parametrize("comes_back", [True, False])
def test_the_lag_levels_off_while_a_step_does_not_end_and_every_word_comes_behind_it(nano, spoken, comes_back):
    room = Room(nano, Engine(nano), spoken, hangs_at_s=1.5)
    room.hear(1.4)
    room.hear(6.0 if comes_back else 10.0)
    assert room.hung.began.is_set()
    hung_for_s = room.now_s - 1.5
    assert hung_for_s > TELL_S + 1.5
    assert max(room.lags_s) <= max(TELL_S, PASS_OVER_S) + 0.6
    if comes_back:
        room.hung.go.set()
    else:
        room.now_s += HANG_S
        room.worker.watch()
    room.hear(10.0)
    said = room.end()
    room.hung.go.set()
    check_session(said, degraded=True)
    assert words_of(said) == alone(nano, spoken)
    told = [event["detail"] for event in said if event.get("state") == "degraded"]
    assert told[0] == "the model has not answered for 2 s: captions wait, tags are left out"
    first = room.hung.asked if comes_back else room.spare.asked
    assert any(end >= (room.now_s - 5) * 16_000 for end in first[-3:])
