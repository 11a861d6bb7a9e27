"""How many senders are taken, on machines that carry few and many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.runtime.admission import FULL, KNOWN_S, MEASURE_S, SOON_S, UNMEASURED, Admission


class Machine:
    """A worker that needs `cost` seconds for a second of each stream's sound, and a scripted clock."""

    def __init__(self, cost: float) -> None:
        self.cost, self.now_s, self.opened_s = cost, 0.0, []
        self.admission = Admission()

    def ask(self, *, slowed: bool = False) -> str | None:
        refusal = self.admission.refusal([self.now_s - at for at in self.opened_s], 0.0, slowed=slowed)
        if refusal is None:
            self.opened_s.append(self.now_s)
        return refusal

    def work(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.5)):
            sound_s = min(0.5 * len(self.opened_s), 0.5 / self.cost)  # the rest waits
            self.admission.stepped(sound_s * self.cost, sound_s)
            self.now_s += 0.5


def test_of_128_that_come_at_once_a_few_are_taken_until_it_is_known_what_they_cost():
    machine = Machine(cost=0.3)  # carries two
    refusals = [machine.ask() for _ in range(128)]
    assert refusals.count(None) == UNMEASURED
    assert refusals[-1] == f"full: what 4 new streams cost is being measured; try in {SOON_S} s"
    machine.work(MEASURE_S)
    assert machine.ask() == "full: this machine carries 2 streams; try in 30 s"


@pytest.mark.parametrize(("cost", "carries"), [(0.001, 128), (0.01, 85), (0.05, 17), (0.1, 8)])
def test_those_who_come_again_find_as_many_places_as_the_machine_has(cost, carries):
    machine = Machine(cost)
    for _ in range(10):
        for _ in range(128 - len(machine.opened_s)):
            machine.ask()
        machine.work(MEASURE_S + 1)
    assert len(machine.opened_s) == min(128, carries)


def test_a_sender_that_is_faster_than_real_time_costs_no_more():
    machine = Machine(cost=0.1)
    machine.opened_s.append(0.0)
    machine.now_s = 100.0
    for _ in range(20):
        machine.admission.stepped(0.5, 5.0)  # busy all the time, with ten times as much sound
    assert machine.admission.places == 8
    assert machine.ask() is None


def test_nobody_is_taken_while_those_that_are_there_come_late():
    admission = Admission()
    assert admission.refusal([], 0.0, slowed=False) is None
    assert "cannot keep up" in (admission.refusal([60.0], 0.0, slowed=True) or "")
    assert "cannot keep up" in (admission.refusal([60.0], 3.1, slowed=False) or "")
    assert admission.refusal([60.0], 2.9, slowed=False) is None


def test_it_follows_what_changes():
    machine = Machine(cost=0.01)  # they are quiet
    machine.opened_s = [0.0] * 4
    machine.work(60)
    assert machine.admission.places >= 80
    machine.cost = 0.2  # all speak
    machine.work(60)
    assert machine.admission.places == 4


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 30)), max_size=50))
def test_there_is_always_a_place_for_the_first_and_reasons_fit_a_close_frame(rounds):
    admission = Admission()
    for took_s, sound_s in rounds:
        admission.stepped(took_s, sound_s)
    assert admission.refusal([], 0.0, slowed=False) is None
    assert admission.places is None or 1 <= admission.places <= FULL / 1e-3
    for ages in ([0.0] * 128, [100.0] * 128):
        assert len(admission.refusal(ages, 0.0, slowed=False) or "") <= 123
    assert KNOWN_S > 0
