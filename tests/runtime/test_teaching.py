"""Teaching sounds from the pages, with the bundled model and its real worker; learning itself where it matters."""

import functools
import queue
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from chimes import RATE, noise

from streamer.alerts.deliveries import Deliveries
from streamer.alerts.own_clips import OwnClips
from streamer.alerts.recorder import ClipRing
from streamer.audio.block import AudioBlock
from streamer.errors import InputError
from streamer.model.choice import load_model
from streamer.model.engine import Engine
from streamer.model.own_sounds import OwnSound, OwnSoundFiles
from streamer.model.whisper import Model
from streamer.runtime.inputs import IngestSource, Input
from streamer.runtime.pipeline import Pipeline
from streamer.runtime.session_opener import SessionOpener
from streamer.runtime.stream import Hearing
from streamer.runtime.teaching import WAITING, Lessons, Teaching, cut
from streamer.runtime.worker import Worker
from streamer.server.ingest import PcmQueue
from streamer.server.messages import IngestStart, MessageError, Teach
from streamer.settings.config import validate
from streamer.training.moments import moment_of
from streamer.training.own_sounds import encoder_of, learn


@functools.cache
def model() -> Model:
    return load_model("nano", head=None)


def ring_of(*pieces: np.ndarray) -> ClipRing:
    ring = ClipRing()
    for samples in pieces:
        ring.push(AudioBlock(samples))
    return ring


class School:
    """Teaching on a worker that runs, and what a page is told."""

    def __init__(self, folder, learning=learn) -> None:
        self.folder = folder
        settings = validate({"own_sounds": {"folder": str(folder), "from_pages": True}})
        self.teaching = Teaching(settings, Lessons(moment_of, encoder_of, learning))
        self.engine = Engine(model())
        self.worker = Worker(self.engine)
        self.told: queue.Queue = queue.Queue()

    def open(self) -> "School":
        self.worker.start()
        self.teaching.begin(model(), self.worker)
        return self

    def comes_later(self, name) -> Pipeline:
        opener = SessionOpener(
            pipelines={},
            worker=self.worker,
            model=model,
            told={},
            emit=lambda events: None,
            deliveries=Deliveries(()),
            teaching=self.teaching,
            server=None,
            info=lambda name: pytest.fail("there is no server to be told"),
            greet=lambda lane: None,
        )
        return opener.open(Input(name, IngestSource(PcmQueue(IngestStart(RATE), name), 2.0), validate({})))

    def press(self, name="bell", samples=None, **more):
        ring = ring_of(noise(1, 5) if samples is None else samples)
        self.teaching.ask(Teach(name, **more), ring, self.told.put)
        return self.told.get(timeout=60)


@pytest.fixture
def school(tmp_path) -> Iterator:
    opened: list[School] = []

    def start(learning=learn) -> School:
        opened.append(School(tmp_path / "sounds", learning))
        return opened[-1].open()

    yield start
    for one in opened:
        one.teaching.end()
        assert one.worker.stop(30)


def learned(name, severity, clips, encode, background, recall=0.9) -> OwnSound:
    """A layer that hears it always, without the half minute that fitting takes."""
    width = background.others.shape[-1]
    weight = np.zeros(width, np.float32)
    return OwnSound(
        name, severity, background.encoder, background.model, len(clips), weight, 1.0, 0.5, 1, 0, 1.0, recall
    )


def test_a_clip_is_of_the_moment_that_was_meant():
    ring = ring_of(*(np.full(RATE, second / 100, np.float32) for second in range(60)))
    np.testing.assert_allclose(cut(ring, None, 0.0)[::RATE], np.arange(54, 60) / 100, rtol=1e-6)
    np.testing.assert_allclose(cut(ring, None, 10.0)[::RATE], np.arange(44, 50) / 100, rtol=1e-6)
    np.testing.assert_allclose(cut(ring, 30.0, 0.0)[::RATE], np.arange(29, 35) / 100, rtol=1e-6)
    assert len(cut(ring, 58.0, 0.0)) == 3 * RATE  # it goes on, and is kept as far as it is known
    for start, ago in ((5.0, 0.0), (None, 50.0), (1e9, 0.0), (None, 1e9)):
        with pytest.raises(MessageError, match="only the last 45 s"):
            cut(ring, start, ago)
    with pytest.raises(MessageError, match="not in memory"):
        cut(None, None, 0.0)


def test_before_the_model_is_there_and_after_the_end_nobody_teaches(tmp_path):
    one = School(tmp_path)
    with pytest.raises(MessageError, match="still being loaded"):
        one.press()
    assert Teaching(validate({})).ring() is None
    assert not tmp_path.joinpath("clips").exists()


def test_silence_is_not_kept(school):
    one = school()
    assert one.press(samples=np.zeros(6 * RATE, np.float32)).startswith("teach: this clip: is silent")
    assert OwnClips(one.folder).names() == {}
    assert one.press(undo=True) == "teach: no clip of 'bell' is kept"


def test_the_clip_that_is_unlike_the_others_is_named_and_taken_back(school):
    def choose(name, severity, clips, encode, background):
        for label, samples in clips:
            if np.abs(samples).max() > 0.5:
                raise InputError(f"{label}: is unlike the other clips: leave it out")
        return learned(name, severity, clips, encode, background)

    one = school(choose)
    for level in (0.003, 0.3, 0.003, 0.003):
        told = one.press(samples=noise(1, 5, level))
        if told.learning:
            trouble = one.told.get(timeout=60)
            assert (trouble.learned, trouble.unlike) == (False, 2)
    assert (trouble.clips, trouble.trouble) == (4, "clip 2 of 4: is unlike the other clips: leave it out")
    told = one.press(undo=True, clip=trouble.unlike)
    assert (told.clips, told.learning) == (3, True)
    assert one.told.get(timeout=60).learned
    assert OwnSoundFiles(one.folder).find("Bell").clips == 3


def test_what_was_learned_is_listened_for_in_every_session_at_once(school):
    one = school(learned)
    lanes = [one.worker.add(Hearing(model(), validate({}), name), lambda events: None) for name in ("a", "b")]
    for _ in range(3):
        one.press("My bell")
    assert one.told.get(timeout=60).learned
    lanes.append(one.comes_later("c").lane)
    one.worker.lend(lambda: None)  # the lanes were served before it
    for lane in lanes:
        session = lane.hearing.session
        assert session._judges
        assert [rule.own for rule in session._learned] == ["My bell"]
        lane.fall(RuntimeError("a fault"))
        lane._rests_until_s = 0.0
        assert lane.resume()
        assert lane.hearing.session is not session
        assert [watch.rule.id for watch in lane.hearing.session.alerts._watches].count("my_bell") == 1
    assert one.teaching.own is one.engine.own


def test_better_knowledge_stays_until_there_are_as_many_clips(school):
    one = school(learned)
    for _ in range(3):
        one.press()
    one.told.get(timeout=60)
    known = OwnSoundFiles(one.folder).find("bell")
    OwnSoundFiles(one.folder).write(learned("bell", "warning", [0] * 5, None, one.teaching._pupil.background))
    told = one.press()
    assert (told.clips, told.needed, told.learned, told.learning) == (4, 5, True, False)
    assert one.press().learning
    assert one.told.get(timeout=60).learned
    found = OwnSoundFiles(one.folder).find("bell")
    assert (known.severity, found.severity, found.clips) == ("info", "warning", 5)


def test_a_lesson_that_fails_is_told_and_the_next_one_works(school):
    faults = [RuntimeError("no"), InputError("the clips are not alike")]

    def falter(*given):
        if faults:
            raise faults.pop(0)
        return learned(*given)

    one = school(falter)
    for _ in range(2):
        one.press()
    said = []
    for _ in range(3):
        one.press()
        said.append(one.told.get(timeout=60))
    assert [(told.trouble, told.unlike, told.learned) for told in said] == [
        ("RuntimeError: no", None, False),
        ("the clips are not alike", None, False),
        ("", None, True),
    ]


def test_clips_that_changed_meanwhile_are_not_learned_from(school):
    began, goes_on = threading.Event(), threading.Event()

    def slow(*given):
        began.set()
        assert goes_on.wait(60)
        return learned(*given)

    one = school(slow)
    for _ in range(3):
        one.press()
    assert began.wait(60)
    assert one.press(undo=True).clips == 2
    goes_on.set()
    assert one.press("kettle").clips == 1
    for _ in range(2):
        one.press("kettle")
    assert one.told.get(timeout=60).name == "kettle"  # so the lesson before it is over
    assert [sound.name for sound in OwnSoundFiles(one.folder).read()] == ["kettle"]


def test_more_presses_than_are_carried_out_are_refused(school):
    one = school()
    with one.teaching._ready:  # nobody carries out anything
        for _ in range(WAITING):
            one.teaching.ask(Teach("bell"), ring_of(noise(1, 5)), one.told.put)
        with pytest.raises(MessageError, match="try again"):
            one.teaching.ask(Teach("bell"), ring_of(noise(1, 5)), one.told.put)
