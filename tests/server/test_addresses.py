"""What one address may take, and that the table stays small whatever comes."""

from hypothesis import given
from hypothesis import strategies as st

from streamer.server import addresses
from streamer.server.addresses import LOOPBACK_TRIES, MAX_KNOWN, TRIES, Addresses

FAR, HERE = "192.0.2.7", "127.0.0.1"
SOCKETS = 32


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_after_a_few_wrong_tokens_an_address_has_to_wait():
    clock = Clock()
    table = Addresses(clock, SOCKETS, 100)
    for _ in range(int(TRIES)):
        assert table.wait_s(FAR) == 0
        table.tried(FAR)
    assert table.wait_s(FAR) == 10
    assert table.wait_s("192.0.2.8") == 0  # who gave none
    clock.now_s += 10
    assert table.wait_s(FAR) == 0
    table.tried(FAR)
    assert table.wait_s(FAR) == 10


def test_loopback_has_more_tries_and_waits_less():
    table = Addresses(Clock(), SOCKETS, 100)
    for _ in range(int(LOOPBACK_TRIES)):
        assert table.wait_s(HERE) == 0
        table.tried(HERE)
    assert 0 < table.wait_s(HERE) <= 1


def test_sockets_of_one_address_are_bounded_and_come_back():
    table = Addresses(Clock(), SOCKETS, shared_sockets=50, proxies=frozenset({"10.0.0.1"}))
    for address, most in ((FAR, SOCKETS), (HERE, 50), ("10.0.0.1", 50)):
        assert [table.connect(address) for _ in range(most + 1)] == [True] * most + [False]
        table.disconnect(address)
        assert table.connect(address)


def test_places_of_one_address_are_bounded_for_each_kind_and_come_back():
    table = Addresses(Clock(), SOCKETS, 1000)
    assert [table.enter(HERE, "/ws", 48) for _ in range(49)] == [True] * 48 + [False]
    assert table.enter("127.0.0.2", "/ws", 48)
    assert table.enter(HERE, "/ingest", 128)  # another kind
    assert [table.enter(FAR, "/ws", 1000) for _ in range(SOCKETS + 1)] == [True] * SOCKETS + [False]
    table.leave(HERE, "/ws")
    assert table.enter(HERE, "/ws", 48)
    assert [table.enter("192.0.2.9", "/ws", 2) for _ in range(3)] == [True, True, False]


def test_a_network_of_ipv6_is_one_address():
    table = Addresses(Clock(), SOCKETS, 100)
    for number in range(int(TRIES)):
        table.tried(f"2001:db8::{number:x}")
    assert table.wait_s("2001:db8::ffff") > 0
    assert table.wait_s("2001:db8:0:1::1") == 0
    for _ in range(int(TRIES)):
        table.tried("::ffff:192.0.2.7")
    assert table.wait_s(FAR) > 0
    assert table.wait_s("unix") == 0


STEPS = st.tuples(st.integers(0, 40), st.sampled_from(("connect", "tried", "enter", "close")))


@given(steps=st.lists(STEPS, max_size=200))
def test_the_table_is_bounded_and_forgets_nobody_who_is_connected(steps):
    table, kept = Addresses(Clock(), SOCKETS, 100), addresses.MAX_KNOWN
    connected: dict[str, int] = {}
    try:
        addresses.MAX_KNOWN = 8
        for number, what in steps:
            address = f"192.0.2.{number}"
            if what == "connect":
                assert table.connect(address) == (connected.get(address, 0) < SOCKETS)
                connected[address] = min(SOCKETS, connected.get(address, 0) + 1)
            elif what == "tried":
                table.tried(address)
            elif what == "enter":
                if table.enter(address, "/ws", 4):
                    table.leave(address, "/ws")
            elif connected.get(address):
                table.disconnect(address)
                connected[address] -= 1
            assert len(table) <= max(8, sum(count > 0 for count in connected.values())) + 1
    finally:
        addresses.MAX_KNOWN = kept
    for address, count in connected.items():
        room = [table.connect(address) for _ in range(SOCKETS + 1)]
        assert room.count(True) == SOCKETS - count


def test_many_addresses_that_guess_leave_a_small_table():
    table = Addresses(Clock(), SOCKETS, 100)
    for number in range(3 * MAX_KNOWN):
        table.tried(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(table) == MAX_KNOWN
