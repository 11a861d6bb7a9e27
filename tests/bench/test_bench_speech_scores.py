import pytest

from streamer.bench.speech_scores import (
    Captions,
    CommittedWord,
    Reference,
    by_set,
    figures,
    judge,
    lateness,
    percentile,
    read_captions,
)
from streamer.events import Transcript
from streamer.measure.recordings import TrueWord
from streamer.measure.word_errors import WordErrors, normaliser, plain_text


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


def reference(text, *, name="a", part="talk", seconds=10.0, words=()):
    return Reference(name, part, seconds, text, words, plain_text)


def captions(*words, withdrawn=0, retractions=0):
    """Words as (text, committed, shown)."""
    found = tuple(CommittedWord(*word) for word in words)
    return Captions(found, " ".join(word.text for word in found), withdrawn, retractions, 1, 1)


def test_a_stream_is_judged_by_words_moments_and_cost():
    truth = reference("One two three four.", words=tuple(TrueWord(w, t) for w, t in (("one", 1.0), ("three", 3.0))))
    written = captions(("One", 2.0, 1.0), ("too", 2.0, 2.0), ("three", 3.5, 3.0), withdrawn=2, retractions=1)
    heard = judge("stream", truth, written, 5.0)
    assert heard.errors == WordErrors(words=4, substituted=1, lost=1)
    offline = judge("offline", truth, "one two three four", 1.0)
    assert offline.errors == WordErrors(words=4)
    assert offline.as_written == WordErrors(words=4, substituted=2)
    found = figures([heard], {"a": offline})
    assert (found["wer"], found["over_offline"], found["wer_as_written"]) == (0.5, 0.5, 0.5)
    assert (found["substituted"], found["lost"], found["invented"]) == (1, 1, 0)
    assert (found["commit_p50_s"], found["first_p50_s"], found["timed_words"]) == (0.75, 0.0, 2)
    assert (found["erasure"], found["retractions"]) == (0.5, 1)
    assert (found["processor_s_per_s"], found["segments"], found["finals"]) == (0.5, 1, 1)
    assert found["invented_per_minute"] is None


def test_word_errors_of_several_recordings_weigh_by_their_words():
    long, short = reference("a b c d e f g h i", name="a"), reference("x", name="b")
    heard = [judge("stream", long, "a b c d e f g h i", 0), judge("stream", short, "y", 0)]
    assert figures(heard, {})["wer"] == pytest.approx(0.1)
    assert figures(heard, {})["over_offline"] is None


def test_what_is_written_where_nobody_speaks_counts_by_the_minute_and_not_as_word_errors():
    quiet = reference("", name="q", part="sounds/dog", seconds=30.0)
    speech = reference("a b", seconds=10.0)
    heard = [judge("s", quiet, "Fire! Fire!", 100.0), judge("s", speech, "a b", 5.0)]
    found = figures(heard, {})
    assert (found["invented_per_minute"], found["invented_in_quiet"], found["quiet_recordings"]) == (4.0, 2, 1)
    assert (found["wer"], found["invented"], found["processor_s_per_s"]) == (0.0, 0, 0.5)
    assert figures([judge("s", quiet, "", 0)], {})["invented_per_minute"] == 0.0


@pytest.mark.parametrize(
    ("offline", "streamed", "unseen"),
    [("a b c", "", 1), ("a b", "", 1), ("a", "", 0), ("", "", 0), ("a b c", "x", 0)],
)
def test_unseen_is_what_offline_reads_and_the_stream_never_writes(offline, streamed, unseen):
    truth = reference("a b c")
    found = figures(
        [judge("s", truth, captions(*[(streamed, 1.0, 1.0)] * bool(streamed)), 0)],
        {"a": judge("offline", truth, offline, 0)},
    )
    assert found["unseen"] == unseen


def test_sets_keep_their_order():
    heard = [
        judge("s", reference("a", name=name, part=part), "a", 0) for name, part in (("1", "b"), ("2", "a"), ("3", "b"))
    ]
    assert {part: [each.recording for each in group] for part, group in by_set(heard).items()} == {
        "b": ["1", "3"],
        "a": ["2"],
    }
