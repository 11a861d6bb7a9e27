"""Several files as fast as they go: each session's events are those it has alone, and a failure stays one's own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol import check_session
from random_whisper import random_model

from streamer.audio.block import AudioBlock
from streamer.errors import InputError
from streamer.runtime.stream import Stream, hear_at_once
from streamer.settings.config import GuardSettings, Settings, VadSettings, WindowSettings

MODEL = random_model(1)
OFF = GuardSettings(silence=False, tokens_per_second=2)
BUZZ = VadSettings(speech_probability=0)  # webrtcvad alone takes it for a voice
PLAIN = Settings(guards=OFF, vad=BUZZ)
QUICK = Settings(guards=OFF, vad=BUZZ, window=WindowSettings(hop_s=0.2))


class Blocks:
    """A source of ready blocks that may break."""

    name, live = "blocks", False

    def __init__(self, samples, size: int, breaks: bool = False) -> None:
        self._samples, self._size, self._breaks = samples, size, breaks
        self.given = 0

    def blocks(self):
        for at in range(0, len(self._samples), self._size):
            self.given += 1
            yield AudioBlock(self._samples[at : at + self._size])
        if self._breaks:
            raise InputError("the file is broken")

    def close(self) -> None:
        """Nothing to close."""


def voice(seed: int, seconds: float):
    t = np.arange(round(seconds * 16_000)) / 16_000
    buzz = sum(np.sin(2 * np.pi * (110 + 20 * seed) * order * t) / order for order in range(1, 20))
    return (0.1 * buzz * (np.sin(2 * np.pi * 0.6 * t + seed) > 0)).astype(np.float32)


def hear(*given: tuple[str, Blocks, Settings], until=lambda: False):
    streams = [Stream(MODEL, chosen, name=name) for name, _, chosen in given]
    events = []
    failures = hear_at_once([source for _, source, _ in given], streams, events.extend, until)
    by_session = {name: [event for event in events if event.session == name] for name, _, _ in given}
    return by_session, failures, events


def lines(events) -> list[str]:
    return [event.to_json() for event in events]


@settings(max_examples=4, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.3, 3), st.integers(100, 5000)), min_size=2, max_size=3))
def test_each_session_has_the_bytes_that_it_has_alone(files):
    def given_of(index):
        seed, seconds, size = files[index]
        return (f"s{index}", Blocks(voice(seed, seconds), size), QUICK if index % 2 else PLAIN)

    together, failures, events = hear(*(given_of(index) for index in range(len(files))))
    assert not failures
    for index in range(len(files)):
        alone, _, _ = hear(given_of(index))
        assert lines(together[f"s{index}"]) == lines(alone[f"s{index}"])
        check_session([event.to_dict() for event in together[f"s{index}"]])
    assert lines(events) == lines(hear(*(given_of(index) for index in range(len(files))))[2])


def test_text_is_heard_and_the_sources_advance_side_by_side():
    by_session, _, events = hear(("a", Blocks(voice(0, 4), 800), PLAIN), ("b", Blocks(voice(1, 4), 1600), PLAIN))
    assert all(any(event.type == "transcript" for event in one) for one in by_session.values())
    at = {"a": 0.0, "b": 0.0}
    for event in events:
        at[event.session] = event.audio_t
        assert abs(at["a"] - at["b"]) <= 1.2 or event.audio_t == 4


@pytest.mark.parametrize("first", [True, False])
def test_a_source_that_breaks_leaves_the_other_alone(first):
    broken, whole = ("a", Blocks(voice(0, 1), 800, breaks=True), PLAIN), ("b", Blocks(voice(1, 3), 800), PLAIN)
    by_session, failures, _ = hear(*((broken, whole) if first else (whole, broken)))
    assert list(failures) == ["a"]
    assert [event.state for event in by_session["a"] if event.type == "status"] == ["listening", "degraded", "stopped"]
    assert lines(by_session["b"]) == lines(hear(("b", Blocks(voice(1, 3), 800), PLAIN))[0]["b"])


def test_asked_to_end_every_session_is_finished():
    sources = [Blocks(voice(0, 9), 800), Blocks(voice(1, 9), 800)]
    by_session, _, events = hear(
        ("a", sources[0], PLAIN), ("b", sources[1], PLAIN), until=lambda: sources[1].given >= 30
    )
    for one in by_session.values():
        check_session([event.to_dict() for event in one])
    assert max(event.audio_t for event in events) < 3
