"""The ring between the capture thread, its only writer, and the listener thread, its only reader.

It holds blocks as the source gave them, with their states and losses in place. Full-queue rule: the sound of the oldest
blocks goes and is a loss instead, exact to the sample; the writer never waits, unless it asks to with `wait_for_room`.
"""

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from streamer.audio.block import AudioBlock, empty

OVERRUN = "the listener was too slow"


class RingBuffer:
    """The last `capacity_samples` of sound, at least the newest block. `end`: the sample behind them."""

    def __init__(self, capacity_samples: int, start_sample: int = 0) -> None:
        self.end = start_sample
        self._capacity = capacity_samples
        self._blocks: deque[AudioBlock] = deque()
        self._gone: deque[AudioBlock] = deque()  # blocks before those, without their sound
        self._held = 0  # samples in `_blocks`
        self._finished = False
        self._changed = threading.Condition()

    def write(self, block: AudioBlock) -> None:
        """Append a block; never waits for the reader."""
        with self._changed:
            _append(self._blocks, block)
            self._held += len(block.samples)
            self.end += block.lost_samples + len(block.samples)
            while self._held > self._capacity and len(self._blocks) > 1:
                self._drop_oldest()
            self._changed.notify_all()

    def wait_for_room(self, count: int, timeout_s: float) -> bool:
        """For a source that can wait: until `count` samples fit without pushing others out; False after `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._held or self._held + count <= self._capacity, timeout_s)

    def finish(self) -> None:
        """Nothing more comes: the reader's loop ends with what there is."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def blocks(self, silence: AudioBlock | None = None, after_s: float = 0.0) -> Iterator[AudioBlock]:
        """The reader's loop: everything in order, waiting for more until `finish`.

        `silence`: handed out, once, where nothing was written for `after_s`.
        """
        said = silence is None
        while (block := self._next(None if said else silence, after_s)) is not None:
            said = silence is None or block is silence
            yield block

    def _next(self, silence: AudioBlock | None, after_s: float) -> AudioBlock | None:
        """The next block; `silence` where there is one and nothing came in time; None at the end."""
        with self._changed:
            timeout_s = None if silence is None else after_s
            if not self._changed.wait_for(lambda: self._gone or self._blocks or self._finished, timeout_s):
                return silence
            if self._gone:
                return self._gone.popleft()
            if not self._blocks:
                return None
            block = self._blocks.popleft()
            self._held -= len(block.samples)
            self._changed.notify_all()
            return block

    def _drop_oldest(self) -> None:
        block = self._blocks.popleft()
        count = len(block.samples)
        self._held -= count
        if block.lost_samples or block.notice or not count:  # what came before its sound, or without any, stays
            _append(self._gone, replace(block, samples=empty()))
        if count:
            _append(self._gone, AudioBlock(empty(), count, OVERRUN))


def _append(blocks: deque[AudioBlock], block: AudioBlock) -> None:
    """Neighbouring losses of one cause are one."""
    if blocks and blocks[-1].is_loss and block.is_loss and blocks[-1].reason == block.reason:
        block = replace(block, lost_samples=blocks.pop().lost_samples + block.lost_samples)
    blocks.append(block)
