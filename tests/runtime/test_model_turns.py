"""The model on loan: behind the live streams, in their thread, and never for ever."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from streamer.errors import EngineError
from streamer.runtime.model_turns import PATIENCE_S, Loans
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
