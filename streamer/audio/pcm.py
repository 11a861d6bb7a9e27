"""Raw PCM: bytes to 16 kHz mono samples."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamer.audio.mixing import Mixer, mix_to_mono
from streamer.audio.resample import Resampler
from streamer.errors import InputError
from streamer.events import SAMPLE_RATE

__all__ = ["Encoding", "PcmDecoder", "mix_to_mono"]

Encoding = Literal["pcm_s16le", "pcm_f32le"]
_DTYPES: dict[str, np.dtype[Any]] = {"pcm_s16le": np.dtype("<i2"), "pcm_f32le": np.dtype("<f4")}
MIN_RATE_HZ, MAX_RATE_HZ, MAX_CHANNELS = 4_000, 384_000, 32


class PcmDecoder:
    """Bytes of interleaved PCM in, float32 16 kHz mono out; any split of the bytes gives the same samples.

    16-bit samples become x / 32,768, floats stay as they are (also those that are not finite), channels are mixed.
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
        self._mixer, self._resampler = Mixer(sample_rate), Resampler(sample_rate)
        self._rest = b""

    def push(self, data: bytes) -> NDArray[np.float32]:
        """Any number of bytes; returns the samples that are ready, float32 [n]."""
        data = self._rest + data
        usable = len(data) - len(data) % (self._dtype.itemsize * self._channels)
        self._rest = data[usable:]
        frames = np.frombuffer(data[:usable], self._dtype).reshape(-1, self._channels)
        return self._resampler.push(self._mixer.push(frames))

    def finish(self) -> NDArray[np.float32]:
        """The resampler's tail, float32 [n]; a frame whose last bytes never came is dropped."""
        self._rest = b""
        return self._resampler.flush()
