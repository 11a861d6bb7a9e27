"""Between the monitor's thread and the output device: a buffer that never waits, and the clock that is set by it."""

from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

EARS: Final = 2
MAX_S: Final = 0.1  # more that waits than this, and the oldest goes: late sound is worse than a gap
MOST_CHANGE: Final = 3  # frames of a block
WATCH_BLOCKS: Final = 100  # the least that waited within so many blocks tells how much later than needed all comes


class PlayBuffer:
    """Blocks for both ears in (`push`: the monitor's thread), frames out (`pull`: the device's). Neither waits.

    `pull` gives silence until `reserve` frames more than a block are there, so that a block that comes a little late is
    not missed, and counts an underrun wherever it has too little. Full-buffer rule: the oldest is dropped and counted.
    """

    def __init__(self, rate: int, block: int, reserve: int) -> None:
        self.underruns = self.dropped_frames = 0
        self._ready: deque[NDArray[np.float32]] = deque()  # [n, ears]
        self._pushed = self._pulled = 0  # frames; each has one writer
        self._begin_at, self._most = block + reserve, max(round(rate * MAX_S), 2 * (block + reserve))
        self._block, self._reserve = block, reserve
        self._began, self._rest = False, np.zeros((0, EARS), np.float32)
        self._least, self._watched, self._beginning = self._most, 0, True

    @property
    def waiting(self) -> int:
        """Frames that were pushed and not pulled."""
        return self._pushed - self._pulled

    def push(self, block: NDArray[np.float32]) -> None:
        """Take float32 [ears, n]."""
        frames = self._in_step(block.T)
        self._ready.append(frames)
        self._pushed += len(frames)

    def pull(self, frames: NDArray[np.float32]) -> None:
        """Fill float32 [n, ears]; called by the device."""
        if not self._began:
            self._began = self.waiting >= self._begin_at
        while self.waiting > self._most:
            self.dropped_frames += self._drop()
        done = 0
        while self._began and done < len(frames):
            if not len(self._rest):
                if not self._ready:
                    self.underruns += 1
                    break
                self._rest = self._ready.popleft()
            taken = min(len(self._rest), len(frames) - done)
            frames[done : done + taken] = self._rest[:taken]
            self._rest, done = self._rest[taken:], done + taken
        frames[done:] = 0
        self._pulled += done

    def _drop(self) -> int:
        oldest = self._rest if len(self._rest) else self._ready.popleft()
        self._rest = self._rest[:0]
        self._pulled += len(oldest)
        return len(oldest)

    def _in_step(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same frames, or a few less or more where more or less waits than should: two devices have two clocks.

        One of 240 changes the pitch by 7 cents for as long as it takes. What piled up at the beginning, which fades in
        from silence, is dropped at once.
        """
        self._least, self._watched = min(self._least, self.waiting), self._watched + 1
        if self._watched < WATCH_BLOCKS:
            return frames
        excess = self._least - self._reserve
        if abs(excess) <= self._block // 2:
            self._least, self._watched = self._most, 0
            self._beginning = False
            return frames
        if self._beginning and excess >= len(frames):
            self._least -= len(frames)
            return frames[:0]
        # One window of blocks is watched again once this is done; until then every block takes its part of it.
        change = max(-MOST_CHANGE, min(MOST_CHANGE, excess // self._block or (1 if excess > 0 else -1)))
        self._least -= change
        at = np.linspace(0, len(frames) - 1, len(frames) - change)
        return np.stack([np.interp(at, np.arange(len(frames)), ear) for ear in frames.T], axis=1).astype(np.float32)
