import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.errors import UsageError
from streamer.monitor import headphones
from streamer.monitor.playing import MAX_S, WATCH_BLOCKS, PlayBuffer

BLOCK = 240


def numbered(start):
    return np.repeat(np.arange(start, start + BLOCK, dtype=np.float32)[None], 2, axis=0)


def pulled(buffer, count=BLOCK):
    frames = np.full((count, 2), np.nan, np.float32)
    buffer.pull(frames)
    return frames[:, 0]


def test_it_begins_once_the_reserve_is_there_and_keeps_the_order():
    buffer = PlayBuffer(48_000, BLOCK, 100)
    buffer.push(numbered(1))
    assert not pulled(buffer).any()
    assert buffer.underruns == 0  # it has not begun
    buffer.push(numbered(241))
    assert np.array_equal(np.concatenate([pulled(buffer, 100), pulled(buffer, 380)]), np.arange(1, 481))


def test_what_is_not_there_is_silence_and_counted():
    buffer = PlayBuffer(48_000, BLOCK, 0)
    buffer.push(numbered(1))
    got = pulled(buffer, 300)
    assert np.array_equal(got[:BLOCK], np.arange(1, 241))
    assert not got[BLOCK:].any()
    assert buffer.underruns == 1


def test_an_output_that_stood_still_gets_what_is_new():
    buffer = PlayBuffer(48_000, BLOCK, 0)
    for number in range(50):
        buffer.push(numbered(number * BLOCK))
    assert pulled(buffer)[0] >= 50 * BLOCK - MAX_S * 48_000 - BLOCK
    assert buffer.dropped_frames > 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(1, 700)), max_size=60))
def test_every_frame_is_finite_and_the_count_is_kept(actions):
    buffer = PlayBuffer(48_000, BLOCK, 120)
    pushed = 0
    for action in actions:
        if action is None:
            buffer.push(numbered(pushed))
            pushed += BLOCK
        else:
            assert np.isfinite(pulled(buffer, action)).all()
        assert 0 <= buffer.waiting <= pushed


@pytest.mark.parametrize("shift", [-1, 1])
def test_two_clocks_that_differ_are_kept_in_step(shift):
    """0.1 %, ten times what devices differ by: over a minute it would be 60 ms more, or 12 underruns."""
    buffer = PlayBuffer(48_000, BLOCK, 240)
    due, waiting = 0.0, []
    for _ in range(12_000):
        buffer.push(np.zeros((2, BLOCK), np.float32))
        due += BLOCK * (1 + shift * 0.001)
        pulled(buffer, int(due))
        due -= int(due)
        waiting.append(buffer.waiting)
    assert buffer.underruns <= 2
    assert max(waiting[WATCH_BLOCKS * 10 :]) < 240 + 3 * BLOCK


def test_what_piled_up_is_left_out_without_a_click():
    """An output that began late: 60 ms wait, and are gone half a second later; a tone has no jump."""
    buffer = PlayBuffer(48_000, BLOCK, 240)
    sound = np.sin(2 * np.pi * 300 * np.arange(BLOCK * 200) / 48_000).astype(np.float32)
    blocks = iter(np.split(sound, 200))
    for _ in range(12):
        buffer.push(np.stack([next(blocks)] * 2))
    played = [pulled(buffer)]
    for block in blocks:
        buffer.push(np.stack([block] * 2))
        played.append(pulled(buffer))
    assert buffer.waiting <= 4 * BLOCK
    assert np.abs(np.diff(np.concatenate(played))).max() < 0.06  # the tone's own steps are 0.04
    assert buffer.underruns == buffer.dropped_frames == 0


def test_headphones_are_confirmed_once(tmp_path):
    with pytest.raises(UsageError, match="--headphones"):
        headphones.require("USB Audio", confirmed=False, directory=tmp_path)
    headphones.require("USB Audio", confirmed=True, directory=tmp_path)
    headphones.require("USB Audio", confirmed=False, directory=tmp_path)
    with pytest.raises(UsageError, match="'Speakers'"):
        headphones.require("Speakers", confirmed=False, directory=tmp_path)
    (tmp_path / "headphones.json").write_text("{broken")
    with pytest.raises(UsageError):
        headphones.require("USB Audio", confirmed=False, directory=tmp_path)
