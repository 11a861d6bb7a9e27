import pytest

from streamer.events import Status, Transcript
from streamer.server.replay import Entry, History


def status(seq: int) -> Entry:
    return Entry.of(Status(session="s", seq=seq, audio_t=0.0, state="listening"))


def transcript(seq: int, segment: int, text: str = "") -> Entry:
    return Entry.of(
        Transcript(
            session="s",
            seq=seq,
            audio_t=0.0,
            segment=segment,
            start=0.0,
            end=0.0,
            text=text,
            partial="",
            final=False,
            words=(),
            language="en",
            speech_probability=1.0,
        )
    )


def test_keeps_at_most_its_bound_and_says_what_is_gone():
    history = History(max_events=8, max_bytes=10**6)
    for seq in range(1, 30):
        history.append(status(seq))
    kept = [entry.seq for entry in history.after(-1)]
    assert len(kept) <= 8
    assert kept == list(range(history.oldest_seq, 30))
    assert history.lost_after(-1, None) == (1, history.oldest_seq - 1)
    assert history.lost_after(5, {"status"}) == (6, history.oldest_seq - 1)
    assert history.lost_after(5, {"alert"}) is None
    assert history.lost_after(history.oldest_seq - 1, None) is None


def test_superseded_transcripts_go_first_and_are_no_loss():
    history = History(max_events=8, max_bytes=10**6)
    history.append(status(1))
    for seq in range(2, 40):
        history.append(transcript(seq, segment=1))
    assert history.oldest_seq == 1
    assert history.lost_after(-1, None) is None
    assert [entry.seq for entry in history.after(-1) if not history.superseded(entry)] == [1, 39]


def test_bytes_are_bounded_and_the_newest_stays():
    history = History(max_events=1000, max_bytes=5000)
    for seq in range(1, 50):
        history.append(transcript(seq, segment=seq, text="x" * 900))
    assert sum(entry.size for entry in history.after(-1)) <= 5000
    history.append(transcript(50, segment=50, text="x" * 90_000))
    assert [entry.seq for entry in history.after(-1)] == [50]


def test_a_number_that_does_not_grow_is_refused():
    history = History(8, 1000)
    history.append(status(3))
    with pytest.raises(ValueError, match="seq"):
        history.append(status(3))


def test_lone_surrogates_can_be_sent():
    Entry.of(Status(session="s", seq=1, audio_t=0.0, state="degraded", detail="\ud800")).text.encode()
