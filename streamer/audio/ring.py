"""The ring between the capture thread, its only writer, and the listener thread, its only reader.

Positions are absolute 16 kHz sample indices on the capture clock; they never wrap. Full-queue rule: the oldest samples
go, the writer never waits (unless it asks to, with `wait_for_room`), and `read` names what the reader came too late
for.
"""

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OVERRUN = "the listener was too slow"


@dataclass(frozen=True, slots=True)
class Lost:
    """The samples [start_sample, end_sample) are not what was heard: they read as zeros."""

    start_sample: int
    end_sample: int
    reason: str


@dataclass(frozen=True, slots=True)
class RingRead:
    """Float32 samples [n] from `start_sample` on; `lost`, in order and disjoint, says which of them are only zeros."""

    start_sample: int
    samples: NDArray[np.float32]
    lost: tuple[Lost, ...] = ()


class RingBuffer:
    """The last `capacity_samples` of sound; memory is taken once, here. One writer and one reader thread."""

    def __init__(self, capacity_samples: int) -> None:
        if capacity_samples <= 0:
            raise ValueError(f"capacity_samples {capacity_samples}: must be above 0")
        self.capacity_samples = capacity_samples
        self._data = np.zeros(capacity_samples, np.float32)
        self._end = 0
        self._released = 0
        self._losses: deque[Lost] = deque()
        self._ended = False
        self._changed = threading.Condition()

    @property
    def end(self) -> int:
        """Index behind the newest sample: how far the capture clock has come."""
        return self._end

    @property
    def oldest(self) -> int:
        """Index of the oldest sample that is still there."""
        return max(0, self._end - self.capacity_samples)

    @property
    def ended(self) -> bool:
        """Whether the writer said that nothing more comes."""
        return self._ended

    def write(self, samples: NDArray[np.float32]) -> None:
        """Append float32 [n]; never waits for the reader."""
        with self._changed:
            kept = samples[-self.capacity_samples :]
            self._place(self._end + len(samples) - len(kept), kept)
            self._advance(len(samples))

    def lost(self, count: int, reason: str) -> None:
        """`count` samples went missing: the clock advances over them and they read as zeros."""
        if count < 0:
            raise ValueError(f"count {count}: must not be negative")
        if count == 0:
            return
        with self._changed:
            start, end = self._end, self._end + count
            if self._losses and self._losses[-1].end_sample == start and self._losses[-1].reason == reason:
                start = self._losses.pop().start_sample
            self._losses.append(Lost(start, end, reason))
            kept = min(count, self.capacity_samples)
            self._place(end - kept, np.zeros(kept, np.float32))
            self._advance(count)

    def finish(self) -> None:
        """Nothing more comes: whoever waits is woken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def read(self, start: int, end: int) -> RingRead:
        """The samples [start, end), copied; those that are gone or were lost are zeros and named in `lost`.

        Raises ValueError when the range is reversed or reaches beyond `end`.
        """
        with self._changed:
            if not 0 <= start <= end <= self._end:
                raise ValueError(f"range {start}..{end}: must lie within 0..{self._end}")
            oldest = self.oldest
            samples = np.zeros(end - start, np.float32)
            there = max(start, min(oldest, end))
            self._copy(there, samples[there - start :])
            gone = (Lost(start, there, OVERRUN),) if there > start else ()
            cuts = (Lost(max(one.start_sample, there), min(one.end_sample, end), one.reason) for one in self._losses)
            return RingRead(start, samples, gone + tuple(cut for cut in cuts if cut.start_sample < cut.end_sample))

    def release(self, sample: int) -> None:
        """The reader is done with everything before `sample`; only a writer in `wait_for_room` looks at it."""
        with self._changed:
            self._released = max(self._released, sample)
            self._changed.notify_all()

    def wait_until(self, sample: int, timeout_s: float | None = None) -> bool:
        """Wait until the samples before `sample` are there; False after `timeout_s`, or when the input ended short."""
        with self._changed:
            self._changed.wait_for(lambda: self._end >= sample or self._ended, timeout_s)
            return self._end >= sample

    def wait_for_room(self, count: int, timeout_s: float | None = None) -> bool:
        """Wait until `count` samples fit without pushing out what was not released; False after `timeout_s`.

        For input that may wait for its reader. More than the capacity never fits (ValueError).
        """
        if count > self.capacity_samples:
            raise ValueError(f"count {count}: must be at most the capacity, {self.capacity_samples}")
        with self._changed:
            return self._changed.wait_for(lambda: self._room() >= count or self._ended, timeout_s) and (
                self._room() >= count
            )

    def _room(self) -> int:
        return self.capacity_samples - (self._end - min(self._released, self._end))

    def _advance(self, count: int) -> None:
        self._end += count
        while self._losses and self._losses[0].end_sample <= self.oldest:
            self._losses.popleft()
        self._changed.notify_all()

    def _place(self, at: int, samples: NDArray[np.float32]) -> None:
        slot = at % self.capacity_samples
        first = min(len(samples), self.capacity_samples - slot)
        self._data[slot : slot + first] = samples[:first]
        self._data[: len(samples) - first] = samples[first:]

    def _copy(self, at: int, target: NDArray[np.float32]) -> None:
        slot = at % self.capacity_samples
        first = min(len(target), self.capacity_samples - slot)
        target[:first] = self._data[slot : slot + first]
        target[first:] = self._data[: len(target) - first]
