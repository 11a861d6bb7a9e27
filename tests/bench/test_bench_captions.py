import pytest

from streamer.bench.speech_scores import lateness, percentile, read_captions
from streamer.events import Transcript
from streamer.measure.recordings import TrueWord
from streamer.measure.word_errors import normaliser


def transcript(at, text, partial="", *, segment=0, final=False):
    event = Transcript(
        session="s1",
        seq=1,
        audio_t=at,
        segment=segment,
        start=0.0,
        end=at,
        text=text,
        partial=partial,
        final=final,
        words=(),
        language="en",
        speech_probability=1.0,
    )
    return event, at


def moments(captions):
    return [(word.text, word.committed_s, word.shown_s) for word in captions.words]


def test_a_word_is_on_show_since_it_stands_in_its_place():
    found = read_captions(
        [transcript(1.0, "", "four"), transcript(1.5, "four", "four two"), transcript(2.0, "four four nine")]
    )
    assert moments(found) == [("four", 1.5, 1.0), ("four", 2.0, 1.5), ("nine", 2.0, 2.0)]


def test_case_and_punctuation_do_not_take_a_word_from_show():
    found = read_captions([transcript(1.0, "", "Ask not."), transcript(1.5, "Ask not, what")])
    assert moments(found) == [("Ask", 1.5, 1.0), ("not,", 1.5, 1.0), ("what", 1.5, 1.5)]
    assert found.withdrawn == 0


def test_what_went_from_the_partial_text_is_withdrawn_with_all_behind_it():
    found = read_captions(
        [transcript(1.0, "", "one too three"), transcript(1.5, "one", "two three"), transcript(2.0, "one")]
    )
    assert found.withdrawn == 2 + 2
    assert found.retractions == 0


def test_a_word_that_went_and_came_back_is_on_show_since_it_came_back():
    found = read_captions(
        [transcript(1.0, "", "one"), transcript(1.5, "", "won"), transcript(2.0, "", "one"), transcript(2.5, "one")]
    )
    assert moments(found) == [("one", 2.5, 2.0)]
    assert found.withdrawn == 2


def test_committed_text_that_changes_is_a_retraction():
    assert read_captions([transcript(1.0, "one"), transcript(1.5, "two three")]).retractions == 1


def test_segments_do_not_mix():
    found = read_captions(
        [transcript(1.0, "one", final=True), transcript(2.0, "", "two", segment=1), transcript(3.0, "two", segment=1)]
    )
    assert moments(found) == [("one", 1.0, 1.0), ("two", 3.0, 2.0)]
    assert (found.text, found.withdrawn, found.segments, found.finals) == ("one two", 0, 2, 1)


def test_lateness_counts_from_the_true_end_of_words_that_were_heard_right():
    truth = [TrueWord("One,", 1.0), TrueWord("two", 2.0), TrueWord("three", 3.0)]
    found = read_captions([transcript(0.75, "", "one"), transcript(1.5, "one", "to"), transcript(3.5, "one to three")])
    assert lateness(found, truth) == ([0.5, 0.5], [-0.25, 0.5])
    assert lateness(found, []) == lateness(read_captions([]), truth) == ([], [])


def test_a_written_word_that_stands_for_two_counts_twice():
    truth = [TrueWord("it", 1.0), TrueWord("is", 1.25)]
    commits, _ = lateness(read_captions([transcript(2.0, "it's")]), truth, normaliser("en"))
    assert commits == [1.0, 0.75]


def test_percentiles():
    assert percentile([0.0, 1.0, 2.0], 50) == 1.0
    assert percentile([0.0, 1.0], 95) == pytest.approx(0.95)
    assert percentile([], 50) is None
