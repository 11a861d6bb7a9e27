import importlib.util

import numpy as np
import pytest
from random_whisper import random_whisper

from streamer.bench.conversion import PeerAbsentError
from streamer.bench.peers import AgreementLoop, FasterTranscriber, PeerPass, PeerWord, captions_of
from streamer.bench.speech_scores import read_captions

RATE = 16_000
SECOND = np.zeros(RATE, np.float32)


def says(*passes):
    """A transcriber that writes these texts one after the other, a word a second."""
    rest = iter(passes)

    def transcribe(samples, prompt):
        words = tuple(PeerWord(f" {text}", place + 0.2, place + 0.8) for place, text in enumerate(next(rest).split()))
        return PeerPass(words)

    return transcribe


def texts(words):
    return [word.text.strip() for word in words]


def test_what_two_passes_agree_on_is_committed_once():
    loop = AgreementLoop(says("one too", "one two", "one two three"))
    for expected in ([], ["one"], ["one", "two"]):
        loop.step(SECOND)
        assert texts(loop.committed) == expected
    assert texts(loop.partial) == ["three"]
    loop.finish()
    assert texts(loop.committed) == ["one", "two", "three"]


def test_the_buffer_is_cut_where_a_committed_segment_ends_and_times_go_on():
    lengths, prompts = [], []

    def transcribe(samples, prompt):
        lengths.append(len(samples) / RATE)
        prompts.append(prompt)
        count = len(samples) // RATE
        first = round(sum(cuts))
        words = tuple(PeerWord(f" w{first + place}", place + 0.1, place + 0.9) for place in range(count))
        return PeerPass(words, tuple(place + 1.0 for place in range(4, count, 5)))

    cuts = []
    loop = AgreementLoop(transcribe)
    for _ in range(40):
        before = loop._offset_s
        loop.step(SECOND)
        cuts += [loop._offset_s - before]
    assert texts(loop.committed) == [f"w{place}" for place in range(39)]
    assert max(lengths) <= 17
    assert prompts[0] == ""
    assert prompts[-1].split()[-1] == f"w{round(before) - 1}"


def test_its_captions_are_judged_like_ours():
    found = read_captions(
        [(event, event.audio_t) for event in captions_of(says("a b", "a b", "a b c"), np.tile(SECOND, 3), 1)]
    )
    assert [(word.text, word.committed_s, word.shown_s) for word in found.words] == [
        ("a", 2, 1),
        ("b", 2, 1),
        ("c", 3, 3),
    ]
    assert found.retractions == 0


def test_faster_whisper_runs_in_the_loop_or_says_that_it_is_absent(tmp_path):
    module = random_whisper(0)
    if importlib.util.find_spec("faster_whisper") is None:
        with pytest.raises(PeerAbsentError, match="not installed"):
            FasterTranscriber(module, tmp_path, 1, prompts=False)
        return
    transcribe = FasterTranscriber(module, tmp_path, 1, prompts=True).in_language("de")
    noise = np.random.default_rng(0).normal(0.0, 0.05, RATE).astype(np.float32)
    found = captions_of(transcribe, noise, 0.5)
    assert found[-1].final
    assert transcribe(noise, "before").segment_ends_s is not None
