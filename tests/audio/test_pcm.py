import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.audio.pcm import PcmDecoder, mix_to_mono
from streamer.errors import InputError


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(at % (len(data) + 1) for at in cuts), len(data)]
    return [data[left:right] for left, right in itertools.pairwise(edges)]


@given(
    st.sampled_from(["pcm_s16le", "pcm_f32le"]),
    st.sampled_from([8_000, 16_000, 44_100]),
    st.integers(1, 3),
    st.binary(max_size=3_000),
    st.lists(st.integers(0, 3_000), max_size=8),
)
@settings(max_examples=100, deadline=None)
def test_any_split_of_the_bytes_gives_the_same_samples(encoding, rate, channels, data, cuts):
    if encoding == "pcm_f32le":
        data = np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype("<f4").tobytes()
    whole, pieces = PcmDecoder(encoding, rate, channels), PcmDecoder(encoding, rate, channels)
    expected = np.concatenate([whole.push(data), whole.finish()])
    found = np.concatenate([*(pieces.push(piece) for piece in cut(data, cuts)), pieces.finish()])
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


def test_16_bit_samples_are_exact():
    values = np.array([-32_768, -1, 0, 1, 32_767], "<i2")
    assert PcmDecoder().push(values.tobytes()).tolist() == [-1.0, -1 / 32_768, 0.0, 1 / 32_768, 32_767 / 32_768]


def test_channels_are_averaged_and_odd_tails_dropped():
    decoder = PcmDecoder("pcm_f32le", 16_000, 2)
    assert decoder.push(np.array([0.5, 0.1, -1.0, 1.0], "<f4").tobytes() + b"abc").tolist() == pytest.approx([0.3, 0])
    assert len(decoder.finish()) == 0


@pytest.mark.parametrize(
    ("arguments", "field"),
    [(("mulaw",), "encoding"), (("pcm_s16le", 100), "sample_rate"), (("pcm_s16le", 16_000, 0), "channels")],
)
def test_what_it_does_not_know_is_refused_by_name(arguments, field):
    with pytest.raises(InputError, match=field):
        PcmDecoder(*arguments)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0], [128], [255]], np.uint8), [-1, 0, 127 / 128]),
        (np.array([[-(2**31)], [2**30]], np.int32), [-1, 0.5]),
        (np.array([[0.25, 0.75]], np.float64), [0.5]),
    ],
)
def test_every_sample_type_is_scaled(values, expected):
    assert mix_to_mono(values).tolist() == expected
