"""`streamer bench throughput`: how many live streams this machine carries.

With a model: N streams of the bundled demo (two readers, an alarm), each begun elsewhere in it, paced in real time
through the threads and the batching worker of the live program, at its defaults but a hop that never grows. A stream
counts as carried while the 95th percentile of commit latency (real time, from a word's end as the model places it) is
below 2 s; where one stream alone is later than that, at most half a second later than it.

With a size: random weights of an official size with a random head; N streams of lively talk (about three words a
second, hardly a pause) paced in real time through the threads and the batching worker of the live program; the
decoder's words are given, everything is paid for; latency is from the word's true end. Beside it: decoder tokens and
whole hops a second, batched and one after the other.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streamer.audio.files import demo_path, read_audio
from streamer.audio.mel import MelFrames
from streamer.bench import clock as on
from streamer.bench.clock import Heard, run_streams
from streamer.bench.hop import NEW_TOKENS, PREFIX_TOKENS, SPANS_S, noise
from streamer.bench.scripted import (
    ScriptedEngine,
    Spoken,
    Teacher,
    fixed_hop,
    lively_speech,
    random_model,
    random_whisper,
    settings,
)
from streamer.config import Settings
from streamer.events import SAMPLE_RATE, Gap, Status, Transcript, Word
from streamer.measure import machine
from streamer.measure.report import Report, Table
from streamer.model.checkpoint import compute_target
from streamer.model.choice import Wish, load_model
from streamer.model.decoding.search import AudioWindow
from streamer.model.engine import Context, Engine
from streamer.model.whisper import Model
from streamer.plans import DecodeTask, StepRequest
from streamer.settings.config import SpeechSettings

LIMIT_S = 2.0  # p95 of commit latency
LATER_S = 0.5  # than one stream alone, where that takes longer
CONTEXT_S = 10.0
BATCHES = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `seconds`: of audio for each trial; `most`: streams to try at most; `repeats` of each rate."""

    size: str = "base"
    seconds: float = 15.0
    threads: int = 1
    most: int = 128
    repeats: int = 5
    context: Context = "fit"
    compute: str = "auto"
    dtype: str = "auto"


def measure(plan: Plan, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Run the plan."""
    torch.set_num_threads(plan.threads)
    device, dtype = compute_target(plan.compute, plan.dtype)
    facts = machine.facts(plan.threads, on.name(device))
    result: dict[str, Any] = {"bench": "throughput", "machine": facts, "size": plan.size}
    model = random_model(random_whisper(plan.size), plan.size, device=device, dtype=dtype)
    result |= {"dtype": str(dtype).removeprefix("torch."), "context": plan.context}
    result["decoder_tokens_per_s"] = decoder_rates(model, plan.repeats)
    say("throughput: decoder measured")
    result["hops_per_s"] = hop_rates(model, plan.context, plan.repeats)
    say("throughput: hops measured")
    spoken = lively_speech(plan.seconds)
    engine = ScriptedEngine(model, spoken, context=plan.context)
    engine.warm_up()
    trials = carried(lambda count: trial(engine, spoken, count), plan.most, say)
    good = [row["streams"] for row in trials if row["carried"]]
    result |= {"trials": trials, "streams": max(good, default=0), "load_after": machine.load()}
    return result


@dataclass(frozen=True, slots=True)
class SpokenPlan:
    """With a real model. `seconds`: of audio for each trial; `most`: streams to try at most."""

    model: str = "tiny.en"
    seconds: float = 30.0
    threads: int = 1
    most: int = 128
    compute: str = "auto"
    dtype: str = "auto"


def measure_spoken(plan: SpokenPlan, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Run the plan with a model and people's speech. Raises what loading a model raises."""
    torch.set_num_threads(plan.threads)
    device, _ = compute_target(plan.compute)
    facts = machine.facts(plan.threads, on.name(device))
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
        "load_after": machine.load(),
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


def trial(engine: ScriptedEngine, spoken: Spoken, count: int) -> dict[str, Any]:
    """One number of streams: commit latencies in real time, and how much was left out."""
    before = engine.model.encoder_passes
    heard = run_streams(engine, settings(), [spoken.samples] * count)
    latencies = [value for one in heard for value in commit_latencies(one, spoken, engine.places_by_word)]
    passes = engine.model.encoder_passes - before
    row = _row(heard, latencies, passes, len(spoken.samples) / SAMPLE_RATE)
    committed = row["words"] / (count * len(spoken.ends))
    return row | {"words_committed": round(committed, 3), "carried": row["carried"] and committed >= 0.95}


def _row(
    heard: Sequence[Heard], latencies: Sequence[float], passes: int, seconds: float, limit_s: float = LIMIT_S
) -> dict[str, Any]:
    events = [event for one in heard for event, _ in one.events]
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


def committed_words(heard: Heard) -> Iterator[tuple[Word, float]]:
    """Each committed word, and when the event came out that committed it."""
    counts: dict[int, int] = {}
    for event, at in heard.events:
        if isinstance(event, Transcript):
            yield from ((word, at) for word in event.words[counts.get(event.segment, 0) :])
            counts[event.segment] = len(event.words)


def commit_latencies(heard: Heard, spoken: Spoken, places: Mapping[str, int]) -> list[float]:
    """Seconds from the true end of each committed word to when its event came out."""
    return [
        at - spoken.ends[places[word.word]] / SAMPLE_RATE for word, at in committed_words(heard) if word.word in places
    ]


def decoder_rates(model: Model, repeats: int, batches: Sequence[int] = BATCHES) -> dict[str, float]:
    """Tokens a second written one by one, for so many windows at once: the prefix's step is not counted."""
    teacher, more = Teacher(model), 24
    frames = round(CONTEXT_S * 50)
    features = torch.randn(frames, model.dims.n_audio_state).to(model.device, model.dtype)

    def seconds(count: int, tokens: int) -> float:
        task = DecodeTask("en", prefix=teacher.text(PREFIX_TOKENS), max_new_tokens=tokens)
        start = time.perf_counter()
        teacher.decode([AudioWindow(features, frames)] * count, [task] * count)
        return time.perf_counter() - start

    def rate(count: int) -> float:
        return count * more / max(seconds(count, 1 + more) - seconds(count, 1), 1e-9)

    return _medians({str(count): partial(rate, count) for count in batches}, repeats)


def hop_rates(model: Model, context: Context, repeats: int, batches: Sequence[int] = BATCHES) -> dict[str, Any]:
    """Whole hops a second (every second one with tags): so many streams in one step, and one after the other."""
    teacher, engine = Teacher(model), Engine(model, context=context)
    engine.search = teacher
    engine.warm_up()
    task = DecodeTask("en", prefix=teacher.text(PREFIX_TOKENS), max_new_tokens=NEW_TOKENS)
    end = round(CONTEXT_S * SAMPLE_RATE)
    work = []
    for number in range(max(batches)):
        mel = MelFrames(model.dims.n_mels)
        mel.append(noise(np.random.default_rng(number), CONTEXT_S))
        work.append((mel, StepRequest(0, end, SPANS_S if number % 2 else (), task)))

    def together(count: int) -> float:
        start = time.perf_counter()
        engine.step(work[:count])
        return count / (time.perf_counter() - start)

    def alone(count: int) -> float:
        start = time.perf_counter()
        for item in work[:count]:
            engine.step([item])
        return count / (time.perf_counter() - start)

    runs: dict[str, Callable[[], float]] = {}
    for count in batches:
        runs[f"batched {count}"] = partial(together, count)
        runs[f"alone {count}"] = partial(alone, count)
    rates = _medians(runs, repeats)
    return {
        str(count): {
            "batched": rates[f"batched {count}"],
            "one_after_the_other": rates[f"alone {count}"],
            "ratio": round(rates[f"batched {count}"] / rates[f"alone {count}"], 2),
        }
        for count in batches
    }


def _medians(runs: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The median of each run, all of them once a round after one to warm up."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for round_number in range(repeats + 1):
        for name, run in runs.items():
            value = run()
            if round_number:
                found[name].append(value)
    return {name: round(float(np.median(values)), 2) for name, values in found.items()}


def report(result: Mapping[str, Any]) -> Report:
    """The page: streams, tokens, hops."""
    trials: Sequence[Mapping[str, Any]] = result["trials"]
    hops: Mapping[str, Any] = result["hops_per_s"]
    return Report(
        name=f"throughput_{result['size']}",
        title=f"Streams on one machine: {result['size']}, {result['dtype']}, `{result['context']}` context",
        about=" ".join((__doc__ or "").split("\n\n")[2].split()) + f" **Carried: {result['streams']} streams.**",
        result=result,
        tables=(
            _paced(trials),
            Table(
                "Tokens and hops a second",
                ("streams", "decoder tokens/s", "hops/s batched", "hops/s one after the other", "ratio"),
                [[count, result["decoder_tokens_per_s"].get(count), *row.values()] for count, row in hops.items()],
            ),
        ),
        draw=lambda figure: _draw(figure, trials),
    )


def spoken_report(result: Mapping[str, Any]) -> Report:
    """The page of a real model."""
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
