"""`streamer bench throughput`: how many live streams this machine carries.

N streams of the bundled demo (two readers, an alarm), each begun elsewhere in it, paced in real time through the
threads and the batching worker of the live program, at its defaults but a hop that never grows. A stream counts as
carried while the 95th percentile of commit latency (real time, from a word's end as the model places it) is below 2 s;
where one stream alone is later than that, at most half a second later than it.

A stream is `Pipeline` (capture and listener threads) and the shared `Worker`, as in `streamer run`, without files and
servers. Its times are seconds since its first sample would have been recorded.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamer.audio.block import BLOCK_SAMPLES, AudioBlock
from streamer.audio.files import demo_path, read_audio
from streamer.errors import StreamerError
from streamer.events import SAMPLE_RATE, Event, Gap, Status, Transcript, Word
from streamer.measure.report import Report, Table
from streamer.model.checkpoint import compute_target
from streamer.model.choice import Wish, load_model
from streamer.model.engine import Engine, StepEngine
from streamer.model.machine_facts import load, machine_facts
from streamer.runtime.pipeline import Pipeline
from streamer.runtime.shutdown import stop_all
from streamer.runtime.stream import Hearing
from streamer.runtime.worker import HANG_S, Worker
from streamer.settings.config import Settings, SpeechSettings

LIMIT_S = 2.0  # p95 of commit latency
LATER_S = 0.5  # than one stream alone, where that takes longer
PATIENCE_S = 30.0  # after its end a stream that is so far behind is given up
Samples = NDArray[np.float32]
Timed = list[tuple[Event, float]]  # one stream's events, each with the second at which it came out


def fixed_hop(settings: Settings) -> Settings:
    """The same settings with a hop that never grows: a machine that cannot keep up is to show in the latency."""
    return settings.model_copy(
        update={"window": settings.window.model_copy(update={"hop_max_s": settings.window.hop_s})}
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `seconds`: of audio for each trial; `most`: streams to try at most."""

    model: str = "tiny.en"
    seconds: float = 20.0
    threads: int = 1
    most: int = 128
    compute: str = "auto"
    dtype: str = "auto"


def measure(plan: Plan, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Run the plan. Raises what loading a model raises."""
    torch.set_num_threads(plan.threads)
    device, _ = compute_target(plan.compute)
    facts = machine_facts(plan.threads, device)
    wish = Wish(frozenset({"en"}))
    model = load_model(plan.model, head=None, device=plan.compute, dtype=plan.dtype, wish=wish)
    engine = Engine(model)
    engine.warm_up()
    whole = read_audio(demo_path("voices"))
    length = round(plan.seconds * SAMPLE_RATE)
    defaults = fixed_hop(Settings(speech=SpeechSettings(language="en")))

    def attempt(count: int, limit_s: float) -> dict[str, Any]:
        starts = np.linspace(0, len(whole), count, endpoint=False).astype(int)
        speech = [np.resize(np.roll(whole, -start), length) for start in starts]
        before = model.encoder_passes
        heard = run_streams(engine, defaults, speech)
        late = [at - word.end for one in heard for word, at in committed_words(one)]
        return _row(heard, late, model.encoder_passes - before, plan.seconds, limit_s)

    alone = attempt(1, float("inf"))
    limit_s = max(LIMIT_S, (alone["commit_p95_s"] or 0.0) + LATER_S)
    trials = carried(lambda count: alone if count == 1 else attempt(count, limit_s), plan.most, say)
    good = [row["streams"] for row in trials if row["carried"]]
    return {
        "bench": "throughput",
        "machine": facts,
        "model": plan.model,
        "precision": model.precision,
        "limit_s": round(limit_s, 2),
        "trials": trials,
        "streams": max(good, default=0),
        "load_after": load(),
    }


def carried(
    attempt: Callable[[int], dict[str, Any]], most: int, say: Callable[[str], None] = lambda line: None
) -> list[dict[str, Any]]:
    """Trials on the way to the largest number of streams that is carried: doubling, then halving the gap."""
    rows: dict[int, dict[str, Any]] = {}
    low, high, count = 0, most + 1, 1
    while low < count < high:
        rows[count] = attempt(count)
        say(f"throughput: {count} streams, p95 {rows[count]['commit_p95_s']}")
        if rows[count]["carried"]:
            low = count
        else:
            high = count
        count = min(2 * low, most) if high > most else (low + high) // 2
        if high - low <= max(1, low // 16):
            break
    return [rows[count] for count in sorted(rows)]


def _row(
    heard: Sequence[Timed], latencies: Sequence[float], passes: int, seconds: float, limit_s: float = LIMIT_S
) -> dict[str, Any]:
    events = [event for one in heard for event, _ in one]
    p50, p95 = (round(float(value), 3) for value in np.percentile(latencies, (50, 95))) if latencies else (None, None)
    return {
        "streams": len(heard),
        "commit_p50_s": p50,
        "commit_p95_s": p95,
        "words": len(latencies),
        "degraded": sum(isinstance(event, Status) and event.state == "degraded" for event in events),
        "gaps": sum(isinstance(event, Gap) for event in events),
        "passes_per_stream_second": round(passes / len(heard) / seconds, 2),
        "carried": p95 is not None and p95 < limit_s,
    }


def committed_words(heard: Timed) -> Iterator[tuple[Word, float]]:
    """Each committed word, and when the event came out that committed it."""
    counts: dict[int, int] = {}
    for event, at in heard:
        if isinstance(event, Transcript):
            yield from ((word, at) for word in event.words[counts.get(event.segment, 0) :])
            counts[event.segment] = len(event.words)


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


def run_streams(
    engine: StepEngine, settings: Settings, recordings: Sequence[Samples], hang_s: float = HANG_S
) -> list[Timed]:
    """Run a stream of each recording at once, begun evenly over one hop; what came out of each. `hang_s`: as `Worker`.

    Raises StreamerError when one fails or does not end.
    """
    worker = Worker(engine, hang_s=hang_s)
    worker.start()
    heard: list[Timed] = [[] for _ in recordings]
    pipelines: list[Pipeline] = []
    for number, (found, samples) in enumerate(zip(heard, recordings, strict=True)):
        source = PacedSource(samples)

        def emit(events: Sequence[Event], found: Timed = found, source: PacedSource = source) -> None:
            at = time.monotonic() - source.began_s
            found += [(event, at) for event in events]

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


def report(result: Mapping[str, Any]) -> Report:
    """The page: how late words are by the number of streams."""
    about = " ".join((__doc__ or "").split("\n\n")[1].split())
    return Report(
        name=f"throughput_{Path(result['model']).name}",
        title=f"Streams on one machine: {result['model']}, {result['precision']}",
        about=f"{about} **Carried: {result['streams']} streams** (limit {result['limit_s']} s).",
        result=result,
        tables=(_paced(result["trials"]),),
        draw=lambda figure: _draw(figure, result["trials"]),
    )


def _paced(trials: Sequence[Mapping[str, Any]]) -> Table:
    header = [name.replace("_", " ") for name in trials[0]]
    rows = [[str(value) if isinstance(value, bool) else value for value in row.values()] for row in trials]
    return Table("Paced streams", header, rows)


def _draw(figure: Any, trials: Sequence[Mapping[str, Any]]) -> None:
    axes = figure.subplots()
    counts = [row["streams"] for row in trials]
    for key in ("commit_p50_s", "commit_p95_s"):
        axes.plot(counts, [row[key] if row[key] is not None else float("nan") for row in trials], "o-", label=key)
    axes.axhline(LIMIT_S, color="grey", linestyle="--")
    axes.set(xlabel="paced streams", ylabel="seconds after the word's end", title="Commit latency in real time")
    axes.legend()
