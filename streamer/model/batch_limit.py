"""How many windows the model takes at once: as many as the device's memory holds.

The engine's, on its thread. Memory may be short from the start, or become so while other programs share the device:
then the windows are done in smaller batches rather than not at all.
"""

import logging
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import partial
from typing import TypeVar

import torch

from streamer.errors import DeviceFailed
from streamer.model.graphs import BATCH_BUCKETS, buckets_up_to
from streamer.model.memory import does_not_hold, hand_back, ran_out_of_memory

Item = TypeVar("Item")

MAX_BATCH = BATCH_BUCKETS[-1]  # windows in one batch: bounds the memory of a step

log = logging.getLogger(__name__)


class Recording(Enum):
    """ON; OFF: no more, since memory is short; NEVER: on this device nothing is recorded."""

    ON = auto()
    OFF = auto()
    NEVER = auto()


class BatchLimit:
    """`rows`: the windows that go through the model at once.  `reductions`: how often memory ran out.

    Each time, all that is kept for later (recorded work, the KV cache) is released and the next smaller bucket of
    rows is tried, down to one window; then that without recording, which takes more memory. So it stays until the
    program ends. `release(record)` releases it; where `record` is false, for good.
    """

    def __init__(self, name: str, device: torch.device, release: Callable[[bool], None], *, records: bool) -> None:
        self.rows = MAX_BATCH
        self.reductions = 0
        self._name, self._device, self._release = name, device, release
        self._recording = Recording.ON if records else Recording.NEVER
        self._announced = 0  # reductions that were told of

    def run(self, items: Sequence[Item], work: Callable[[Sequence[Item]], object]) -> None:
        """Do the work on all items in order, in batches that fit.

        What memory ran out for is done anew: `work` must leave its findings only when it is through.

        Raises:
            DeviceFailed: not even one item fits.
        """
        begin = 0
        while begin < len(items):
            batch = items[begin : begin + self.rows]
            if self.try_rows(len(batch), partial(work, batch)):
                begin += len(batch)

    def try_rows(self, rows: int, work: Callable[[], object]) -> bool:
        """Do work on so many rows; False where memory ran out, and `rows` is less now.

        Raises:
            DeviceFailed: it ran out for one row and nothing is left to be released.
        """
        detail = _attempt(work)
        if detail is None:  # what the failed work held is free only here, outside of its error's reach
            return True
        if rows == self.rows == 1 and self._recording is not Recording.ON:
            raise DeviceFailed(does_not_hold(f"one window of the model {self._name}", self._device, detail))
        self._reduce(min(self.rows, rows) if rows > 1 else self.rows)
        return False

    def _reduce(self, tried: int) -> None:
        """Release what is kept and take fewer rows than those that were tried; where that was one, record no more."""
        if tried == 1 and self._recording is Recording.ON:
            log.debug("batch limit of %s: recording %s -> %s", self._name, self._recording.name, Recording.OFF.name)
            self._recording = Recording.OFF
        self.rows = _fewer_than(tried)
        self.reductions += 1
        self._release(self._recording is Recording.ON)
        hand_back(self._device)

    def announce(self) -> None:
        """Say once what became of the batches, if anything did since the last time."""
        if self.reductions != self._announced:
            self._announced = self.reductions
            log.warning(
                "the memory of %s is short: the model %s takes at most %d of %d windows together from now on%s",
                self._device,
                self._name,
                self.rows,
                MAX_BATCH,
                ", and its work is no longer recorded" if self._recording is Recording.OFF else "",
            )


def _fewer_than(rows: int) -> int:
    """The largest bucket below so many rows; 1 where there is none."""
    return buckets_up_to(max(rows - 1, 1))[0]


def _attempt(work: Callable[[], object]) -> str | None:
    """None when the work was done; what was said where memory ran out for it."""
    try:
        work()
    except RuntimeError as error:
        if not ran_out_of_memory(error):
            raise
        return str(error)
    return None
