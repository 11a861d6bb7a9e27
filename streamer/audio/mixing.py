"""Many channels to one: their mean, or one channel alone where the mean would cancel out what they hold.

A miswired line or a badly made recording has one channel turned upside down: the mean of the two is silence, and nobody
would hear a word or an alarm. Whether channels cancel is judged on blocks of 40 ms of native samples and holds from the
next block on, so nothing waits, and the chunking of the input cannot change a bit. Changes are faded over one block.
"""

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK_S = 0.04
_RECENT_BLOCKS = 5
# The sum's power over the channels' powers: 1 for unlike channels, 2 for two of the same, 0 for opposites.
_CANCELS = 0.1
_ADDS = 0.3  # above this, over the last seconds, the mean is as good as a channel again
_KEEPS = float(np.exp(-BLOCK_S / 2))  # of the past in those last seconds: quiet between words does not outweigh them
_FLOOR = 1e-9  # power below which nothing can be said


def mix_to_mono(frames: NDArray[Any]) -> NDArray[np.float32]:
    """The mean of the channels, float32 [n], of frames [n, channels] in any integer or float type, scaled to -1..1.

    Mono integers up to 16 bit come out exact: x / 2**(bits - 1); unsigned ones are centred first.
    """
    kind = frames.dtype
    if kind.kind == "f":
        mono = frames[:, 0] if frames.shape[1] == 1 else frames.mean(axis=1, dtype=np.float64)
        return np.ascontiguousarray(mono, dtype=np.float32)
    half = 2.0 ** (8 * kind.itemsize - 1)
    wide = frames.astype(np.float64)
    mono = (wide[:, 0] if frames.shape[1] == 1 else wide.mean(axis=1)) - (half if kind.kind == "u" else 0.0)
    return (mono / half).astype(np.float32)


class Mixer:
    """Frames at `rate` Hz in, as many mono samples out; one for one stream."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._notice = ""
        self._told = False
        self._block_frames = max(2, round(rate * BLOCK_S))
        self._shares = (0.0, 0.0)  # of the one channel, at the begin and the end of the present block
        self._filled = 0  # frames of the present block
        self._start(1)

    def push(self, frames: NDArray[Any]) -> NDArray[np.float32]:
        """Take frames [n, channels] of any integer or float type; float32 [n], -1..1. Another count starts afresh."""
        channels = frames.shape[1]
        mean = mix_to_mono(frames)
        if channels == 1:
            return mean
        if channels != self._channels:
            self._start(channels)
        at = 0
        while at < len(frames):
            end = min(len(frames), at + self._block_frames - self._filled)
            part = frames[at:end]
            if self._shares != (0.0, 0.0):
                mean[at:end] = self._blend(mean[at:end], mix_to_mono(part[:, self._channel : self._channel + 1]))
            self._block[self._filled : self._filled + len(part)] = _scaled(part)
            self._filled += len(part)
            if self._filled == self._block_frames:
                self._filled = 0
                self._judge()
            at = end
        return mean

    def take_notice(self) -> str:
        """What to tell people, once; else nothing."""
        notice, self._notice = self._notice, ""
        return notice

    def _start(self, channels: int) -> None:
        self._channels, self._channel = channels, 0
        self._block = np.zeros((self._block_frames, channels), np.float32)
        self._filled, self._shares = 0, (0.0, 0.0)
        self._recent: deque[tuple[float, NDArray[np.float64]]] = deque(maxlen=_RECENT_BLOCKS)
        self._together = self._apart = 0.0  # powers of the sum and of all channels in the last seconds

    def _blend(self, mean: NDArray[np.float32], alone: NDArray[np.float32]) -> NDArray[np.float32]:
        first, last = self._shares
        if first == last:
            return alone
        place = (self._filled + 1 + np.arange(len(mean))) / self._block_frames
        share = first + (last - first) * place
        return (mean + (alone - mean) * share).astype(np.float32)

    def _judge(self) -> None:
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is mended later, and says nothing here
            around = self._block - self._block.mean(axis=0, dtype=np.float64)  # neither does a constant offset
            together, each = float(np.square(around.sum(axis=1)).sum()), np.square(around).sum(axis=0)
        alone = self._shares[1] == 1.0
        if np.isfinite(each).all() and np.isfinite(together):
            self._recent.append((together, each))
            self._together = self._together * _KEEPS + together
            self._apart = self._apart * _KEEPS + float(each.sum())
            alone = self._together <= _ADDS * self._apart if alone else self._cancels()
        self._shares = (self._shares[1], float(alone))

    def _cancels(self) -> bool:
        """Whether the last blocks would be lost in the mean; then the loudest of their channels is chosen."""
        together, powers = sum(one[0] for one in self._recent), sum(one[1] for one in self._recent)
        assert isinstance(powers, np.ndarray)
        apart = float(powers.sum())
        if apart < _FLOOR * self._block_frames * len(self._recent) or together >= _CANCELS * apart:
            return False
        self._channel = int(np.argmax(powers))
        self._together, self._apart = together, apart
        if not self._told:
            self._told = True
            self._notice = (
                f"the channels cancel each other out (one is wired or recorded upside down): "
                f"channel {self._channel + 1} of {self._channels} is heard alone"
            )
        return True


def _scaled(frames: NDArray[Any]) -> NDArray[np.float32]:
    """Every channel in -1..1, float32 [n, channels]."""
    kind = frames.dtype
    if kind.kind == "f":
        return frames.astype(np.float32)
    half = 2.0 ** (8 * kind.itemsize - 1)
    return ((frames - (half if kind.kind == "u" else 0.0)) / half).astype(np.float32)
