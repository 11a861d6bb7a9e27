"""What goes into the next batch of an engine: finals first, nobody for ever, nothing twice, nothing lost."""

from hypothesis import given
from hypothesis import strategies as st

from streamer.cluster.waiting import PATIENCE, Waiting


def test_ends_of_utterances_go_first_and_others_by_age():
    waiting: Waiting[str] = Waiting()
    for name, urgent in (("a", False), ("b", True), ("c", False), ("d", True)):
        waiting.put(name, 1, urgent=urgent)
    assert waiting.take(3) == ["b", "d", "a"]
    assert waiting.take(3) == ["c"]
    assert not waiting


def test_who_is_passed_over_all_the_time_has_its_turn():
    waiting: Waiting[str] = Waiting()
    waiting.put("patient", 1, urgent=False)
    rounds = 0
    while waiting:
        waiting.put("urgent", 1, urgent=True)
        rounds += 1
        if waiting.take(1) == ["patient"]:
            break
    assert rounds == PATIENCE + 1


def test_one_that_costs_more_than_a_batch_goes_alone():
    waiting: Waiting[str] = Waiting()
    waiting.put("huge", 100, urgent=False)
    waiting.put("small", 1, urgent=False)
    assert waiting.take(10) == ["huge"]
    assert waiting.take(10) == ["small"]


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=40), st.integers(1, 12))
def test_everything_comes_once_in_batches_that_fit(places, most):
    waiting: Waiting[int] = Waiting()
    for number, (cost, urgent) in enumerate(places):
        waiting.put(number, cost, urgent=urgent)
    seen: list[int] = []
    while waiting:
        batch = waiting.take(most)
        assert batch
        assert len(batch) == 1 or sum(places[number][0] for number in batch) <= most
        seen += batch
    assert sorted(seen) == list(range(len(places)))
