"""What runs by the clock: work on a device that is waited for, parts of a step that are timed, streams in real time.

A stream is `Pipeline` (capture and listener threads) and the shared `Worker`, as in `streamer run`, without files and
servers. Its times are seconds since its first sample would have been recorded.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

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


def name(device: torch.device) -> str | None:
    """The name of a GPU with its memory; None for the processor, which `machine.facts` names."""
    if device.type != "cuda":
        return None
    found = torch.cuda.get_device_properties(device)
    return f"{found.name} ({found.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda})"


def wait(device: torch.device) -> None:
    """Return when all that was queued is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """`seconds` by part, by `clock`. `watch` puts itself around a bound method of one object for good.

    `settle` waits for work that is queued on a device, so that each part is charged with its own.
    """

    def __init__(
        self, settle: Callable[[], None] = lambda: None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._settle, self._clock = settle, clock
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []  # per call under way, the seconds that parts inside it took

    def watch(self, owner: Any, method: str, part: str) -> None:
        """Count the time of `owner.method` as `part`, less that of other watched methods inside it."""
        inside = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            self._settle()
            start = self._clock()
            try:
                return inside(*args, **kwargs)
            finally:
                self._settle()
                took = self._clock() - start
                self.seconds[part] += took - self._inner.pop()
                if self._inner:
                    self._inner[-1] += took

        setattr(owner, method, timed)

    def take(self) -> dict[str, float]:
        """The seconds since the last time, and start anew."""
        taken = dict(self.seconds)
        self.seconds.clear()
        return taken


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
