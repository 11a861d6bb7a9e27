"""Uploaded recordings beside live streams: the text is that of a recording alone, the events of the live stream too."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from program import write_wav
from protocol import check_session
from random_whisper import random_whisper

import streamer
from streamer.audio.files import FileSource, demo_path, read_audio
from streamer.model.engine import Engine
from streamer.model.whisper import Model
from streamer.runtime import offline
from streamer.runtime.offline import OfflineEngine
from streamer.runtime.recording import Recording
from streamer.runtime.stream import Hearing, Listener, Stream
from streamer.runtime.uploads import MAX_AT_ONCE, Uploads
from streamer.runtime.worker import Worker
from streamer.server.actions import BusyError, Upload, UploadRefusedError
from streamer.settings.config import Settings, validate

RATE = 16_000
MULTILINGUAL = 51865
DEMO = Path(demo_path("nano"))


@functools.cache
def model() -> Model:
    torch.manual_seed(1)
    return Model(random_whisper(6, vocabulary=MULTILINGUAL, ending=2.0), name="random", dtype=torch.float32)


def noise(seconds: float, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.05, round(seconds * RATE)).astype(np.float32)


@pytest.fixture
def lend() -> Iterator:
    """Uploads on a model whose worker runs, and that worker."""
    running: list[Worker] = []

    def start(of: Model, **server) -> tuple[Uploads, Worker]:
        worker = Worker(Engine(of))
        worker.start()
        running.append(worker)
        uploads = Uploads(validate({"server": server}) if server else Settings())
        uploads.begin(of, worker)
        return uploads, worker

    yield start
    for worker in running:
        assert worker.stop(30)


def told(events) -> list[dict]:
    return [json.loads(event.to_json()) for event in events]


def test_the_events_are_those_of_the_recording_alone(lend, tmp_path, monkeypatch):
    monkeypatch.setattr(offline, "TEMPERATURES", (0.0, 0.4))  # one fallback of six will do
    file = write_wav(tmp_path / "noise.wav", noise(32))
    uploads, _ = lend(model())
    events = [event for some in uploads.transcribe(Upload(file, "noise.wav")) for event in some]
    alone = Recording(model(), Settings(), FileSource(str(file), realtime=False, label="file").blocks(), hears=True)
    engine, expected = OfflineEngine(model()), []
    while request := alone.request():
        expected += alone.take(engine.step([request])[0])
    expected += alone.finish()
    assert told(events) == told(expected)
    check_session(told(events))
    assert [event.audio_t for event in events][-1] == 32.0


def test_a_live_stream_beside_it_says_what_it_says_alone(lend):
    nano = streamer.load_model("nano", dtype="float32")
    uploads, worker = lend(nano)
    live, samples = [], read_audio(str(DEMO))[: 6 * RATE]
    lane = worker.add(Hearing(nano, Settings()), live.extend, 600.0)
    listener = Listener(Settings())
    upload = uploads.transcribe(Upload(DEMO, "demo.flac"))
    for at in range(0, len(samples), RATE):
        assert next(upload) is not None
        lane.put(listener.step(samples[at : at + RATE]))
    lane.put(listener.finish())
    lane.finish()
    assert lane.done.wait(120)
    stream = Stream(nano, Settings())
    expected = [*stream.push(samples), *stream.finish()]

    def said(events) -> list[dict]:
        return [{**event, "seq": 0} for event in told(events) if event["type"] == "transcript" and event["final"]]

    assert said(live) == said(expected)
    assert said(live)


def test_a_model_without_look_ahead_hears_it_as_a_stream(lend, tmp_path):
    nano = streamer.load_model("nano", dtype="float32")
    uploads, _ = lend(nano)
    file = write_wav(tmp_path / "spoken.wav", read_audio(str(DEMO))[: 10 * RATE])
    events = [event for some in uploads.transcribe(Upload(file, "spoken.wav")) for event in some]
    stream = Stream(nano, Settings(), source="file")
    expected = [event for block in FileSource(str(file), realtime=False).blocks() for event in stream.hear(block)]
    assert told(events) == told([*expected, *stream.finish()])
    assert any(event.type == "transcript" and event.final for event in events)
    assert events[-1].audio_t == 10.0


def test_a_translation_is_asked_of_the_model(lend, tmp_path):
    file = write_wav(tmp_path / "noise.wav", noise(3))
    uploads, _ = lend(model())
    settings = uploads._settings_for(Upload(file, "a", "translate", ("German", "en"), "names"), model())
    assert (settings.speech.task, settings.speech.languages, settings.speech.prompt) == (
        "translate",
        ("de", "en"),
        "names",
    )
    assert list(uploads.transcribe(Upload(file, "a", "translate", ("de",))))


def test_only_so_many_at_once_and_none_before_or_after(lend, tmp_path):
    file = write_wav(tmp_path / "noise.wav", noise(3))
    with pytest.raises(BusyError, match="being loaded"):
        next(Uploads(Settings()).transcribe(Upload(file, "a")))
    uploads, _ = lend(model())
    some = [uploads.transcribe(Upload(file, "a")) for _ in range(MAX_AT_ONCE)]
    for one in some:
        assert next(one)
    with pytest.raises(BusyError, match="already"):
        next(uploads.transcribe(Upload(file, "a")))
    some[0].close()  # nobody waits for it any more
    assert next(uploads.transcribe(Upload(file, "a")))
    uploads.end()
    with pytest.raises(BusyError):
        next(uploads.transcribe(Upload(file, "a")))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.m3u8", b"#EXTM3U\nfile:///etc/hostname\n"),
        ("a.ffconcat", b"ffconcat version 1.0\nfile x.wav\n"),
        ("a.txt", b""),
    ],
)
def test_a_playlist_makes_us_read_nothing(lend, tmp_path, name, content):
    file = tmp_path / "upload"
    file.write_bytes(content)
    uploads, _ = lend(model())
    with pytest.raises(UploadRefusedError, match=f"^{name}: is no audio or video file"):
        next(uploads.transcribe(Upload(file, name)))


def test_longer_than_is_taken_is_refused(lend, tmp_path):
    file = write_wav(tmp_path / "long.wav", np.zeros(61 * 8_000, np.float32), 8_000)
    uploads, _ = lend(model(), upload_max_min=1)
    with pytest.raises(UploadRefusedError, match="longer than 1 minutes"):
        next(uploads.transcribe(Upload(file, "long.wav")))
