"""Sounds learned while the program runs: the real worker and model, a source that is fed by hand."""

import threading

import numpy as np
import pytest
from chimes import RATE, chime, noise

from streamer.audio.block import AudioBlock
from streamer.events import Status
from streamer.model.choice import load_model
from streamer.model.engine import Engine
from streamer.model.own_sounds import OwnSoundFiles
from streamer.runtime.own_sounds import OwnSounds
from streamer.runtime.stream import Hearing
from streamer.runtime.worker import Worker
from streamer.server.messages import Learn, MessageError
from streamer.settings.config import Settings
from streamer.settings.own_sounds import OwnSoundSettings
from streamer.training import own_sounds

PATIENCE_S = 120


class Fed:
    """A source whose blocks stand in a list."""

    name, live, sample_rate = "fed", True, RATE

    def __init__(self):
        self.waiting = []

    def blocks(self):
        while self.waiting:
            yield AudioBlock(self.waiting.pop(0))

    def close(self):
        pass


class Running:
    """A worker with one lane, and the sounds of one's own beside it."""

    def __init__(self, folder, teacher=own_sounds):
        self.engine = Engine(load_model("nano", head=None))
        self.worker, self.said = Worker(self.engine), []
        self.told = threading.Condition()
        self.lane = self.worker.add(Hearing(self.engine.model, Settings()), self.emit)
        self.own = OwnSounds(OwnSoundSettings(folder=str(folder)), teacher, lambda: {"s1": self.lane})
        self.own.load(self.engine)
        self.source = Fed()
        self.tapped = self.own.tap("s1", self.source).blocks()
        self.worker.start()

    def emit(self, events):
        with self.told:
            self.said += [event.detail for event in events if isinstance(event, Status)]
            self.told.notify_all()

    def rings(self, seed):
        self.source.waiting += [noise(seed, 2), chime(seed), noise(seed, 0.5)]
        for _ in range(3):
            next(self.tapped)

    def wait_for(self, text):
        with self.told:
            assert self.told.wait_for(lambda: any(text in said for said in self.said), PATIENCE_S), self.said

    def stop(self):
        self.own.stop()
        self.lane.finish()
        assert self.lane.done.wait(10)
        assert self.worker.stop(10)


@pytest.fixture
def running(tmp_path):
    found = Running(tmp_path)
    yield found
    found.stop()


def test_three_moments_make_a_sound_that_is_listened_for(running, tmp_path):
    for number in range(3):
        running.rings(number)
        assert running.own.learn(Learn("my bell", None, None, 3.0))["clips"] == number + 1
        running.wait_for("is learned from 3" if number == 2 else f"my bell: {number + 1} of 3")
    assert [sound.name for sound in running.engine.own.sounds] == ["my bell"]
    assert OwnSoundFiles(tmp_path).find("my bell").learned
    assert not list(tmp_path.rglob("*.wav"))  # no audio is kept
    again = Running(tmp_path)  # what was learned outlasts the program
    assert [sound.name for sound in again.engine.own.sounds] == ["my bell"]
    again.stop()


def test_silence_is_not_learned_and_that_is_said(running, tmp_path):
    running.source.waiting.append(np.zeros(5 * RATE, np.float32))
    next(running.tapped)
    running.own.learn(Learn("my bell", "s1", 1.0, 3.0))
    running.wait_for("my bell is not learned: the sound just now: is silent")
    assert OwnSoundFiles(tmp_path).read() == ()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (Learn("x", "other", None, 3.0), "session: say in which one it sounded; live are: s1"),
        (Learn("x", "s1", 500.0, 503.0), "start: that sound is not kept any more"),
    ],
)
def test_what_cannot_be_had_is_refused(running, asked, says):
    running.rings(1)
    with pytest.raises(MessageError, match=says):
        running.own.learn(asked)


def test_without_a_teacher_nothing_is_learned(tmp_path):
    own = OwnSounds(OwnSoundSettings(folder=str(tmp_path)), None, dict)
    assert own.learn is None
    source = Fed()
    assert own.tap("s1", source) is source
