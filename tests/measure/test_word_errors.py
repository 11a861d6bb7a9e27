import pytest

from streamer.measure.word_errors import WordErrors, as_written, normaliser, plain_text, total, word_errors


def test_each_kind_of_error_is_counted():
    found = word_errors("one two three four", "one too three four five")
    assert found == WordErrors(words=4, substituted=1, invented=1)
    assert found.rate == pytest.approx(0.5)
    assert word_errors("one two three", "one three") == WordErrors(words=3, lost=1)


def test_nothing_written_is_all_lost_and_nothing_said_all_invented():
    assert word_errors("one two", "") == WordErrors(words=2, lost=2)
    assert word_errors("", "thanks for watching") == WordErrors(invented=3)
    assert WordErrors(invented=3).rate is None


def test_counts_add_up():
    found = total([WordErrors(4, 1, 0, 1), WordErrors(6, 0, 2, 1)])
    assert found == WordErrors(10, 1, 2, 2)
    assert found.rate == pytest.approx(0.5)


def test_english_is_made_comparable_as_whisper_does_and_others_only_basically():
    assert normaliser("en")("It's twenty-one, Colour!") == normaliser(None)("it is 21 color")
    assert normaliser("de")("Es ist Zwanzig.") == "es ist zwanzig"


def test_the_plain_form_keeps_digits_apart():
    assert normaliser("en", plain=True)("Zero, one. Two!") == plain_text("zero one two") == "zero one two"


def test_as_written_keeps_case_and_punctuation():
    assert word_errors(as_written("Ask  not, what"), as_written("ask not what")).substituted == 2
