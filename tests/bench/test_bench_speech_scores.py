import pytest

from streamer.bench.speech_scores import Captions, CommittedWord, Reference, by_set, figures, judge_captions, judge_text
from streamer.measure.recordings import TrueWord
from streamer.measure.word_errors import WordErrors, plain_text


def reference(text, *, name="a", part="talk", seconds=10.0, words=()):
    return Reference(name, part, seconds, text, words, plain_text)


def captions(*words, withdrawn=0, retractions=0):
    """Words as (text, committed, shown)."""
    found = tuple(CommittedWord(*word) for word in words)
    return Captions(found, " ".join(word.text for word in found), withdrawn, retractions, 1, 1)


def test_a_stream_is_judged_by_words_moments_and_cost():
    truth = reference("One two three four.", words=tuple(TrueWord(w, t) for w, t in (("one", 1.0), ("three", 3.0))))
    written = captions(("One", 2.0, 1.0), ("too", 2.0, 2.0), ("three", 3.5, 3.0), withdrawn=2, retractions=1)
    heard = judge_captions("stream", truth, written, 5.0)
    assert heard.errors == WordErrors(words=4, substituted=1, lost=1)
    offline = judge_text("offline", truth, "one two three four", 1.0)
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
    heard = [judge_text("stream", long, "a b c d e f g h i", 0), judge_text("stream", short, "y", 0)]
    assert figures(heard, {})["wer"] == pytest.approx(0.1)
    assert figures(heard, {})["over_offline"] is None


def test_what_is_written_where_nobody_speaks_counts_by_the_minute_and_not_as_word_errors():
    quiet = reference("", name="q", part="sounds/dog", seconds=30.0)
    speech = reference("a b", seconds=10.0)
    heard = [judge_text("s", quiet, "Fire! Fire!", 100.0), judge_text("s", speech, "a b", 5.0)]
    found = figures(heard, {})
    assert (found["invented_per_minute"], found["invented_in_quiet"], found["quiet_recordings"]) == (4.0, 2, 1)
    assert (found["wer"], found["invented"], found["processor_s_per_s"]) == (0.0, 0, 0.5)
    assert figures([judge_text("s", quiet, "", 0)], {})["invented_per_minute"] == 0.0


@pytest.mark.parametrize(
    ("offline", "streamed", "unseen"),
    [("a b c", "", 1), ("a b", "", 1), ("a", "", 0), ("", "", 0), ("a b c", "x", 0)],
)
def test_unseen_is_what_offline_reads_and_the_stream_never_writes(offline, streamed, unseen):
    truth = reference("a b c")
    found = figures(
        [judge_captions("s", truth, captions(*[(streamed, 1.0, 1.0)] * bool(streamed)), 0)],
        {"a": judge_text("offline", truth, offline, 0)},
    )
    assert found["unseen"] == unseen


def test_sets_keep_their_order():
    heard = [
        judge_text("s", reference("a", name=name, part=part), "a", 0)
        for name, part in (("1", "b"), ("2", "a"), ("3", "b"))
    ]
    assert {part: [each.recording for each in group] for part, group in by_set(heard).items()} == {
        "b": ["1", "3"],
        "a": ["2"],
    }
