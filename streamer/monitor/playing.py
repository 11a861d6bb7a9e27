"""Between the monitor's thread and the output device: a buffer that never waits, and the clock that is set by it."""

from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

EARS: Final = 2
MAX_S: Final = 0.1  # more that waits than this, and the oldest goes: late sound is worse than a gap
LEFT_OUT_BLOCKS: Final = 1  # too many are so many
WATCH_BLOCKS: Final = 50  # what waited at least for most of so many blocks comes later than it must
LOW_PERCENT: Final = 10  # a single late block is no reason to come later for ever


class PlayBuffer:
    """Blocks for both ears in (`push`: the monitor's thread), frames out (`pull`: the device's). Neither waits.

    `pull` gives silence until `reserve` frames more than a block are there, so that a block that comes a little late is
    not missed, and counts an underrun wherever it has too little. Full-buffer rule: the oldest is dropped and counted.
    """

    def __init__(self, rate: int, block: int, reserve: int) -> None:
        self.underruns = self.dropped_frames = 0
        self._ready: deque[tuple[NDArray[np.float32], float]] = deque()  # [n, ears], and when it was heard
        self.held_s: deque[float] = deque(maxlen=WATCH_BLOCKS * 20)  # how long the latest blocks took to get here
        self._pushed = self._pulled = 0  # frames; each has one writer
        self._begin_at, self._most = block + reserve, max(round(rate * MAX_S), 2 * (block + reserve))
        self._block, self._reserve = block, reserve
        self._began, self._rest = False, np.zeros((0, EARS), np.float32)
        self._seen: list[int] = []  # how much waited before each of the last blocks
        self._excess = 0  # frames that still are to be left out, or to be added where below 0
        self._cut: NDArray[np.float32] | None = None  # the first of those that were just left out

    @property
    def waiting(self) -> int:
        """Frames that were pushed and not pulled."""
        return self._pushed - self._pulled

    def push(self, block: NDArray[np.float32], heard_s: float = 0.0) -> None:
        """Take float32 [ears, n], which the microphone handed on at `heard_s` (`time.monotonic`)."""
        frames = self._in_step(block.T)
        self._ready.append((frames, heard_s))
        self._pushed += len(frames)

    def pull(self, frames: NDArray[np.float32], now_s: float = 0.0) -> None:
        """Fill float32 [n, ears]; called by the device, at `now_s`."""
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
                self._rest, heard_s = self._ready.popleft()
                self.held_s.append(now_s - heard_s)
            taken = min(len(self._rest), len(frames) - done)
            frames[done : done + taken] = self._rest[:taken]
            self._rest, done = self._rest[taken:], done + taken
        frames[done:] = 0
        self._pulled += done

    def _drop(self) -> int:
        oldest = self._rest if len(self._rest) else self._ready.popleft()[0]
        self._rest = self._rest[:0]
        self._pulled += len(oldest)
        return len(oldest)

    def _in_step(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same frames, or a few less or more where more or less waits than should: two devices have two clocks.

        One of 240 changes the pitch by 7 cents for as long as it takes. Where whole blocks are too many (at the
        beginning, after a hole) they are left out, with a cross-fade over the seam.
        """
        if self._excess == 0:
            if not self._began:
                return frames
            self._seen.append(self.waiting)
            if len(self._seen) < WATCH_BLOCKS:
                return self._joined(frames)
            excess = int(np.percentile(self._seen, LOW_PERCENT)) - self._reserve
            self._seen.clear()
            self._excess = excess if abs(excess) > self._block // 2 else 0
        if self._excess >= LEFT_OUT_BLOCKS * self._block:
            self._excess -= len(frames)
            self._cut = frames if self._cut is None else self._cut
            return frames[:0]
        change = int(np.sign(self._excess))
        self._excess -= change
        joined = self._joined(frames)
        if change == 0:
            return joined
        at = np.linspace(0, len(frames) - 1, len(frames) - change)
        return np.stack([np.interp(at, np.arange(len(frames)), ear) for ear in joined.T], axis=1).astype(np.float32)

    def _joined(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """These frames, which begin as those that were left out did: no click."""
        if self._cut is None:
            return frames
        cut, self._cut = self._cut, None
        share = np.linspace(0, 1, len(frames), dtype=np.float32)[:, None]
        joined: NDArray[np.float32] = cut * (1 - share) + frames * share
        return joined
