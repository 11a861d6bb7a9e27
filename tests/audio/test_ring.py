import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.audio.ring import OVERRUN, Lost, RingBuffer

steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 40)),
        st.tuples(st.just("lost"), st.integers(0, 40)),
        st.tuples(st.just("read"), st.tuples(st.integers(0, 400), st.integers(0, 60))),
    ),
    max_size=40,
)


@given(st.integers(1, 50), steps)
@settings(max_examples=300, deadline=None)
def test_behaves_like_an_endless_array_that_forgets(capacity, script):
    ring = RingBuffer(capacity)
    heard = np.zeros(0, np.float32)  # everything ever, zeros where lost
    was_lost = np.zeros(0, bool)
    for verb, value in script:
        if verb == "write":
            fresh = np.arange(len(heard) + 1, len(heard) + 1 + value, dtype=np.float32)
            ring.write(fresh)
            heard, was_lost = np.append(heard, fresh), np.append(was_lost, np.zeros(value, bool))
        elif verb == "lost":
            ring.lost(value, f"reason {value}")
            heard, was_lost = np.append(heard, np.zeros(value, np.float32)), np.append(was_lost, np.ones(value, bool))
        else:
            start = min(value[0], len(heard))
            end = min(start + value[1], len(heard))
            check_read(ring, start, end, heard, was_lost)
        assert ring.end == len(heard)
        assert ring.oldest == max(0, len(heard) - capacity)
    check_read(ring, 0, ring.end, heard, was_lost)


def check_read(ring, start, end, heard, was_lost):
    found = ring.read(start, end)
    gone = np.arange(start, end) < ring.oldest
    expected_lost = was_lost[start:end] | gone
    assert np.array_equal(found.samples, np.where(expected_lost, 0, heard[start:end]))
    announced = np.zeros(end - start, bool)
    for loss in found.lost:
        assert start <= loss.start_sample < loss.end_sample <= end
        assert not announced[loss.start_sample - start : loss.end_sample - start].any()
        announced[loss.start_sample - start : loss.end_sample - start] = True
        assert (loss.reason == OVERRUN) == bool(gone[loss.start_sample - start])
    assert np.array_equal(announced, expected_lost)
    assert [loss.start_sample for loss in found.lost] == sorted(loss.start_sample for loss in found.lost)


def test_an_overrun_is_named_to_the_sample():
    ring = RingBuffer(100)
    ring.write(np.ones(250, np.float32))
    found = ring.read(20, 250)
    assert found.lost == (Lost(20, 150, OVERRUN),)
    assert found.samples[:130].sum() == 0
    assert found.samples[130:].sum() == 100


def test_neighbouring_losses_of_one_cause_are_one():
    ring = RingBuffer(100)
    for count in (5, 6):
        ring.lost(count, "unplugged")
    ring.lost(0, "nothing")
    ring.lost(4, "overflow")
    assert ring.read(0, 15).lost == (Lost(0, 11, "unplugged"), Lost(11, 15, "overflow"))


def test_a_loss_longer_than_the_ring_costs_no_memory():
    ring = RingBuffer(10)
    ring.write(np.ones(10, np.float32))
    ring.lost(10**12, "a long sleep")
    assert ring.end == 10 + 10**12
    assert ring.read(ring.end - 10, ring.end).lost == (Lost(ring.end - 10, ring.end, "a long sleep"),)


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 2), (0, 6)])
def test_a_range_that_is_not_there_yet_is_refused(start, end):
    ring = RingBuffer(10)
    ring.write(np.ones(5, np.float32))
    with pytest.raises(ValueError, match="range"):
        ring.read(start, end)


def test_a_reader_waits_for_the_writer_across_threads():
    ring, out = RingBuffer(1_000), []

    def read() -> None:
        at = 0
        while ring.wait_until(at + 100) or at < ring.end:
            end = min(at + 100, ring.end)
            out.append(ring.read(at, end).samples)
            ring.release(end)
            at = end

    reader = threading.Thread(target=read)
    reader.start()
    sound = np.arange(1, 20_051, dtype=np.float32)
    for at in range(0, len(sound), 130):
        piece = sound[at : at + 130]
        assert ring.wait_for_room(len(piece), 30)
        ring.write(piece)
    ring.finish()
    reader.join(30)
    assert np.array_equal(np.concatenate(out), sound)
    assert ring.ended


def test_waits_end_without_what_they_waited_for():
    ring = RingBuffer(10)
    assert not ring.wait_until(1, 0.001)
    ring.write(np.ones(8, np.float32))
    assert ring.wait_until(8, 0)
    assert not ring.wait_for_room(3, 0.001)
    ring.release(1)
    assert ring.wait_for_room(3, 0)
    ring.finish()
    assert not ring.wait_until(9)
    assert not ring.wait_for_room(10)
    with pytest.raises(ValueError, match="capacity"):
        ring.wait_for_room(11)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="capacity_samples"):
        RingBuffer(0)
    with pytest.raises(ValueError, match="negative"):
        RingBuffer(1).lost(-1, "")
