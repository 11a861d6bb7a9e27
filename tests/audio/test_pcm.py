import io
import itertools
import os
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media_files import ScriptedClock

from streamer.audio.pcm import PcmDecoder, mix_to_mono
from streamer.audio.stdin import StdinSource
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


def stdin_of(data: bytes, sizes: list[int]) -> io.BufferedReader:
    """A pipe into which somebody writes pieces of odd sizes and then hangs up."""
    read_end, write_end = os.pipe()

    def write() -> None:
        at = 0
        for size in [*sizes, len(data)]:
            os.write(write_end, data[at : at + size])
            at += size
        os.close(write_end)

    threading.Thread(target=write).start()
    return os.fdopen(read_end, "rb")


def test_stdin_gives_every_sample_whatever_the_splits():
    values = np.random.default_rng(1).integers(-32_768, 32_767, 20_000, dtype=np.int16)
    with stdin_of(values.tobytes(), [1, 3, 1_601, 4_096, 7]) as pipe:
        source = StdinSource(pipe, realtime=False)
        blocks = list(source.blocks())
    assert not source.live
    assert np.array_equal(np.concatenate([block.samples for block in blocks]), values / np.float32(32_768))
    assert max(len(block.samples) for block in blocks) <= 800


def test_a_file_as_stdin_works_and_its_odd_last_byte_is_dropped(tmp_path):
    path = tmp_path / "raw"
    path.write_bytes(b"\x01\x00" * 100 + b"\x7f")
    with path.open("rb") as file:
        assert sum(len(block.samples) for block in StdinSource(file, realtime=False).blocks()) == 100


def test_real_time_holds_a_file_back_but_only_a_little_faster_than_the_clock(tmp_path):
    path, clock = tmp_path / "raw", ScriptedClock()
    path.write_bytes(bytes(2 * 16_000 * 2))
    with path.open("rb") as file:
        source = StdinSource(file, realtime=True, clock=clock)
        assert source.live
        assert sum(len(block.samples) for block in source.blocks()) == 32_000
    assert 1.9 < clock.now() < 2.0


def test_close_ends_a_source_that_waits_for_bytes():
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as pipe, os.fdopen(write_end, "wb"):
        source = StdinSource(pipe, realtime=True)
        reader = threading.Thread(target=lambda: list(source.blocks()))
        reader.start()
        source.close()
        source.close()
        reader.join(10)
        assert not reader.is_alive()
        source.close()


def test_a_terminal_or_a_closed_stdin_is_refused(monkeypatch):
    leader, terminal = os.openpty()
    with os.fdopen(leader, "rb"), os.fdopen(terminal, "rb") as keyboard, pytest.raises(InputError, match="a terminal"):
        StdinSource(keyboard, realtime=True)
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InputError, match="is closed"):
        StdinSource(realtime=True)


def test_a_stdin_that_is_no_file_is_refused_in_one_line():
    with pytest.raises(InputError, match="--input -") as caught:
        StdinSource(io.BytesIO(b""), realtime=False)
    assert "\n" not in str(caught.value)
