"""Whose turn it is: finals first, then the oldest, and nobody is overtaken for ever."""

from hypothesis import given
from hypothesis import strategies as st

from streamer.runtime.order import OVERDUE_EVERY, OVERDUE_S, Waiting, in_turn

NOW_S = 100.0
WAITING = st.builds(Waiting, st.booleans(), st.floats(90, NOW_S))


def test_who_closes_comes_first_then_who_waits_longest():
    waiting = [Waiting(False, 99.5), Waiting(True, 99.9), Waiting(False, 99.1), Waiting(True, 99.7)]
    assert in_turn(waiting, NOW_S) == [3, 1, 2, 0]


def test_equals_keep_their_order():
    assert in_turn([Waiting(False, 99.0)] * 5, NOW_S) == [0, 1, 2, 3, 4]


def test_every_fourth_place_is_for_who_waits_too_long():
    closing = [Waiting(True, 99.0)] * 9
    overdue = [Waiting(False, NOW_S - OVERDUE_S), Waiting(False, 1.0), Waiting(False, 99.0)]
    assert in_turn(closing + overdue, NOW_S) == [0, 1, 2, 10, 3, 4, 5, 9, 6, 7, 8, 11]


@given(st.lists(WAITING, max_size=80))
def test_all_are_served_once_and_the_oldest_overdue_ones_soon(waiting):
    order = in_turn(waiting, NOW_S)
    assert sorted(order) == list(range(len(waiting)))
    overdue = sorted((one.since_s, place) for place, one in enumerate(waiting) if NOW_S - one.since_s >= OVERDUE_S)
    for rank, (_, place) in enumerate(overdue, start=1):
        assert order.index(place) < OVERDUE_EVERY * rank
    late = {place for _, place in overdue}
    assert [place for place in order if place not in late] == sorted(
        (place for place in range(len(waiting)) if place not in late),
        key=lambda place: (not waiting[place].closing, waiting[place].since_s),
    )
