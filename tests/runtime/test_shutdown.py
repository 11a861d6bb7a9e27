"""The end of the program: one deadline, and shares that fit into it.

That each way ends with finals, cleared alerts and `stopped`: `test_slow_step`, `test_worker`, `test_ingest_ending`.
"""

from hypothesis import given
from hypothesis import strategies as st

from streamer.runtime import shutdown
from streamer.runtime.shutdown import LEAST_S, LEAVE_S, Deadline, Interruption


def test_all_shares_together_fit_into_the_time_there_is():
    shares = ("LAST_WORDS_S", "WITHOUT_MODEL_S", "STEP_S", "TAKE_OVER_S", "DELIVERIES_S", "FILES_S")
    assert round(sum(getattr(shutdown, share) for share in shares) + LEAST_S, 6) <= LEAVE_S


@given(st.floats(0, 20), st.lists(st.floats(LEAST_S, 10), max_size=8))
def test_no_part_gets_more_than_its_share_nor_than_is_left(at_s, shares):
    now_s = [0.0]
    deadline = Deadline(at_s, lambda: now_s[0])
    for share_s in shares:
        given_s = deadline.within(share_s)
        assert LEAST_S <= given_s <= share_s
        assert given_s == LEAST_S or now_s[0] + given_s <= at_s + 1e-9
        now_s[0] += given_s


def test_where_nobody_waits_each_has_its_share():
    deadline = Deadline()
    assert not deadline.hurried
    assert deadline.within(10.0) == 10.0


def test_the_deadline_counts_from_the_first_time_that_the_end_is_asked_for():
    interruption = Interruption()
    assert not interruption.wait(0.0)
    assert not interruption.deadline.hurried
    interruption.ask()
    first = interruption.deadline
    interruption.ask()
    assert interruption.wait(0.0)
    assert first.hurried
    assert interruption.deadline is first
