"""The model, one use of it at a time: steps that are taken over or never end; loans, behind the live streams."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from streamer.errors import EngineError
from streamer.runtime.model_turns import HANG_TIMES, PATIENCE_S, Loans, ModelTurns, Phase, TakenOver
from streamer.runtime.worker import Worker


def test_the_oldest_is_first_and_waits_for_the_live_streams_only_so_long():
    loans = Loans()
    first, second = loans.ask(lambda: 1, 0.0), loans.ask(lambda: 2, 1.0)
    assert loans.take(PATIENCE_S - 0.1, others_wait=True) is None
    loan = loans.take(PATIENCE_S, others_wait=True)
    assert loan is not None
    loan.carry_out()
    assert (first.result(0), second.done()) == (1, False)
    assert loans.take(PATIENCE_S, others_wait=True) is None
    assert loans.take(PATIENCE_S, others_wait=False) is not None
    assert not loans


def worker() -> Worker:
    engine: Any = SimpleNamespace()
    return Worker(engine)


def test_the_workers_thread_does_it_and_hands_back_what_comes_of_it():
    one = worker()
    one.start()
    assert one.lend(lambda: threading.current_thread().name) == "worker"

    def fail() -> None:
        raise ValueError("of the borrower")

    with pytest.raises(ValueError, match="of the borrower"):
        one.lend(fail)
    assert one.lend(lambda: 3) == 3  # the thread lives
    assert one.failure is None
    assert one.stop(10)


def test_at_the_end_nobody_waits_for_ever():
    one, at_work, go_on = worker(), threading.Event(), threading.Event()
    one.start()
    got: list[Any] = []

    def borrow(work: Any) -> None:
        try:
            got.append(one.lend(work))
        except EngineError as error:
            got.append(str(error))

    def long() -> str:
        at_work.set()
        assert go_on.wait(10)
        return "done"

    threads = [threading.Thread(target=borrow, args=(work,)) for work in (long, lambda: "never")]
    threads[0].start()
    assert at_work.wait(10)
    threads[1].start()
    assert not one.stop(0.0)
    assert one.take_over(10)  # as where a step takes too long: who waits is told at once, not after it
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert sorted(got) == ["done", "the program ends"]
    with pytest.raises(EngineError, match="the program ends"):
        one.lend(lambda: 1)


class Turns:
    """The turns at an engine that does what the test says, by a clock that the test moves."""

    def __init__(self, *steps: Any) -> None:
        self.now_s, self.ready, left = 0.0, threading.Condition(), iter(steps)
        engine: Any = SimpleNamespace(step=lambda work: next(left)(self) or ["found"])
        self.turns = ModelTurns(engine, lambda: engine, self.ready, lambda: self.now_s)


def test_what_a_turn_finds_is_not_used_once_another_thread_has_the_sessions():
    def taken(one: Turns) -> None:
        with one.ready:
            one.turns.enter(Phase.TAKEN)

    def replaced(one: Turns) -> None:
        one.turns.new_owner()

    for lost in (taken, replaced):
        one = Turns(lost)
        with pytest.raises(TakenOver):
            one.turns.step([])
    assert Turns(lambda one: None).turns.step([]) == ["found"]


def test_a_turn_never_ends_that_takes_far_longer_than_any_before():
    seen: list[tuple[float, bool]] = []

    def takes(seconds: float) -> Any:
        def step(one: Turns) -> None:
            one.now_s += seconds
            seen.append((one.turns.taken_s, one.turns.never_ends(10.0)))

        return step

    lengths_s = (9.0, 10.0, HANG_TIMES * 10.0 - 1.0, HANG_TIMES * (HANG_TIMES * 10.0 - 1.0))
    one = Turns(*map(takes, lengths_s))
    for _ in lengths_s:
        one.turns.step([])
    assert seen == [(9.0, False), (10.0, False), (39.0, False), (156.0, True)]
    assert one.turns.taken_s == 0.0
