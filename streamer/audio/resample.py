"""From a source's native rate to 16 kHz: a stateful resampler, and the exact bookkeeping of what was lost on the way.

Resampling is libsoxr's (https://sourceforge.net/projects/soxr), quality HQ, linear phase: its filter's delay is taken
out, so output sample k belongs to time k / 16,000; the last tens of milliseconds come when more input or the end does.
"""

from collections.abc import Iterator

import numpy as np
import soxr
from numpy.typing import NDArray

from streamer.audio.block import AudioBlock, empty
from streamer.events import SAMPLE_RATE

_CHUNK_SAMPLES = 65_536  # longest piece given to soxr at once, so that memory stays flat


def to_16k(frames: int, rate: int) -> int:
    """How many 16 kHz samples `frames` native samples are, rounded half up as soxr does."""
    return (2 * frames * SAMPLE_RATE + rate) // (2 * rate)


class Resampler:
    """Mono float32 at `rate` Hz in, at 16 kHz out; any chunking gives the same samples, bit for bit.

    At 16 kHz samples pass untouched.
    """

    def __init__(self, rate: int) -> None:
        if rate <= 0:
            raise ValueError(f"rate {rate}: must be above 0 Hz")
        self.rate = rate
        self._soxr = None if rate == SAMPLE_RATE else self._stream()

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take float32 [n] native samples, return what is ready, float32 [m]."""
        if self._soxr is None:
            return samples
        pieces = range(0, len(samples), _CHUNK_SAMPLES)
        ready = [self._soxr.resample_chunk(samples[at : at + _CHUNK_SAMPLES]) for at in pieces]
        return np.concatenate(ready) if ready else empty()

    def flush(self) -> NDArray[np.float32]:
        """The rest, float32 [m]: in all, `to_16k(pushed, rate)` samples come out. Then the resampler is as new."""
        if self._soxr is None:
            return empty()
        rest: NDArray[np.float32] = self._soxr.resample_chunk(empty(), last=True)
        self._soxr = self._stream()
        return rest

    def _stream(self) -> soxr.ResampleStream:
        return soxr.ResampleStream(self.rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")


class BlockMaker:
    """Native sound and losses in, 16 kHz blocks out; the clock of the blocks never drifts from the native one.

    A loss ends the resampler's run: its tail comes first, then the loss, counted so that the next sample lands at its
    true place on the 16 kHz clock.
    """

    def __init__(self, rate: int) -> None:
        self._resampler = Resampler(rate)
        self._native = 0  # samples at the present rate, lost ones included, since the origin
        self._emitted = 0  # 16 kHz samples handed on or counted as lost, since the origin

    @property
    def rate(self) -> int:
        """The present native rate, in Hz."""
        return self._resampler.rate

    def push(self, samples: NDArray[np.float32]) -> Iterator[AudioBlock]:
        """Float32 [n] mono native samples."""
        self._native += len(samples)
        yield from self._samples(self._resampler.push(samples))

    def lost(self, frames: int, reason: str) -> Iterator[AudioBlock]:
        """`frames` native samples never came."""
        yield from self._samples(self._resampler.flush())
        self._native += frames
        count = to_16k(self._native, self.rate) - self._emitted
        if count > 0:
            self._emitted += count
            yield AudioBlock(empty(), count, reason)

    def change_rate(self, rate: int) -> Iterator[AudioBlock]:
        """What follows is at `rate` Hz."""
        yield from self.finish()
        self._resampler = Resampler(rate)
        self._native = self._emitted = 0

    def finish(self) -> Iterator[AudioBlock]:
        """The end of the input: the resampler's tail."""
        yield from self._samples(self._resampler.flush())

    def _samples(self, samples: NDArray[np.float32]) -> Iterator[AudioBlock]:
        self._emitted += len(samples)
        if len(samples):
            yield AudioBlock(samples)
