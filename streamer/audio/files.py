"""Audio and video files as a source: streamed in real time or as fast as they go, or read whole."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamer.audio.block import BLOCK_SAMPLES, AudioBlock, Clock, Pacer, SystemClock, empty
from streamer.audio.resample import BlockMaker
from streamer.audio.track import AudioTrack
from streamer.errors import InputError
from streamer.events import SAMPLE_RATE

_log = logging.getLogger(__name__)

_DEMOS = {"nano": "demo.flac"}  # by model: its own, with words that it knows
_VOICES = "demo_voices.ogg"  # for every other: people


class FileSource:
    """One audio track of a file, decoded as it goes. `realtime`: each block waits until it would have sounded.

    Raises InputError when the file is missing, damaged from the start, or has no sound.
    """

    def __init__(
        self,
        path: str,
        *,
        realtime: bool,
        clock: Clock | None = None,
        label: str = "--input",
        track: int | None = None,
    ) -> None:
        """`label` names the file in errors: the option that gave it. `track`: as in `AudioTrack`."""
        self.name, self._where = Path(path).name, f"{label} {path}"
        self.live = realtime
        self._track = AudioTrack(path, label, track)
        self.duration_s = self._track.duration_s
        self.sample_rate = self._track.rate
        self._closed = threading.Event()
        self._pacer = Pacer(clock or SystemClock(), self._closed, SAMPLE_RATE) if realtime else None

    def blocks(self) -> Iterator[AudioBlock]:
        """Blocks of at most 50 ms; once. What cannot be decoded is a loss or a `degraded` block, never an exception."""
        heard = 0
        try:
            for block in track_blocks(self._track):
                if not self._may_go(block):
                    return
                heard += len(block.samples)
                yield block
            if not heard:
                _log.warning("%s: has no sound in it", self._where)
        finally:
            self._track.close()

    def close(self) -> None:
        """End `blocks`."""
        self._closed.set()

    def _may_go(self, block: AudioBlock) -> bool:
        if self._pacer is None:
            return not self._closed.is_set()
        return self._pacer.wait_for(block.lost_samples + len(block.samples))


def read_audio(path: str) -> NDArray[np.float32]:
    """A whole file as float32 [n], 16 kHz mono; what is broken inside is zeros. Raises InputError as `FileSource`."""
    track = AudioTrack(path, label="file")
    try:
        parts = [
            part for block in track_blocks(track) for part in (np.zeros(block.lost_samples, np.float32), block.samples)
        ]
    finally:
        track.close()
    return np.concatenate(parts) if parts else empty()


def demo_path(model: str = "nano") -> str:
    """The bundled demo that fits a model. Raises InputError when this installation has none."""
    path = Path(__file__).parent.parent / "data" / _DEMOS.get(model, _VOICES)
    if not path.is_file():
        raise InputError(f"--input demo: {path} is missing; install Streamer again, or give a file")
    return str(path)


def track_blocks(track: AudioTrack) -> Iterator[AudioBlock]:
    """Everything in `track`, in blocks of at most `BLOCK_SAMPLES`."""
    maker = BlockMaker(track.rate)
    for piece in track.pieces():
        if piece.notice:
            yield AudioBlock(empty(), notice=piece.notice)
        if piece.rate != maker.rate:
            yield from _cut(maker.change_rate(piece.rate))
        if piece.lost_frames:
            yield from _cut(maker.lost(piece.lost_frames, piece.complaint))
        elif piece.complaint:
            yield AudioBlock(empty(), reason=piece.complaint, state="degraded")
        yield from _cut(maker.push(piece.samples))
    yield from _cut(maker.finish())


def _cut(blocks: Iterator[AudioBlock]) -> Iterator[AudioBlock]:
    """The same sound in blocks of at most `BLOCK_SAMPLES`."""
    for block in blocks:
        if len(block.samples) <= BLOCK_SAMPLES:
            yield block
            continue
        for at in range(0, len(block.samples), BLOCK_SAMPLES):
            yield AudioBlock(block.samples[at : at + BLOCK_SAMPLES])
