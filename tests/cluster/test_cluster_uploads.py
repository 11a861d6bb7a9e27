"""Recordings that clients upload, by engines elsewhere: what is found is what one here finds, window by window."""

import functools
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from program import write_wav

from streamer.audio.files import FileSource, demo_path, read_audio
from streamer.audio.mel import RecordingMel
from streamer.cluster.engine import RemoteEngine, RemoteRecordings
from streamer.cluster.wire import RecordingAnswer, Refused, SentMel, SentRecordingWindow, SentTrack, SentWindow
from streamer.errors import EngineError
from streamer.events import Event
from streamer.events.plans import DecodeTask
from streamer.model.choice import load_model
from streamer.model.engine import Engine
from streamer.model.whisper import Model
from streamer.policy.seeking import Window
from streamer.runtime.offline import OfflineEngine, WindowRequest
from streamer.runtime.recording import Recording
from streamer.runtime.stream import Stream
from streamer.runtime.uploads import Uploads
from streamer.server.actions import BusyError, Upload
from streamer.settings.config import Settings

SECOND = 16_000


@functools.cache
def nano() -> Model:
    return load_model("nano", dtype="float32")


class Answered:
    """An answer that is there."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def result(self, *, timeout_s: float | None = None) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        return pickle.loads(pickle.dumps(self._answer))


class Replicas:
    """Engines to which nothing comes but what can be pickled; the first `lost` windows go with theirs."""

    def __init__(self, lost: int = 0) -> None:
        self._offline, self._live, self.lost = OfflineEngine(nano()), Engine(nano()), lost

    def remote(self, sent: SentWindow | SentRecordingWindow) -> Answered:
        if self.lost:
            self.lost -= 1
            return Answered(ConnectionError())
        there = pickle.loads(pickle.dumps(sent))
        if isinstance(there, SentWindow):
            return Answered(self._live.step([(SentMel(there), there.request)])[0])
        request = there.request()
        return Answered(RecordingAnswer(self._offline.step([request])[0], SentTrack.of(request.track)))


def recordings(replicas: Replicas) -> RemoteRecordings:
    outline = nano().outline()
    return RemoteRecordings(outline, replicas, is_lost, lambda: RemoteEngine(outline, replicas, is_lost))


def is_lost(error: BaseException) -> bool:
    return isinstance(error, ConnectionError)


@pytest.fixture
def file(tmp_path) -> str:
    """Of two windows."""
    return str(write_wav(tmp_path / "demo.wav", read_audio(demo_path("nano"))[: 31 * SECOND]))


def recording(model: Any, file: str) -> Recording:
    return Recording(model, Settings(), FileSource(file, realtime=False, label="file").blocks(), hears=True)


def test_windows_elsewhere_are_those_of_an_engine_here(file):
    near, far = recording(nano(), file), recording(nano().outline(), file)
    here, there = OfflineEngine(nano()), recordings(Replicas(lost=1))
    expected, found = list[Event](), list[Event]()
    while request := near.request():
        expected += near.take(here.step([request])[0])
    while request := far.request():
        found += far.take(there.window(request))
    assert [*found, *far.finish()] == [*expected, *near.finish()]
    assert any(event.type == "tags" and event.audio_t > 30 for event in expected)


def test_a_short_window_brings_what_the_language_is_asked_with():
    samples = read_audio(demo_path("nano"))
    for seconds, asked_again in ((5, True), (31, False)):
        mel = RecordingMel([samples[: seconds * SECOND]], nano().dims.n_mels)
        window = Window(0, min(100 * seconds, 3000), (), first=True)
        sent = SentRecordingWindow.of(WindowRequest(mel, window, DecodeTask(language=None)))
        assert torch.equal(sent.request().mel.window(0, window.end), mel.window(0, window.end))
        assert (sent.mel.opening_values is not None) == asked_again
        if asked_again:
            assert torch.equal(sent.request().mel.opening(), mel.opening())


def test_a_model_without_earlier_text_hears_an_upload_as_a_stream(tmp_path):
    file = str(write_wav(tmp_path / "demo.wav", read_audio(demo_path("nano"))[: 4 * SECOND]))
    uploads = Uploads(Settings())
    uploads.begin_elsewhere(recordings(Replicas()))
    facts = uploads.model()
    assert facts is not None
    assert facts.name == "nano"
    found = [event for some in uploads.transcribe(Upload(Path(file), "demo.wav")) for event in some]
    alone = Stream(nano(), Settings(), source="file")
    blocks = FileSource(file, realtime=False, label="file").blocks()
    assert found == [*(event for block in blocks for event in alone.hear(block)), *alone.finish()]


def test_an_upload_ends_with_the_program(file):
    uploads = Uploads(Settings())
    uploads.begin_elsewhere(recordings(Replicas()))
    told = uploads.transcribe(Upload(Path(file), "demo.wav"))
    next(told)
    uploads.end()
    with pytest.raises(BusyError, match="the program ends"):
        list(told)


def test_what_an_engine_cannot_do_is_an_error_of_the_upload(file):
    class Broken(Replicas):
        def remote(self, sent: Any) -> Answered:
            return Answered(Refused("the model broke"))

    request = recording(nano().outline(), file).request()
    assert request is not None
    with pytest.raises(EngineError, match="the model broke"):
        recordings(Broken()).window(request)
