"""Sentences by how their words are written: their first letter, and the mark behind the last."""

import pytest

from streamer.events.plans import HypothesisWord
from streamer.policy.prompt import TextModel
from streamer.policy.sentences import begins_sentence, ends_sentence, full_stop

MODEL = TextModel(encode=lambda text: tuple(text.encode()), fixed_language="en", carries_prompt=True)


def word(text):
    return HypothesisWord(f" {text}", (1,), 100, 200, 0.5, 190)


@pytest.mark.parametrize(
    ("text", "begins"), [("The", True), ("the", False), ("I", False), ("I'll", False), ("Ivy", True), ("7", False)]
)
def test_a_capital_begins_a_sentence_unless_it_is_a_speaker(text, begins):
    assert begins_sentence(word(text)) == begins


@pytest.mark.parametrize(
    ("text", "ends"), [("so.", True), ("so?", True), ("ですか。", True), ("so,", False), ("so", False)]
)
def test_a_mark_ends_a_sentence(text, ends):
    assert ends_sentence(word(text)) == ends


@pytest.mark.parametrize(
    ("text", "stops"), [("so", True), ("7", True), ("so.", False), ("so,", False), ("中", False), ("", False)]
)
def test_what_has_cases_or_is_a_number_gets_a_full_stop_where_its_last_word_ended(text, stops):
    found = full_stop([word("and"), word(text)] if text else [], MODEL)
    assert [(one.text, one.start_sample, one.end_sample, one.is_mark) for one in found] == [
        (".", 200, 200, True)
    ] * stops


def test_a_model_that_carries_no_prompt_writes_none():
    plain = TextModel(encode=MODEL.encode, fixed_language="en", carries_prompt=False)
    assert full_stop([word("so")], plain) == ()
