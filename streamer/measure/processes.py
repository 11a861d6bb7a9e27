"""Other processes of a bench: attempts shared out, each with something prepared once; and some that are in the way."""

import multiprocessing as mp
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from streamer.errors import UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")


def as_done(
    attempt: Callable[[Item], Result],
    wanted: Sequence[Item],
    processes: int,
    prepare: Callable[..., None],
    given: tuple[Any, ...],
) -> Iterator[tuple[int, Result]]:
    """The place of each item in `wanted` and what its attempt gave, as they are done.

    `prepare(*given)` runs once in every process before its first attempt; with one process, or one item, in this one.
    Raises UsageError when a process was ended from outside. However it ends, what was not begun is left undone.
    """
    if processes == 1 or len(wanted) < 2:
        if wanted:
            prepare(*given)
        yield from enumerate(map(attempt, wanted))
        return
    with ProcessPoolExecutor(processes, mp.get_context("spawn"), prepare, given) as pool:
        places = {pool.submit(attempt, item): place for place, item in enumerate(wanted)}
        try:
            for done in as_completed(places):
                yield places[done], done.result()
        except BrokenProcessPool:
            raise UsageError("--processes: one was ended from outside; give the same command again") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def spinning(processes: int) -> Iterator[None]:
    """That many processes that do nothing, busily."""
    children = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()
