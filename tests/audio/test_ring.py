import threading

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.audio.block import AudioBlock, empty
from streamer.audio.ring import OVERRUN, RingBuffer

LONG_S = 30.0

steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 40)),
        st.tuples(st.just("lost"), st.integers(0, 40)),
        st.tuples(st.just("say"), st.sampled_from(["no_audio", "degraded"])),
        st.tuples(st.just("read"), st.integers(0, 4)),
    ),
    max_size=40,
)


def lost(count: int, reason: str) -> AudioBlock:
    return AudioBlock(empty(), count, reason)


def sound(first: int, count: int) -> AudioBlock:
    return AudioBlock(np.arange(first + 1, first + count + 1, dtype=np.float32))


@given(st.integers(1, 50), steps)
@settings(max_examples=300, deadline=None)
def test_everything_comes_out_in_order_or_is_a_loss_exact_to_the_sample(capacity, script):
    ring, written, said = RingBuffer(capacity), [], []
    reader, found = ring.blocks(), []
    for verb, value in script:
        if verb == "write":
            ring.write(sound(len(written), value))
            written += range(len(written) + 1, len(written) + value + 1)
        elif verb == "lost":
            ring.write(lost(value, f"reason {value}"))
            written += [0] * value
        elif verb == "say":
            ring.write(AudioBlock(empty(), state=value, reason=f"at {len(written)}"))
            said.append((value, f"at {len(written)}"))
        else:
            for _ in range(value):
                if sum(block.lost_samples + len(block.samples) for block in found) < ring.end:  # else it would wait
                    found.append(next(reader))
        assert ring.end == len(written)
    ring.finish()
    found += reader
    at = 0
    for block in found:
        there = written[at : at + block.lost_samples + len(block.samples)]
        assert block.samples.tolist() == there[block.lost_samples :]
        if block.reason != OVERRUN and block.lost_samples:
            assert not any(there[: block.lost_samples])
        elif block.lost_samples:
            assert all(there)  # what sounded, and was in the ring for too long
        at += len(there)
    assert at == len(written)
    states = [(block.state, block.reason) for block in found if block.state != "listening"]
    assert states == said
    assert all(f"at {at}" == reason for at, (_, reason) in zip(places(found), states, strict=True))


def places(blocks: list[AudioBlock]) -> list[int]:
    """Where the states stand in the audio."""
    at, where = 0, []
    for block in blocks:
        at += block.lost_samples + len(block.samples)
        where += [at] if block.state != "listening" else []
    return where


def test_only_the_oldest_blocks_go_and_no_more_than_must():
    ring = RingBuffer(100)
    for number in range(5):
        ring.write(sound(50 * number, 50))
    ring.finish()
    overrun, *kept = ring.blocks()
    assert (overrun.lost_samples, overrun.reason) == (150, OVERRUN)
    assert np.concatenate([block.samples for block in kept]).tolist() == list(range(151, 251))


def test_the_newest_block_stays_however_long_it_is():
    ring = RingBuffer(10)
    for count in (8, 25):
        ring.write(sound(0, count))
    ring.finish()
    assert [(block.lost_samples, len(block.samples)) for block in ring.blocks()] == [(8, 0), (0, 25)]


def test_what_is_told_with_sound_is_told_without_it():
    ring = RingBuffer(10)
    ring.write(AudioBlock(np.ones(8, np.float32), 3, "unplugged", notice="track 2 is heard"))
    ring.write(sound(0, 8))
    ring.finish()
    first, second, third = ring.blocks()
    assert (first.lost_samples, first.reason, first.notice) == (3, "unplugged", "track 2 is heard")
    assert (second.lost_samples, second.reason) == (8, OVERRUN)
    assert len(third.samples) == 8


def test_neighbouring_losses_of_one_cause_are_one():
    ring = RingBuffer(100)
    for count, reason in ((5, "unplugged"), (6, "unplugged"), (4, "overflow")):
        ring.write(lost(count, reason))
    ring.finish()
    assert [(block.lost_samples, block.reason) for block in ring.blocks()] == [(11, "unplugged"), (4, "overflow")]


def test_a_reader_waits_for_the_writer_and_the_writer_for_room():
    ring, out = RingBuffer(1_000), []
    reader = threading.Thread(target=lambda: out.extend(ring.blocks()))
    reader.start()
    for at in range(0, 20_020, 130):
        assert ring.wait_for_room(130, LONG_S)
        ring.write(sound(at, 130))
    ring.finish()
    reader.join(LONG_S)
    assert np.concatenate([block.samples for block in out]).tolist() == list(range(1, 20_021))
    assert not any(block.lost_samples for block in out)


def test_room_is_what_was_read():
    ring = RingBuffer(10)
    assert ring.wait_for_room(30, 0)  # longer than the ring: when it is empty
    ring.write(sound(0, 8))
    assert not ring.wait_for_room(3, 0)
    next(ring.blocks())
    assert ring.wait_for_room(3, 0)


def test_a_reader_that_waits_in_vain_is_told_so_once_until_something_comes():
    ring, silence = RingBuffer(100), AudioBlock(empty(), state="no_audio", reason="nothing comes")
    reader = ring.blocks(silence, 0.01)
    assert next(reader) is silence
    ring.write(sound(0, 8))
    assert len(next(reader).samples) == 8
    assert next(reader) is silence
    waiting: list[AudioBlock] = []
    rest = threading.Thread(target=lambda: waiting.extend(reader))
    rest.start()
    rest.join(0.2)
    assert waiting == []  # it was told
    ring.finish()
    rest.join(LONG_S)
    assert waiting == []
