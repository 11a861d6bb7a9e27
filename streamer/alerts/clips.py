"""The sound around an alert, kept where people ask for it (`delivery.history.clips`).

    capture thread ── TappedSource ──► ClipRing (the last seconds) ◄── history thread: cuts and writes WAV files

The tap copies references to blocks, nothing else. Positions are those of the capture clock: lost samples count.
"""

import os
import threading
import wave
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamer.audio.block import AudioBlock, Source
from streamer.events import SAMPLE_RATE

KEPT_S = 45.0  # of sound: an alert may be raised a while after its onset
FULL_SCALE = 32767


class ClipRing:
    """The last seconds of one stream. Full-queue rule: the oldest blocks go. For several threads."""

    def __init__(self, kept_samples: int = round(KEPT_S * SAMPLE_RATE)) -> None:
        self._kept = kept_samples
        self._blocks: deque[tuple[int, NDArray[np.float32]]] = deque()  # first sample, float32 [n]
        self._lock = threading.Lock()
        self._end = 0
        self.ended = False

    @property
    def end(self) -> int:
        """The sample after the last one."""
        return self._end

    def push(self, block: AudioBlock) -> None:
        """Take a block of the source."""
        with self._lock:
            start = self._end + block.lost_samples
            if len(block.samples):
                self._blocks.append((start, block.samples))
            self._end = start + len(block.samples)
            while self._blocks and self._blocks[0][0] + len(self._blocks[0][1]) <= self._end - self._kept:
                self._blocks.popleft()

    def cut(self, start: int, end: int) -> NDArray[np.float32]:
        """What there is of samples `start` to `end`, float32 [n]; zeros where some were lost in between."""
        with self._lock:
            blocks = [(first, block) for first, block in self._blocks if first < end and first + len(block) > start]
        if not blocks:
            return np.zeros(0, np.float32)
        first = max(start, blocks[0][0])
        last = min(end, blocks[-1][0] + len(blocks[-1][1]))
        found = np.zeros(last - first, np.float32)
        for position, block in blocks:
            begin, stop = max(first, position), min(last, position + len(block))
            found[begin - first : stop - first] = block[begin - position : stop - position]
        return found


class TappedSource:
    """`source`, whose blocks also go to `ring`."""

    def __init__(self, source: Source, ring: ClipRing) -> None:
        self._source, self._ring = source, ring

    @property
    def name(self) -> str:
        """The source's."""
        return self._source.name

    @property
    def live(self) -> bool:
        """The source's."""
        return self._source.live

    @property
    def sample_rate(self) -> int:
        """The source's, in Hz."""
        return self._source.sample_rate

    def blocks(self) -> Iterator[AudioBlock]:
        """The source's; see `Source.blocks`."""
        try:
            for block in self._source.blocks():
                self._ring.push(block)
                yield block
        finally:
            self._ring.ended = True

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def write_wav(path: Path, samples: NDArray[np.float32]) -> None:
    """Write float32 [n] in -1..1 as 16-bit mono at 16 kHz, for this user only. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    pcm = np.round(np.clip(np.nan_to_num(samples), -1, 1) * FULL_SCALE).astype("<i2")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file, wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLE_RATE)
        sound.writeframes(pcm.tobytes())


def limit_folder(folder: Path, max_bytes: int) -> int:
    """Delete the oldest clips until the others fit; how many went. Raises OSError."""
    clips = sorted(folder.glob("*.wav"), key=lambda path: path.stat().st_mtime)
    excess = sum(path.stat().st_size for path in clips) - max_bytes
    gone = 0
    for path in clips[:-1]:
        if excess <= 0:
            break
        excess -= path.stat().st_size
        path.unlink()
        gone += 1
    return gone
