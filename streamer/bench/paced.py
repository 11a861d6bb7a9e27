"""Streams in real time through the live program's own threads, and when their events came out.

A stream is `Pipeline` (capture and listener threads) and the shared `Worker`, as in `streamer run`, without files and
servers. Times are seconds since a stream's first sample would have been recorded.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from streamer.audio.block import BLOCK_SAMPLES, AudioBlock
from streamer.bench.peers import Samples
from streamer.errors import StreamerError
from streamer.events import SAMPLE_RATE, Event
from streamer.model.engine import Engine
from streamer.runtime.pipeline import Pipeline
from streamer.runtime.shutdown import stop_all
from streamer.runtime.stream import Hearing
from streamer.runtime.worker import Worker
from streamer.settings.config import Settings

PATIENCE_S = 30.0  # after its end a stream that is so far behind is given up


class PacedSource:
    """Samples in blocks of 50 ms, each when its last sample would have been recorded, whatever the consumer does."""

    name, live, sample_rate = "bench", True, SAMPLE_RATE

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._closed = threading.Event()
        self.began_s = 0.0

    def blocks(self) -> Iterator[AudioBlock]:
        """The blocks, once."""
        self.began_s = time.monotonic()
        for start in range(0, len(self._samples), BLOCK_SAMPLES):
            block = self._samples[start : start + BLOCK_SAMPLES]
            due = self.began_s + (start + len(block)) / SAMPLE_RATE
            if self._closed.wait(max(0.0, due - time.monotonic())):
                return
            yield AudioBlock(block)

    def close(self) -> None:
        """End `blocks`."""
        self._closed.set()


@dataclass(slots=True)
class Heard:
    """One stream's events, each with the second at which it came out."""

    events: list[tuple[Event, float]] = field(default_factory=list)


def run_streams(engine: Engine, settings: Settings, recordings: Sequence[Samples]) -> list[Heard]:
    """Run a stream of each recording at once, begun evenly over one hop; what came out of each.

    Raises StreamerError when one fails or does not end.
    """
    worker = Worker(engine)
    worker.start()
    heard, pipelines = [Heard() for _ in recordings], []
    for number, (found, samples) in enumerate(zip(heard, recordings, strict=True)):
        source = PacedSource(samples)

        def emit(events: Sequence[Event], found: Heard = found, source: PacedSource = source) -> None:
            at = time.monotonic() - source.began_s
            found.events += [(event, at) for event in events]

        hearing = Hearing(engine.model, settings, f"s{number + 1}")
        pipelines.append(Pipeline(source, settings, worker, hearing, emit))
    for pipeline in pipelines:
        pipeline.start()
        time.sleep(settings.window.hop_s / len(recordings))
    try:
        end = time.monotonic() + max(map(len, recordings)) / SAMPLE_RATE + PATIENCE_S
        for pipeline in pipelines:
            while not pipeline.lane.done.wait(max(0.0, min(1.0, end - time.monotonic()))):
                if time.monotonic() >= end or worker.failure:
                    break
    finally:
        stop_all([pipeline for pipeline in pipelines if not pipeline.done], 0.0)
        worker.stop(PATIENCE_S)
    failure = worker.failure or next((pipeline.failure for pipeline in pipelines if pipeline.failure), None)
    if failure:
        raise StreamerError(f"bench: a stream failed: {failure}")
    return heard
