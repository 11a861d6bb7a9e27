"""Much work of one kind on a cluster: as many workers as engines are asked for, each made once, one item at a time.

An item whose worker was lost is done again by another; what the work itself raises is its result. Nothing is kept here
of what was done: whoever has the items leaves out those whose results are there.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from streamer.cluster.connect import connect, lost
from streamer.errors import EngineError, StreamerError
from streamer.settings.cluster import ClusterSettings

TRIES = 3  # of an item that its workers do not outlive
ANSWER_S = 1.0

Item = TypeVar("Item")
Result = TypeVar("Result")
Make = Callable[[int], Callable[[Item], Result]]  # makes a worker, which may use so many CPUs


class _Worker(Generic[Item, Result]):
    """Runs in a process of the cluster."""

    def __init__(self, make: "Make[Item, Result]", cpus: int) -> None:
        self._work = make(cpus)

    def do(self, item: Item) -> Result:
        return self._work(item)


def spread(
    settings: ClusterSettings, make: "Make[Item, Result]", items: Sequence[Item]
) -> Iterator[tuple[Item, Result | StreamerError]]:
    """Do all items, in any order; each with its result as it comes, or why there is none. Raises UsageError: no Ray.

    `make` and the items travel as pickles: code that is not installed on the other machines cannot.
    """
    ray, _ = connect(settings)
    try:
        kind = ray.remote(_Worker).options(num_cpus=settings.cpus, num_gpus=settings.gpus, max_restarts=-1)
        count = min(settings.max_replicas or settings.replicas, len(items))
        idle = deque(kind.remote(make, settings.cpus) for _ in range(count))
        waiting = deque((item, 1) for item in items)
        busy: dict[Any, tuple[Any, Item, int]] = {}
        while waiting or busy:
            while waiting and idle:
                worker, (item, tries) = idle.popleft(), waiting.popleft()
                busy[worker.do.remote(item)] = worker, item, tries
            done, _ = ray.wait(list(busy), timeout=ANSWER_S)
            for answer in done:
                worker, item, tries = busy.pop(answer)
                idle.append(worker)
                try:
                    yield item, ray.get(answer)
                except Exception as error:  # noqa: BLE001  whatever became of the worker
                    if lost(error) and tries < TRIES:
                        waiting.appendleft((item, tries + 1))
                    else:
                        yield item, _failure(error)
    finally:
        ray.shutdown()


def _failure(error: BaseException) -> StreamerError:
    """What the work raised, or that no worker outlived it."""
    if isinstance(error, StreamerError):
        return error
    return EngineError(f"{type(error).__name__}: {error}".partition("\n")[0])
