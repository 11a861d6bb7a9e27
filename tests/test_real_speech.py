"""Captions of people's voices with `tiny.en`, which is fetched once; skipped where it cannot be had."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from protocol import check_session

import streamer
from streamer.audio.files import read_audio
from streamer.bench.quality import word_error_rate
from streamer.config import Settings
from streamer.errors import DownloadError

RECORDINGS = Path(__file__).parent / "recordings"
SAID = {
    "LJ001-0081": "type cast from his matrices is still in everyday use",
    "austen-0920": "had he married a more amiable woman he might have been made still more respectable than he was",
}
QUIET_S = 1.5
pytestmark = pytest.mark.timeout(600)  # the first time it is fetched


@pytest.fixture(scope="module")
def model():
    try:
        return streamer.load_model("tiny.en", head=None, dtype="float32")
    except DownloadError as error:
        pytest.skip(f"needs tiny.en, which is not here and cannot be fetched: {error}")


@pytest.fixture(scope="module")
def heard(model):
    """The events of each recording, with faint noise before and behind it."""
    noise = np.random.default_rng(0)
    found = {}
    for name in SAID:
        quiet = noise.normal(0, 1e-4, round(QUIET_S * 16_000)).astype(np.float32)
        stream = streamer.Stream(model, Settings())
        events = [
            event
            for part in (quiet, read_audio(str(RECORDINGS / f"{name}.flac")), quiet)
            for event in stream.push(part)
        ]
        found[name] = [event.to_dict() for event in events + stream.finish()]
    return found


def test_what_people_say_is_captioned(heard):
    captions = {name: " ".join(event["text"] for event in _finals(heard[name])) for name in SAID}
    written = [word for text in captions.values() for word in _words(text)]
    rate = word_error_rate(" ".join(SAID.values()).split(), written)
    assert rate is not None
    assert rate <= 0.15, captions


@pytest.mark.parametrize("name", SAID)
def test_every_promise_of_the_protocol_holds_on_real_voices(heard, name):
    check_session(heard[name])  # nothing is taken back, times never go back
    words = [word for event in _finals(heard[name]) for word in event["words"]]
    assert words
    assert words[0]["start"] >= QUIET_S - 0.5
    assert all(one["start"] <= other["start"] for one, other in itertools.pairwise(words))


def _finals(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == "transcript" and event["final"]]


def _words(text: str) -> list[str]:
    return "".join(char if char.isalpha() or char == "'" else " " for char in text.lower()).split()
