import pytest

from streamer.events import Status, Transcript
from streamer.server.replay import Entry, Replay


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
    replay = Replay(max_events=8, max_bytes=10**6)
    for seq in range(1, 30):
        replay.append(status(seq))
    kept = [entry.seq for entry in replay.after(-1)]
    assert len(kept) <= 8
    assert kept == list(range(replay.oldest_seq, 30))
    assert replay.lost_after(-1, None) == (1, replay.oldest_seq - 1)
    assert replay.lost_after(5, {"status"}) == (6, replay.oldest_seq - 1)
    assert replay.lost_after(5, {"alert"}) is None
    assert replay.lost_after(replay.oldest_seq - 1, None) is None


def test_superseded_transcripts_go_first_and_are_no_loss():
    replay = Replay(max_events=8, max_bytes=10**6)
    replay.append(status(1))
    for seq in range(2, 40):
        replay.append(transcript(seq, segment=1))
    assert replay.oldest_seq == 1
    assert replay.lost_after(-1, None) is None
    assert [entry.seq for entry in replay.after(-1) if not replay.superseded(entry)] == [1, 39]


def test_bytes_are_bounded_and_the_newest_stays():
    replay = Replay(max_events=1000, max_bytes=5000)
    for seq in range(1, 50):
        replay.append(transcript(seq, segment=seq, text="x" * 900))
    assert sum(entry.size for entry in replay.after(-1)) <= 5000
    replay.append(transcript(50, segment=50, text="x" * 90_000))
    assert [entry.seq for entry in replay.after(-1)] == [50]


def test_a_number_that_does_not_grow_is_refused():
    replay = Replay(8, 1000)
    replay.append(status(3))
    with pytest.raises(ValueError, match="seq"):
        replay.append(status(3))


def test_lone_surrogates_can_be_sent():
    Entry.of(Status(session="s", seq=1, audio_t=0.0, state="degraded", detail="\ud800")).text.encode()
