"""Whoever writes into our pipe stops for a while, as a camera that hangs: people are told, as of a microphone."""

import os
import threading
import time
import wave

import pytest
from demo_speech import demo_speech

import streamer
from streamer.audio.files import StdinSource
from streamer.events import Event, Gap, Status
from streamer.model.engine import Engine
from streamer.runtime import pipeline as pipelines
from streamer.runtime.pipeline import Pipeline
from streamer.runtime.shutdown import stop_all
from streamer.runtime.stream import Hearing
from streamer.runtime.worker import Worker
from streamer.settings.config import Settings

LONG_S = 60.0


@pytest.mark.parametrize("container", [False, True])
def test_a_pipe_through_which_nothing_comes_is_no_audio_until_something_does(container, tmp_path, monkeypatch):
    monkeypatch.setattr(pipelines, "PIPE_STALL_S", 0.5)
    model, settings = streamer.load_model("nano", dtype="float32"), Settings()
    pcm = (demo_speech(6) * 32767).astype("<i2").tobytes()
    if container:
        with wave.open(str(tmp_path / "a.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, len(pcm) // 2, "NONE", ""))
            file.writeframes(pcm)
        pcm = (tmp_path / "a.wav").read_bytes()
    half = len(pcm) // 4 * 2
    events: list[Event] = []
    said = threading.Condition()

    def emit(more: list[Event]) -> None:
        with said:
            events.extend(more)
            said.notify_all()

    def states() -> list[str]:
        return [event.state for event in events if isinstance(event, Status)]

    def until(*wanted: str) -> None:
        with said:
            assert said.wait_for(lambda: states()[-len(wanted) :] == list(wanted), LONG_S), states()

    read, write = os.pipe()
    with os.fdopen(read, "rb") as pipe, os.fdopen(write, "wb", buffering=0) as writer:
        worker = Worker(Engine(model))
        pipeline = Pipeline(StdinSource(pipe, realtime=True), settings, worker, Hearing(model, settings, "s1"), emit)
        worker.start()
        pipeline.start()
        writer.write(pcm[:half])
        until("listening", "no_audio")
        writer.write(pcm[half:])
        until("no_audio", "listening")
        writer.close()
        deadline = time.monotonic() + LONG_S
        while not pipeline.done:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        stop_all([pipeline], LONG_S)
        worker.stop(5)
    assert "no sound comes from stdin" in [event.detail for event in events if isinstance(event, Status)]
    assert not any(isinstance(event, Gap) for event in events)  # a pipe loses nothing
    assert events[-1].audio_t == 6.0
