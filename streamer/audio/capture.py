"""What lies between the device's callback and the thread that reads: a bounded buffer of native sound, with its losses.

The callback's thread owns `push`, the reading thread owns `pop`; every counter has one writer, so neither waits.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.audio.mixing import Mixer

_SETTLE_S = 2.0  # a gap is measured when callbacks come at their own pace again, at the latest after so much sound
FULL = "the capture thread was too slow"
OVERFLOW = "the device overflowed"


@dataclass(frozen=True, slots=True)
class Missing:
    """`frames` native samples that never came, and why."""

    frames: int
    reason: str


@dataclass(slots=True)
class _Gap:
    """A loss whose length only the clock knows: nothing was heard from `since_s` on; `frames` came afterwards."""

    position: int
    since_s: float
    reason: str
    frames: int = 0


class CaptureBuffer:
    """Native frames [n, channels] in, mono float32 [n] and `Missing` out.

    Full-buffer rule: a block that does not fit is dropped whole and counted to the frame. A device that overflows does
    not say how much it lost: the clock does, measured once the blocks that it still held have come in.
    `silent_since_s`: when the device was last heard by its predecessor; the time until the first block is a loss.
    """

    def __init__(
        self, rate: int, channels: int, capacity_s: float, silent_since_s: float | None = None, away: str = ""
    ) -> None:
        self.rate = rate
        self._mixer = Mixer(rate)
        self._capacity = max(1, round(rate * capacity_s))
        self._data = np.zeros((self._capacity, channels), np.float32)
        self._written = self._read = 0
        self._losses: deque[tuple[int, Missing]] = deque()
        self._gap = None if silent_since_s is None else _Gap(0, silent_since_s, away)
        self.last_arrival_s: float | None = None

    def push(self, frames: NDArray[np.float32], arrived_s: float, overflowed: bool = False) -> None:
        """Called by the device: copy `frames` [n, channels], which were complete at `arrived_s`."""
        count = len(frames)
        before_s, self.last_arrival_s = self.last_arrival_s, arrived_s
        if overflowed and self._gap is None and before_s is not None:
            self._gap = _Gap(self._written, before_s, OVERFLOW)
        fits = count <= self._capacity - (self._written - self._read)
        if self._gap is not None:
            self._measure(self._gap, count, before_s, arrived_s, decide=not fits)
        if not fits:
            self._losses.append((self._written, Missing(count, FULL)))
            return
        slot = self._written % self._capacity
        first = min(count, self._capacity - slot)
        self._data[slot : slot + first] = frames[:first]
        self._data[: count - first] = frames[first:]
        self._written += count

    def pop(self) -> list[NDArray[np.float32] | Missing]:
        """Everything that is certain by now, in order; sound behind a gap waits until the gap is measured."""
        gap = self._gap
        end = self._written if gap is None else gap.position
        out: list[NDArray[np.float32] | Missing] = []
        while self._losses and self._losses[0][0] <= end:
            position, missing = self._losses.popleft()
            out += self._take(position)
            out.append(missing)
        return out + self._take(end)

    def take_notice(self) -> str:
        """What the mix of the channels has to tell people, once; else nothing. For the thread that pops."""
        return self._mixer.take_notice()

    def settle(self) -> None:
        """The device is closed: measure an open gap by what came, so that `pop` hands out everything."""
        if self._gap is not None and self._gap.frames and self.last_arrival_s is not None:
            self._close_gap(self._gap, self.last_arrival_s)

    def _measure(self, gap: _Gap, count: int, before_s: float | None, arrived_s: float, *, decide: bool) -> None:
        """Close the gap when this block came at its own pace, not in the burst of what the device still held."""
        own_pace = gap.frames > 0 and before_s is not None and arrived_s - before_s >= 0.5 * count / self.rate
        gap.frames += count
        if decide or own_pace or gap.frames > _SETTLE_S * self.rate:
            self._close_gap(gap, arrived_s)

    def _close_gap(self, gap: _Gap, arrived_s: float) -> None:
        frames = round((arrived_s - gap.since_s) * self.rate) - gap.frames
        if frames > 0:
            self._losses.append((gap.position, Missing(frames, gap.reason)))
        self._gap = None

    def _take(self, end: int) -> list[NDArray[np.float32]]:
        count = end - self._read
        if count <= 0:
            return []
        slot = self._read % self._capacity
        first = min(count, self._capacity - slot)
        frames = np.concatenate([self._data[slot : slot + first], self._data[: count - first]])
        self._read = end
        return [self._mixer.push(frames)]
