"""The engine on the development scenes with a model that recognises; skipped where ../shared is absent."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from protocol import check_session

import streamer
from streamer.audio.files import read_audio
from streamer.bench.peers import Offline, float32_module
from streamer.measure.recordings import read_recordings
from streamer.measure.word_errors import plain_text, word_errors
from streamer.model.whisper import Model
from streamer.runtime.stream import Stream
from streamer.settings.config import Settings

SHARED = Path(__file__).resolve().parents[2] / "shared"
SCENES = ["speech_clean_1", "alarm_tone_t3_0", "sounds_1", "silence_0"]

pytestmark = pytest.mark.shared


@functools.cache
def nano() -> Model:
    return streamer.load_model(SHARED / "models" / "nano.pt", dtype="float32")


@functools.cache
def whole(name: str) -> tuple[list[dict[str, Any]], int]:
    """The events of a scene, and how often the encoder ran for them."""
    before = nano().encoder_passes
    stream = Stream(nano(), Settings())
    events = stream.push(read_audio(str(SHARED / "scenes" / f"{name}.flac"))) + stream.finish()
    return [event.to_dict() for event in events], nano().encoder_passes - before


@pytest.mark.parametrize("name", SCENES)
def test_a_scene_keeps_every_promise(name):
    events, passes = whole(name)
    check_session(events)
    tags = [event for event in events if event["type"] == "tags"]
    assert len(tags) == 60
    assert passes <= 60 / Settings().window.hop_s
    spoken = [event for event in tags if said_s(name, event["end"] - 1, event["end"]) >= 0.5]
    seen = [event for event in spoken if "Speech" in [tag["label"] for tag in event["tags"][:3]]]
    assert len(seen) >= 0.8 * len(spoken)


def said_s(name: str, start: float, end: float) -> float:
    """How many seconds of words lie in a stretch of a scene."""
    words = json.loads((SHARED / "scenes" / f"{name}.json").read_text())["words"]
    return sum(max(0.0, min(word["end"], end) - max(word["start"], start)) for word in words)


@pytest.mark.parametrize("name", SCENES[:2])
def test_a_scene_cut_at_30_s_gives_the_first_events_of_the_whole(name):
    stream = Stream(nano(), Settings())
    samples = read_audio(str(SHARED / "scenes" / f"{name}.flac"))
    cut = [event.to_dict() for event in stream.push(samples[: 30 * 16_000]) + stream.finish()]
    before = [event for event in whole(name)[0] if event["audio_t"] < 30]
    assert cut[: len(before)] == before
    assert all(event["audio_t"] == 30 for event in cut[len(before) :])


def test_streaming_is_no_worse_than_openai_whisper_offline_on_the_same_weights(tmp_path):
    (scene,) = [each for each in read_recordings(SHARED / "scenes") if each.name == "speech_clean_1"]
    events, _ = whole(scene.name)
    streamed = " ".join(event["text"] for event in events if event["type"] == "transcript" and event["final"])
    reader = Offline(float32_module(nano()), previous_text=nano().previous_text, folder=tmp_path)
    errors = [word_errors(scene.text, plain_text(text)) for text in (streamed, reader.read(scene.samples(), "en").text)]
    assert errors[0].rate is not None
    assert errors[1].rate is not None
    assert errors[0].rate <= errors[1].rate + 0.01


def test_a_smoke_alarm_is_one_critical_alert_that_ends():
    truth = json.loads((SHARED / "scenes" / "alarm_tone_t3_0.json").read_text())["events"]
    (alarm,) = [event for event in truth if event["end"] - event["start"] > 10]
    alerts = [e for e in whole("alarm_tone_t3_0")[0] if e["type"] == "alert" and e["rule"] == "smoke_alarm"]
    raised = [event for event in alerts if event["state"] == "raised"]
    cleared = [event for event in alerts if event["state"] == "cleared"]
    assert len(raised) == len(cleared) == 1
    assert raised[0]["severity"] == "critical"
    assert alarm["start"] <= raised[0]["audio_t"] <= alarm["start"] + 6
    assert alarm["end"] - 6 <= cleared[0]["audio_t"] <= alarm["end"] + 10


def test_silence_writes_nothing():
    assert not [event for event in whole("silence_0")[0] if event["type"] == "transcript"]
