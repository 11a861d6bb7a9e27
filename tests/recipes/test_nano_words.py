import json
from pathlib import Path

import numpy as np

import streamer
from streamer.recipes.demo import LINES
from streamer.recipes.nano.words import DIGITS, HELD_OUT, is_held_out, sentence, vocabulary

DATA = Path(streamer.__file__).parent / "data"


def test_no_training_sentence_contains_a_held_out_one():
    random = np.random.default_rng(1)
    known = set(vocabulary())
    for _ in range(3000):
        words = sentence(random)
        assert set(words) <= known
        assert not is_held_out(words)


def test_held_out_is_found_inside_longer_text_and_only_as_whole_words():
    assert is_held_out(("yes", "is", "the", "water", "hot", "now"))
    assert not is_held_out(("is", "the", "water", "very", "hot"))


def test_every_line_of_the_demo_is_held_out_and_can_be_written():
    assert {line.text for line in LINES} <= set(HELD_OUT)
    for text in HELD_OUT:
        assert set(text.split()) <= set(vocabulary())


def test_the_bundled_truth_is_that_of_the_lines():
    truth = json.loads((DATA / "demo.json").read_text())
    assert [word["word"] for word in truth["words"]] == [word for line in LINES for word in line.text.split()]
    assert {event["label"] for event in truth["events"]} >= {"Siren", "Smoke detector, smoke alarm"}
    assert all(0 <= word["start"] < word["end"] <= truth["seconds"] for word in truth["words"])


def test_the_vocabulary_has_no_homophones_of_digits():
    assert vocabulary()[:10] == DIGITS
    assert not {"to", "too", "for", "ate", "won", "fore"} & set(vocabulary())
    assert len(set(vocabulary())) == len(vocabulary())
