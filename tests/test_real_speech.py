"""Captions of people's voices with `tiny.en`, which is fetched once; skipped where it cannot be had."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from protocol import check_session

import streamer
from streamer.audio.files import read_audio
from streamer.errors import DownloadError
from streamer.measure.word_errors import plain_text, word_errors
from streamer.model.checkpoint import load_model
from streamer.model.whisper import STOCK_MARGIN_FRAMES
from streamer.settings.config import Settings

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


def test_official_weights_hear_short_windows(model):
    """The differences that come with Streamer are for exactly these weights."""
    plain = load_model("tiny.en", head=None, dtype="float32")
    assert model.margin_frames < plain.margin_frames == STOCK_MARGIN_FRAMES


@pytest.fixture(scope="module")
def heard(model):
    """The events of the recordings one after the other, with faint noise before, between and behind them."""
    noise = np.random.default_rng(0)
    quiet = [noise.normal(0, 1e-4, round(QUIET_S * 16_000)).astype(np.float32) for _ in range(len(SAID) + 1)]
    stream = streamer.Stream(model, Settings())
    events = stream.push(quiet[0])
    for name, after in zip(SAID, quiet[1:], strict=True):
        events += stream.push(read_audio(str(RECORDINGS / f"{name}.flac"))) + stream.push(after)
    return [event.to_dict() for event in events + stream.finish()]


def test_what_people_say_is_captioned(heard):
    captions = " ".join(event["text"] for event in _finals(heard))
    found = word_errors(plain_text(" ".join(SAID.values())), plain_text(captions))
    assert found.rate is not None
    assert found.rate <= 0.2, captions


def test_every_promise_of_the_protocol_holds_on_real_voices(heard):
    check_session(heard)  # nothing is taken back, times never go back
    words = [word for event in _finals(heard) for word in event["words"]]
    assert words
    assert words[0]["start"] >= QUIET_S - 0.5
    assert all(one["start"] <= other["start"] for one, other in itertools.pairwise(words))


def test_a_sentence_ends_where_it_ends_and_nowhere_else(heard):
    texts = [event["text"] for event in _finals(heard)]
    assert len(texts) == len(SAID)
    assert all(text[-1] in ".?" and not set(".?") & set(text[:-1]) for text in texts), texts


def _finals(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == "transcript" and event["final"]]
