"""Sound that clients send to `/ingest`: each sender is a source with a pipeline and a session of its own.

A sender that names one of the `sources:` with `input: ingest` has that entry's settings; others have the common ones.
"""

import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from streamer.audio.block import AudioBlock, empty
from streamer.audio.resample import BlockMaker, Mixer
from streamer.errors import UsageError
from streamer.events import SAMPLE_RATE
from streamer.runtime.inputs import Input, session_name
from streamer.runtime.pipeline import Pipeline
from streamer.server.ingest import MAX_SENDERS, IngestFullError, IngestStart, PcmQueue
from streamer.settings.config import Settings

READ_S = 0.2
LOST = "the sender was faster than it can be taken"


class IngestSource:
    """A `Source` over the queue of one sender. `stall_s`: so long without sound is `no_audio`."""

    def __init__(self, queue: PcmQueue, stall_s: float) -> None:
        self.name = queue.session
        self.live = False  # a sender can be made to wait
        self.sample_rate = queue.start.sample_rate
        self._queue, self._stall_s = queue, stall_s

    def blocks(self) -> Iterator[AudioBlock]:
        """Blocks until the sender stops or goes away."""
        start = self._queue.start
        maker, mixer = BlockMaker(start.sample_rate), Mixer(start.sample_rate)
        heard_s, silent = time.monotonic(), False
        while not self._queue.ended:
            piece = self._queue.read(READ_S)
            if piece is None:
                if not silent and time.monotonic() - heard_s > self._stall_s:
                    silent = True
                    yield AudioBlock(empty(), state="no_audio", reason="the sender is silent")
                continue
            heard_s, silent = time.monotonic(), False
            if piece.lost_frames:
                yield from maker.lost(piece.lost_frames, LOST)
            mono = mixer.push(np.frombuffer(piece.pcm, "<i2").reshape(-1, start.channels))
            if notice := mixer.take_notice():
                yield AudioBlock(empty(), notice=notice)
            yield from maker.push(mono)
        yield from maker.finish()

    def waiting_samples(self) -> int:
        """What the sender sent and nobody has read, as samples of 16 kHz."""
        return self._queue.held_frames * SAMPLE_RATE // self.sample_rate

    def close(self) -> None:
        """Take no more; `blocks` ends with what was received."""
        self._queue.stop()


class Ingests:
    """Opens a pipeline for every sender. `open` runs in the server's event loop, `sweep` in the main thread."""

    def __init__(
        self,
        make: Callable[[Input], Pipeline],
        closed: Callable[[str], None],
        settings: Settings,
        named: Mapping[str, Settings],
    ) -> None:
        """`make` builds a sender's pipeline; `closed` hears of sessions that ended; `named`: settings by source."""
        self._make, self._closed, self._settings, self._named = make, closed, settings, named
        self._open: dict[str, Pipeline] = {}
        self._count = 0

    def open(self, start: IngestStart) -> PcmQueue:
        """A session for one more sender. Raises IngestFullError when there are too many, UsageError for its source."""
        if start.source is not None and start.source not in self._named:
            known = ", ".join(self._named) or "none"
            raise UsageError(f"source: {start.source!r} is no source with `input: ingest` here; there are: {known}")
        if len(self._open) >= MAX_SENDERS:
            raise IngestFullError(f"ingest: {MAX_SENDERS} senders are heard already; try later")
        self._count += 1
        settings = self._settings if start.source is None else self._named[start.source]
        queue = PcmQueue(start, session_name(f"{start.source or 'in'}{self._count}"))
        source = IngestSource(queue, settings.audio.stall_s)
        pipeline = self._make(Input(queue.session, source, settings, waiting_samples=source.waiting_samples))
        self._open[pipeline.name] = pipeline
        pipeline.start()
        return queue

    def sweep(self) -> None:
        """Close the sessions of senders that are done."""
        for name in [name for name, pipeline in self._open.items() if pipeline.done]:
            del self._open[name]
            self._closed(name)
