import threading

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.audio.capture import FULL, OVERFLOW, CaptureBuffer, Missing

RATE = 1_000


def frames(first: int, count: int, channels: int = 1) -> np.ndarray:
    return np.repeat(np.arange(first, first + count, dtype=np.float32)[:, None], channels, axis=1)


def timeline(pieces) -> np.ndarray:
    """What came out, with NaN for what was missing."""
    parts = [np.full(p.frames, np.nan, np.float32) if isinstance(p, Missing) else p for p in pieces]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


@given(st.integers(5, 60), st.lists(st.one_of(st.integers(0, 30), st.none()), max_size=60))
@settings(max_examples=200, deadline=None)
def test_every_frame_comes_out_or_is_counted_in_its_place(capacity, script):
    buffer = CaptureBuffer(RATE, 1, capacity / RATE)
    sent, out = 0, []
    for count in script:
        if count is None:
            out += buffer.pop()
        else:
            buffer.push(frames(sent, count), sent / RATE)
            sent += count
    out += buffer.pop()
    found = timeline(out)
    assert len(found) == sent
    heard = ~np.isnan(found)
    assert np.array_equal(found[heard], np.arange(sent, dtype=np.float32)[heard])
    assert {piece.reason for piece in out if isinstance(piece, Missing)} <= {FULL}


def test_channels_are_mixed_when_read():
    buffer = CaptureBuffer(RATE, 2, 1.0)
    buffer.push(np.array([[0.5, 0.1], [1.0, -1.0]], np.float32), 0.002)
    (piece,) = buffer.pop()
    assert piece.tolist() == [np.float32(0.3), 0.0]


def test_the_callers_array_may_be_reused():
    buffer, block = CaptureBuffer(RATE, 1, 1.0), frames(0, 10)
    buffer.push(block, 0.01)
    block[:] = -1
    assert buffer.pop()[0].tolist() == list(range(10))


def test_an_overflow_is_measured_once_the_burst_is_over():
    buffer = CaptureBuffer(RATE, 1, 10.0)
    for n in range(10):
        buffer.push(frames(20 * n, 20), 0.02 * (n + 1))
    buffer.pop()
    # Nothing for two seconds; the device kept the last 60 frames and delivers them at once, then goes on.
    lost = 2_000 - 60
    at = 200 + lost
    buffer.push(frames(at, 20), 2.2, overflowed=True)
    assert buffer.pop() == []  # not measured yet
    buffer.push(frames(at + 20, 20), 2.2)
    buffer.push(frames(at + 40, 20), 2.2)
    assert buffer.pop() == []
    buffer.push(frames(at + 60, 20), 2.22)
    first, *rest = buffer.pop()
    assert first == Missing(lost, OVERFLOW)
    assert timeline(rest).tolist() == list(range(at, at + 80))


def test_an_overflow_flag_without_missing_time_is_no_loss():
    buffer = CaptureBuffer(RATE, 1, 10.0)
    for n in range(5):
        buffer.push(frames(20 * n, 20), 0.02 * (n + 1), overflowed=n == 2)
    assert timeline(buffer.pop()).tolist() == list(range(100))


def test_the_time_before_a_successor_hears_is_a_loss_with_its_reason():
    buffer = CaptureBuffer(RATE, 1, 10.0, silent_since_s=5.0, away="unplugged")
    buffer.push(frames(0, 20), 9.0)
    buffer.push(frames(20, 20), 9.02)
    assert buffer.pop()[0] == Missing(4_020 - 40, "unplugged")


def test_settling_hands_out_what_waited_behind_a_gap():
    buffer = CaptureBuffer(RATE, 1, 10.0, silent_since_s=5.0, away="unplugged")
    buffer.settle()
    assert buffer.pop() == []
    buffer.push(frames(0, 20), 9.0)
    assert buffer.pop() == []
    buffer.settle()
    assert buffer.pop()[0] == Missing(3_980, "unplugged")


def test_a_device_that_never_finds_its_pace_is_measured_all_the_same():
    buffer = CaptureBuffer(RATE, 1, 10.0, silent_since_s=0.0, away="away")
    for n in range(120):
        buffer.push(frames(20 * n, 20), 10.0 + n * 1e-4)
    pieces = buffer.pop()
    assert isinstance(pieces[0], Missing)
    assert sum(len(piece) for piece in pieces[1:]) == 2_400


def test_a_full_buffer_during_a_gap_keeps_the_order():
    buffer = CaptureBuffer(RATE, 1, 0.03, silent_since_s=0.0, away="away")
    buffer.push(frames(0, 20), 1.0)
    buffer.push(frames(20, 20), 1.0)
    pieces = buffer.pop()
    assert [piece.reason for piece in pieces if isinstance(piece, Missing)] == ["away", FULL]
    assert sum(piece.frames for piece in pieces if isinstance(piece, Missing)) == 980
    assert len(timeline(pieces)) == 1_000


def test_one_thread_pushes_while_another_pops():
    buffer, out, done = CaptureBuffer(RATE, 1, 1.0), [], threading.Event()

    def read() -> None:
        while not done.is_set():
            out.extend(buffer.pop())

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(5_000):
        buffer.push(frames(7 * n, 7), 0.007 * n)
    done.set()
    reader.join()
    out.extend(buffer.pop())
    found = timeline(out)
    assert len(found) == 35_000
    heard = ~np.isnan(found)
    assert np.array_equal(found[heard], np.arange(35_000, dtype=np.float32)[heard])
