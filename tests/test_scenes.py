"""The engine on the development scenes with a model that recognises; skipped where ../shared is absent."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from protocol import check_session

import streamer
from streamer.audio.files import read_audio
from streamer.bench.quality import run_scene, word_error_rate
from streamer.config import Settings
from streamer.model.whisper import Model
from streamer.runtime.stream import Stream

SHARED = Path(__file__).resolve().parents[2] / "shared"
SCENES = ["speech_clean_1", "alarm_tone_t3_0", "sounds_1", "silence_0"]

pytestmark = pytest.mark.shared


@functools.cache
def nano() -> Model:
    return streamer.load_model(SHARED / "models" / "nano.pt", dtype="float32")


@functools.cache
def whole(name: str) -> tuple[Any, list[dict[str, Any]]]:
    score, events = run_scene(nano(), Settings(), SHARED / "scenes" / f"{name}.flac")
    return score, [event.to_dict() for event in events]


@pytest.mark.parametrize("name", SCENES)
def test_a_scene_keeps_every_promise(name):
    score, events = whole(name)
    check_session(events)
    assert score.tag_seconds == 60
    assert score.passes <= score.hops
    if score.spoken_seconds:
        assert score.speech_seen >= 0.8 * score.spoken_seconds


@pytest.mark.parametrize("name", SCENES[:2])
def test_a_scene_cut_at_30_s_gives_the_first_events_of_the_whole(name):
    stream = Stream(nano(), Settings())
    samples = read_audio(str(SHARED / "scenes" / f"{name}.flac"))
    cut = [event.to_dict() for event in stream.push(samples[: 30 * 16_000]) + stream.finish()]
    before = [event for event in whole(name)[1] if event["audio_t"] < 30]
    assert cut[: len(before)] == before
    assert all(event["audio_t"] == 30 for event in cut[len(before) :])


def test_streaming_is_no_worse_than_openai_whisper_offline_on_the_same_weights():
    score, _ = whole("speech_clean_1")
    streamed = word_error_rate(score.reference, score.heard)
    offline = word_error_rate(score.reference, score.offline)
    assert streamed is not None
    assert offline is not None
    assert streamed <= offline + 0.01


def test_a_smoke_alarm_is_one_critical_alert_that_ends():
    truth = json.loads((SHARED / "scenes" / "alarm_tone_t3_0.json").read_text())["events"]
    (alarm,) = [event for event in truth if event["end"] - event["start"] > 10]
    alerts = [e for e in whole("alarm_tone_t3_0")[1] if e["type"] == "alert" and e["rule"] == "smoke_alarm"]
    raised = [event for event in alerts if event["state"] == "raised"]
    cleared = [event for event in alerts if event["state"] == "cleared"]
    assert len(raised) == len(cleared) == 1
    assert raised[0]["severity"] == "critical"
    assert alarm["start"] <= raised[0]["audio_t"] <= alarm["start"] + 6
    assert alarm["end"] - 6 <= cleared[0]["audio_t"] <= alarm["end"] + 10


def test_silence_writes_nothing():
    assert not [event for event in whole("silence_0")[1] if event["type"] == "transcript"]
