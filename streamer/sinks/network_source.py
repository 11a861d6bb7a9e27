"""The sound of one `/ingest` client as a source: what `streamer.audio` has for microphones and files, for the network.

`blocks` runs in the session's capture thread; the queue behind it is filled by the event loop of the server.
"""

from collections.abc import Iterator

import numpy as np

from streamer.audio.block import BLOCK_SAMPLES, AudioBlock
from streamer.audio.pcm import mix_to_mono
from streamer.audio.resample import BlockMaker
from streamer.sinks.ingest import PcmPiece, PcmQueue

_WAIT_S = 0.25  # how long one look for more sound takes at most
_LOST = "the client sent sound faster than it could be taken"


class NetworkSource:
    """A `streamer.audio.block.Source` that reads a `PcmQueue`.

    `live` False: the consumer sets the pace, the queue slows the client down, and only then drops (see `PcmQueue`).
    """

    def __init__(self, queue: PcmQueue, *, live: bool = False) -> None:
        self.name = f"network {queue.session}"
        self.live = live
        self.sample_rate = queue.start.sample_rate
        self._queue = queue

    def blocks(self) -> Iterator[AudioBlock]:
        """Blocks of at most 50 ms, until the client stops or goes away, or `close`."""
        maker = BlockMaker(self.sample_rate)
        while not self._queue.ended:
            piece = self._queue.read(_WAIT_S)
            if piece is not None:
                yield from self._cut(self._heard(maker, piece))
        yield from self._cut(maker.finish())

    def close(self) -> None:
        """End `blocks`; the client is told that the session is over."""
        self._queue.close()

    def _heard(self, maker: BlockMaker, piece: PcmPiece) -> Iterator[AudioBlock]:
        if piece.lost_frames:
            yield from maker.lost(piece.lost_frames, _LOST)
        frames = np.frombuffer(piece.pcm, np.dtype("<i2")).reshape(-1, self._queue.start.channels)
        yield from maker.push(mix_to_mono(frames))

    def _cut(self, blocks: Iterator[AudioBlock]) -> Iterator[AudioBlock]:
        for block in blocks:
            if block.lost_samples:
                yield block
                continue
            for at in range(0, len(block.samples), BLOCK_SAMPLES):
                yield AudioBlock(block.samples[at : at + BLOCK_SAMPLES])
