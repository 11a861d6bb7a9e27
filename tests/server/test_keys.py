"""Links that work once, and the cookies that they are exchanged for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.server.keys import CODE_S, COOKIE_S, MAX_CODES, Code, Keys

TOKEN = "a-long-token"


class Clock:
    now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_code_works_once_and_not_for_long():
    clock = Clock()
    keys = Keys(TOKEN, clock)
    one, two = keys.new_code(), keys.new_code()
    assert one != two
    assert TOKEN not in one
    assert [keys.use(one), keys.use(one)] == [Code.GOOD, Code.SPENT]
    clock.now_s += CODE_S
    assert keys.use(two) is Code.SPENT
    assert keys.use("") is keys.use("x" * 16) is Code.UNKNOWN


def test_only_the_newest_codes_are_remembered():
    keys = Keys(TOKEN, Clock())
    codes = [keys.new_code() for _ in range(MAX_CODES + 5)]
    assert keys.use(codes[0]) is Code.UNKNOWN
    assert keys.use(codes[5]) is keys.use(codes[-1]) is Code.GOOD


def test_a_cookie_outlives_a_restart_but_neither_its_time_nor_its_token():
    clock = Clock()
    cookie = Keys(TOKEN, clock).cookie()
    assert TOKEN not in cookie
    assert Keys(TOKEN, clock).opens(cookie)
    assert not Keys("another-token", clock).opens(cookie)
    clock.now_s += COOKIE_S
    assert not Keys(TOKEN, clock).opens(cookie)


def test_a_cookie_that_is_used_is_renewed_once_a_day_and_so_never_runs_out():
    clock = Clock()
    keys = Keys(TOKEN, clock)
    cookie, renewed = keys.cookie(), 0
    for _ in range(24 * 365):
        assert keys.opens(cookie)
        if keys.wants_renewal(cookie):
            cookie, renewed = keys.cookie(), renewed + 1
        clock.now_s += 3600
    assert renewed == pytest.approx(365, abs=20)


@given(text=st.text() | st.from_regex(r"[0-9]{1,14}\.[0-9a-f]{0,64}", fullmatch=True))
def test_nothing_else_opens(text):
    keys = Keys(TOKEN, Clock())
    assert not keys.opens(text)
    expiry, _, proof = keys.cookie().partition(".")
    assert not keys.opens(f"{int(expiry) + 1}.{proof}")
    assert not keys.opens(f"0{expiry}.{proof}")
