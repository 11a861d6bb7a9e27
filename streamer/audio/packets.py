"""Coded sound that comes packet by packet, without a container: raw Opus (RFC 6716), G.711's mu-law and A-law."""

from typing import Final, Literal, cast

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext

from streamer.errors import InputError

Coding = Literal["opus", "mulaw", "alaw"]
_DECODERS: Final = {"opus": "libopus", "mulaw": "pcm_mulaw", "alaw": "pcm_alaw"}


class PacketDecoder:
    """One stream of packets, all of the same coding, `rate` (Hz) and `channels` (interleaved).

    Opus knows neither a rate nor lost packets: it is decoded at 48 kHz, and each packet follows the one before.
    """

    def __init__(self, coding: Coding, rate: int, channels: int) -> None:
        self._coding = coding
        self._decoder = cast(AudioCodecContext, av.CodecContext.create(_DECODERS[coding], "r"))
        self._decoder.sample_rate = rate
        self._decoder.layout = "mono" if channels == 1 else "stereo" if channels == 2 else f"{channels}c"

    def decode(self, packet: bytes) -> bytes:
        """16-bit little-endian PCM, interleaved. Raises InputError: this is no packet of the coding."""
        if not packet:
            return b""
        try:
            frames = self._decoder.decode(av.Packet(packet))
        except av.FFmpegError:
            raise InputError(f"encoding: a message of {len(packet)} bytes is no packet of {self._coding}") from None
        return b"".join(self._pcm(frame) for frame in frames)

    def _pcm(self, frame: av.AudioFrame) -> bytes:
        data = frame.to_ndarray()
        frames = data.T if frame.format.is_planar else data.reshape(-1, frame.layout.nb_channels)
        if frames.dtype.kind == "f":
            return np.round(np.clip(frames.astype(np.float64), -1, 1) * 32767).astype("<i2").tobytes()
        return frames.astype("<i2").tobytes()
