from streamer.bench.captions import latencies, matches, read
from streamer.events import Transcript, Word


def transcript(at, text, partial="", *, segment=0, final=False, seq=1, ends=None):
    words = tuple(Word(word, 0.0, ends[place] if ends else 0.1, 0.9) for place, word in enumerate(text.split()))
    return (
        Transcript(
            session="s1",
            seq=seq,
            audio_t=at,
            segment=segment,
            start=0.0,
            end=at,
            text=text,
            partial=partial,
            final=final,
            words=words,
            language="en",
            speech_probability=1.0,
        ),
        at,
    )


def test_a_word_is_shown_when_it_first_stands_in_its_place():
    found = read([transcript(1.0, "", "four"), transcript(1.5, "four", "four two"), transcript(2.0, "four four nine")])
    assert [(word.word, word.committed_s, word.shown_s) for word in found.words] == [
        ("four", 1.5, 1.0),
        ("four", 2.0, 1.5),
        ("nine", 2.0, 2.0),
    ]


def test_what_went_from_the_partial_text_is_withdrawn_and_what_settled_is_not():
    found = read(
        [transcript(1.0, "", "one too"), transcript(1.5, "one", "two three"), transcript(2.0, "one two three")]
    )
    assert found.withdrawn == 1
    assert found.retractions == 0


def test_committed_text_that_changes_is_a_retraction():
    assert read([transcript(1.0, "one"), transcript(1.5, "two three")]).retractions == 1


def test_segments_do_not_mix():
    found = read(
        [transcript(1.0, "one", final=True), transcript(2.0, "", "two", segment=1), transcript(3.0, "two", segment=1)]
    )
    assert [(word.word, word.shown_s) for word in found.words] == [("one", 1.0), ("two", 2.0)]
    assert found.withdrawn == 0


def test_latency_is_from_the_true_end_of_words_that_were_heard_right():
    truth = [{"word": name, "start": end - 0.4, "end": end} for name, end in (("one", 1.0), ("two", 2.0), ("one", 3.0))]
    ends = [1.0, 2.8]
    events = [transcript(1.5, "one", ends=ends), transcript(2.5, "one", ends=ends)]
    found = read([*events, transcript(3.25, "one one", "one", ends=ends)])
    commits, partials = latencies(truth, found)
    assert commits == [0.5, 0.25]
    assert partials == [0.5, 0.25]


def test_matches_follow_the_cheapest_edit():
    assert list(matches(["a", "b", "c"], ["x", "a", "c"])) == [(0, 1), (2, 2)]
    assert list(matches([], ["a"])) == list(matches(["a"], [])) == []


def test_a_pair_that_is_far_apart_in_time_does_not_count():
    truth = [{"word": "one", "start": 0.6, "end": 1.0}]
    assert latencies(truth, read([transcript(9.0, "one", ends=[8.5])])) == ([], [])
