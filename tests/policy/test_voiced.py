import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.events.plans import HypothesisWord
from streamer.policy.voiced import placed


def word(start: int, end: int, attended: int) -> HypothesisWord:
    return HypothesisWord(" w", (1,), start, end, 0.9, attended)


def times(words) -> list[tuple[int, int]]:
    return [(w.start_sample, w.end_sample) for w in words]


def test_a_word_that_the_warp_left_at_the_windows_start_reaches_to_what_was_attended():
    assert times(placed((word(0, 0, 17_600),))) == [(0, 17_760)]
    assert times(placed((word(90_000, 92_000, 80_000),))) == [(80_000, 92_000)]


def test_a_word_ends_where_the_next_one_was_attended():
    assert times(placed((word(0, 9_000, 4_000), word(9_000, 9_000, 8_000)))) == [(0, 8_000), (8_000, 9_000)]


def test_good_times_stay():
    words = (word(1_000, 5_000, 4_000), word(6_000, 9_000, 8_000))
    assert placed(words) == words


@pytest.mark.parametrize("leap", [20_000, 100])
def test_attention_that_leaps_for_one_word_lies_between_its_neighbours(leap):
    """In "it was the spring of hope, it was the winter" an "it" is often attended where another one is."""
    words = (word(1_000, 2_000, 1_500), word(2_000, 3_000, leap), word(3_000, 4_000, 3_500), word(4_000, 5_000, 4_500))
    assert [w.attended_sample for w in placed(words)] == [1_500, min(3_500, max(1_500, leap)), 3_500, 4_500]


def test_attention_that_leaps_for_good_has_lost_its_place():
    words = tuple(word(at, at + 500, at + 200) for at in (20_000, 21_000, 3_000, 4_000))
    assert [w.attended_sample for w in placed(words)] == [20_200, 20_200, 4_200, 4_200]


SPOT = st.integers(0, 480_000)


@given(st.lists(st.tuples(SPOT, SPOT, SPOT), max_size=8))
def test_times_stay_in_order_whatever_the_attention_did(spots):
    words = placed(tuple(word(min(a, b), max(a, b), attended) for a, b, attended in spots))
    flat = [at for pair in times(words) for at in pair]
    assert flat == sorted(flat)
    assert len(words) == len(spots)


@given(st.lists(st.tuples(SPOT, SPOT), max_size=8), st.lists(SPOT, min_size=8, max_size=8, unique=True))
def test_attention_that_goes_forward_lies_in_the_words(spots, attended):
    words = placed(tuple(word(min(a, b), max(a, b), at) for (a, b), at in zip(spots, sorted(attended), strict=False)))
    assert all(w.start_sample <= w.attended_sample <= w.end_sample for w in words)
