"""Packets without a container: what an encoder made of a tone is that tone again."""

import av
import numpy as np
import pytest

from streamer.audio.packets import PacketDecoder
from streamer.errors import InputError

TONE = np.round(16_000 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)).astype("<i2")


def encoded(codec: str, rate: int, samples: np.ndarray) -> list[bytes]:
    """`samples` [n, channels]."""
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    encoder = av.CodecContext.create(codec, "w")
    encoder.sample_rate, encoder.layout, encoder.format = rate, layout, "s16"
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples).reshape(1, -1), format="s16", layout=layout)
    frame.sample_rate = rate
    return [bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)]]


def decoded(coding, rate: int, channels: int, packets: list[bytes]) -> np.ndarray:
    decoder = PacketDecoder(coding, rate, channels)
    pcm = b"".join(decoder.decode(packet) for packet in packets)
    return np.frombuffer(pcm, "<i2").reshape(-1, channels).astype(float)


def pitch(samples: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples[: rate // 2]))
    return float(np.argmax(spectrum) * rate / (rate // 2))


@pytest.mark.parametrize("channels", [1, 2])
def test_opus_is_decoded_at_48_khz(channels):
    packets = encoded("libopus", 48_000, np.stack([TONE] * channels, axis=1))
    samples = decoded("opus", 48_000, channels, packets)
    assert abs(len(samples) - 48_000) <= 960
    for channel in range(channels):
        assert pitch(samples[9_600:, channel], 48_000) == pytest.approx(440, abs=2)
        assert np.abs(samples[9_600:, channel]).max() == pytest.approx(16_000, rel=0.15)


@pytest.mark.parametrize(("coding", "codec"), [("mulaw", "pcm_mulaw"), ("alaw", "pcm_alaw")])
def test_telephone_sound_is_nearly_what_it_was(coding, codec):
    tone = TONE[::6][:, None]
    samples = decoded(coding, 8_000, 1, encoded(codec, 8_000, tone))
    assert samples.shape == tone.shape
    assert np.abs(samples - tone).max() <= 520  # half a step of the loudest


@pytest.mark.parametrize("packet", [bytes(5000), b"\xff\xff\xff"])
def test_what_is_no_packet_is_an_error(packet):
    with pytest.raises(InputError, match=f"{len(packet)} bytes is no packet of opus"):
        PacketDecoder("opus", 48_000, 1).decode(packet)


def test_nothing_is_nothing():
    assert PacketDecoder("opus", 48_000, 1).decode(b"") == b""
