from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.audio.link import DAMAGED, DRIFTS, Before, Evidence, Missing, Timeline

RATE, FRAME = 48_000, 960  # 20 ms
NONE = Evidence()


def play(timeline: Timeline, stamps_ms: list[float], evidence: Evidence = NONE) -> list[Before]:
    """Frames of 20 ms at these times, of which the last has the evidence."""
    last = len(stamps_ms) - 1
    return [
        timeline.place(Fraction(stamp) / 1000, FRAME, RATE, evidence if number == last else NONE)
        for number, stamp in enumerate(stamps_ms)
    ]


def missing(found: list[Before]) -> list[tuple[Missing, int]]:
    return [(before.missing, before.frames) for before in found if before.frames]


def test_frames_that_follow_one_another_have_nothing_between_them():
    assert missing(play(Timeline(), [number * 20 for number in range(100)])) == []


@pytest.mark.parametrize("origin_ms", [0, 1_400])
def test_a_track_that_begins_late_begins_with_silence(origin_ms):
    timeline = Timeline(Fraction(origin_ms, 1000))
    (before,) = play(timeline, [origin_ms + 5_000])
    assert before == Before(Missing.SILENCE, 5 * RATE)
    assert timeline.lead == 5


def test_a_beginning_that_could_not_be_read_is_lost():
    assert missing(play(Timeline(Fraction(0)), [300], Evidence(broken=3))) == [(Missing.LOST, 14_400)]


def test_a_track_that_begins_before_the_container_begins_the_clock():
    timeline = Timeline(Fraction(0))
    assert missing(play(timeline, [-60, -40, -20, 0])) == []
    assert timeline.elapsed == Fraction(8, 100)


def test_a_hole_is_silence_where_the_encoder_leaves_pauses_out_and_else_a_loss():
    assert missing(play(Timeline(), [0, 20, 200], Evidence(pause=True))) == [(Missing.SILENCE, 160 * 48)]
    (lost,) = play(Timeline(), [0, 20, 200])[2:]
    assert lost == Before(Missing.LOST, 160 * 48, DAMAGED)


@pytest.mark.parametrize("evidence", [Evidence(broken=1, pause=True), Evidence(damaged=True, pause=True)])
def test_damage_is_a_loss_even_where_pauses_are_left_out(evidence):
    assert missing(play(Timeline(), [0, 20, 200], evidence)) == [(Missing.LOST, 160 * 48)]


def test_a_clock_that_drifts_is_kept_to_with_a_little_silence_and_one_line():
    timeline = Timeline()
    found = play(timeline, [number * 20.02 for number in range(20_000)])  # 0.1 % in 400 s
    assert {before.missing for before in found} == {Missing.NOTHING, Missing.SILENCE}
    assert [before.notice for before in found if before.notice] == [DRIFTS]
    assert abs(float(timeline.elapsed) - 20_000 * 0.02002) < 0.021


def test_a_drift_of_a_few_milliseconds_is_not_worth_a_word():
    found = play(Timeline(), [number * 20.001 for number in range(3_000)])
    assert [before.notice + before.complaint for before in found if before.notice or before.complaint] == []


@given(st.lists(st.floats(-30, 30), min_size=50, max_size=300))
def test_timestamps_that_jitter_neither_lose_nor_add_time(offsets):
    timeline = Timeline()
    found = play(timeline, [0, *(20 * number + offset for number, offset in enumerate(offsets, 1))])
    assert abs(float(timeline.elapsed) - 0.02 * (len(offsets) + 1)) <= 0.061
    assert sum(before.frames for before in found) <= 61 * 48


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200))
def test_times_rounded_to_a_millisecond_are_kept(skips):
    """Of frames of 20 ms some were not sent: each comes at its place."""
    timeline, at = Timeline(Fraction(0)), 0
    for skip in skips:
        at += 20 * skip
        before = timeline.place(Fraction(round(at + 0.4)) / 1000, FRAME, RATE, Evidence(pause=True))
        assert before.missing is not Missing.LOST
        at += 20
        assert abs(float(timeline.elapsed) - at / 1000) <= 0.0211


def test_clocks_that_start_again_go_on_and_long_jumps_are_told():
    timeline = Timeline()
    found = play(timeline, [0, 20, 40, 0, 20, 40])
    assert missing(found) == []
    assert timeline.elapsed == Fraction(120, 1000)
    (jump,) = play(Timeline(), [0, 20, 5_000_000])[2:]
    assert jump.frames == 0
    assert "jump" in jump.complaint


def test_formats_without_times_have_holes_only_where_packets_broke():
    assert missing(play(Timeline(stamped=False), [0, 20, 200])) == []
    assert missing(play(Timeline(stamped=False), [0, 20, 200], Evidence(broken=1))) == [(Missing.LOST, 160 * 48)]


def test_frames_without_a_time_follow_the_last_one():
    timeline = Timeline(Fraction(0))
    assert timeline.place(None, FRAME, RATE) == Before()
    assert timeline.elapsed == Fraction(20, 1000)
    assert np.isclose(float(timeline.elapsed), 0.02)
