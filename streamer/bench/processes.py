"""Independent attempts shared out to processes of their own, each with something prepared once."""

import multiprocessing as mp
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
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
