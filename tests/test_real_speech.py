"""Captions of people's voices with `tiny.en`, which is fetched once; skipped where it cannot be had."""

import itertools
from pathlib import Path

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
def events(model):
    """Both recordings, one behind the other, with pauses of faint noise."""
    noise = np.random.default_rng(0)
    quiet = [noise.normal(0, 1e-4, round(QUIET_S * 16_000)).astype(np.float32) for _ in range(len(SAID) + 1)]
    spoken = [read_audio(str(RECORDINGS / f"{name}.flac")) for name in SAID]
    parts = [part for pair in itertools.zip_longest(quiet, spoken) for part in pair if part is not None]
    stream = streamer.Stream(model, Settings())
    made = [event for part in parts for event in stream.push(part)] + stream.finish()
    return [event.to_dict() for event in made]


def test_what_people_say_is_captioned(events):
    finals = [event for event in events if event["type"] == "transcript" and event["final"]]
    heard = " ".join(event["text"] for event in finals)
    rate = word_error_rate(" ".join(SAID.values()).split(), _words(heard))
    assert rate is not None
    assert rate <= 0.15, heard


def test_every_promise_of_the_protocol_holds_on_real_voices(events):
    check_session(events)  # nothing is taken back, times never go back
    words = [word for event in events if event["type"] == "transcript" and event["final"] for word in event["words"]]
    assert words
    assert all(one["start"] <= other["start"] for one, other in itertools.pairwise(words))


def test_nothing_is_said_in_the_quiet(events):
    first = next(event for event in events if event["type"] == "transcript")
    assert first["start"] >= QUIET_S - 0.5


def _words(text: str) -> list[str]:
    return "".join(char if char.isalpha() or char == "'" else " " for char in text.lower()).split()
