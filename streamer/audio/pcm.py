"""Raw PCM: bytes to 16 kHz mono samples, and the source that reads them from standard input."""

import os
import select
import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from streamer.audio.block import BLOCK_SAMPLES, AudioBlock
from streamer.audio.clock import Clock, Pacer, SystemClock
from streamer.audio.resample import Resampler
from streamer.errors import InputError
from streamer.events import SAMPLE_RATE

Encoding = Literal["pcm_s16le", "pcm_f32le"]
_DTYPES: dict[str, np.dtype[Any]] = {"pcm_s16le": np.dtype("<i2"), "pcm_f32le": np.dtype("<f4")}
MIN_RATE_HZ, MAX_RATE_HZ, MAX_CHANNELS = 4_000, 384_000, 32
_READ_BYTES = BLOCK_SAMPLES * 2
_HEAD_START = 1.02  # how much faster than the clock a pipe may run in real time


class PcmDecoder:
    """Bytes of interleaved PCM in, float32 16 kHz mono out; any split of the bytes gives the same samples.

    16-bit samples become x / 32,768, floats stay as they are (also those that are not finite), channels are averaged.
    Raises InputError for an encoding, rate or channel count that it does not know.
    """

    def __init__(self, encoding: str = "pcm_s16le", sample_rate: int = SAMPLE_RATE, channels: int = 1) -> None:
        if encoding not in _DTYPES:
            raise InputError(f"encoding {encoding!r}: must be one of {', '.join(_DTYPES)}")
        if not MIN_RATE_HZ <= sample_rate <= MAX_RATE_HZ:
            raise InputError(f"sample_rate {sample_rate}: must be {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz")
        if not 1 <= channels <= MAX_CHANNELS:
            raise InputError(f"channels {channels}: must be 1 to {MAX_CHANNELS}")
        self._dtype, self._channels = _DTYPES[encoding], channels
        self._resampler = Resampler(sample_rate)
        self._rest = b""

    def push(self, data: bytes) -> NDArray[np.float32]:
        """Any number of bytes; returns the samples that are ready, float32 [n]."""
        data = self._rest + data
        usable = len(data) - len(data) % (self._dtype.itemsize * self._channels)
        self._rest = data[usable:]
        frames = np.frombuffer(data[:usable], self._dtype).reshape(-1, self._channels)
        return self._resampler.push(mix_to_mono(frames))

    def finish(self) -> NDArray[np.float32]:
        """The resampler's tail, float32 [n]; a frame whose last bytes never came is dropped."""
        self._rest = b""
        return self._resampler.flush()


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


class StdinSource:
    """Raw s16le 16 kHz mono PCM from a pipe or file that is already open; ends at its end or when it is closed."""

    def __init__(self, stream: BinaryIO | None = None, *, realtime: bool, clock: Clock | None = None) -> None:
        self.name = "stdin"
        self.live = realtime
        self.sample_rate = SAMPLE_RATE
        self._closed = threading.Event()
        try:
            self._fd = (stream or sys.stdin.buffer).fileno()
        except (OSError, ValueError, AttributeError):
            raise InputError("--input -: standard input is closed; pipe raw s16le 16 kHz mono PCM into it") from None
        if os.isatty(self._fd):
            raise InputError("--input -: standard input is a terminal; pipe raw s16le 16 kHz mono PCM into it")
        self._lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe()
        self._pacer = Pacer(clock or SystemClock(), self._closed, SAMPLE_RATE * _HEAD_START) if realtime else None

    def blocks(self) -> Iterator[AudioBlock]:
        """Blocks of at most 50 ms, as the bytes come. Raises InputError when the pipe cannot be read."""
        decoder = PcmDecoder()
        try:
            while data := self._read():
                samples = decoder.push(data)
                if not len(samples):
                    continue
                if self._pacer is not None and not self._pacer.wait_for(len(samples)):
                    return
                yield AudioBlock(samples)
        finally:
            self._release()

    def close(self) -> None:
        """End `blocks`; the standard input itself stays open."""
        with self._lock:
            if not self._closed.is_set():
                self._closed.set()
                os.write(self._wake_write, b"x")

    def _release(self) -> None:
        with self._lock:
            if self._wake_read >= 0:
                self._closed.set()
                os.close(self._wake_read)
                os.close(self._wake_write)
                self._wake_read = self._wake_write = -1

    def _read(self) -> bytes:
        """The next bytes, none at the end or once closed."""
        try:
            select.select([self._fd, self._wake_read], [], [])
            return b"" if self._closed.is_set() else os.read(self._fd, _READ_BYTES)
        except OSError as error:
            raise InputError(f"--input -: standard input cannot be read: {error.strerror}") from None
