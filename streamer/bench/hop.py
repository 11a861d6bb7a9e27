"""`streamer bench hop`: what people's speech costs with official weights at their defaults, and where that goes.

The bundled demo (52 s of two readers, an alarm and pauses), as the live program hears it: the model as it is loaded
for listening, hops of 0.5 s, the real decoder. Beside it, at every fourth hop that writes text, what the known
streaming programs do: they decode the last 10 s anew, padded to 30 s, greedily. All run in one process with the same
threads, in turn; ratios are of mean processor times. The split is of one more run, each part without what is
named apart from it: processor time, on a GPU wall-clock time.
"""

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import streamer
from streamer.audio.files import demo_path, read_audio
from streamer.bench.peers import PEERS, Peer, Samples, peers_at_hand
from streamer.events import SAMPLE_RATE
from streamer.measure.report import Report, Table
from streamer.model.checkpoint import compute_target, load_module
from streamer.model.choice import Wish, load_model
from streamer.model.machine_facts import load, machine_facts
from streamer.model.whisper import Model
from streamer.settings.config import Settings, SpeechSettings

HOP_SAMPLES = SAMPLE_RATE // 2
LOOP_SAMPLES = 10 * SAMPLE_RATE  # of audio that the known programs decode anew at each hop
PEER_EVERY = 4  # hops
PARTS = {
    "mel": "mel frames",
    "encoder": "encoder",
    "keys": "cross-attention keys and values",
    "decoder": "decoder",
    "times": "word times",
    "gate": "conditioning and voice detection",
    "patterns": "patterns of alarms and sirens",
    "captions": "policy and guards",
    "alerts": "rules of alerts",
    "rest": "the rest: plans, events, tensors",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `models`: names or paths; `peers` by their names; `head`: as `--head`, None: captions only."""

    models: tuple[str, ...] = ("tiny.en", "base")
    threads: int = 1
    peers: tuple[str, ...] = PEERS
    compute: str = "auto"
    dtype: str = "auto"
    head: str | None = "auto"


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


def measure(plan: Plan, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Run the plan. Raises what loading a model raises."""
    torch.set_num_threads(plan.threads)
    device, _ = compute_target(plan.compute)
    samples = read_audio(demo_path("voices"))
    result: dict[str, Any] = {
        "bench": "hop",
        "machine": machine_facts(plan.threads, device),
        "audio_s": round(len(samples) / SAMPLE_RATE, 1),
        "models": {},
    }
    for name in plan.models:
        say(f"hop: {name}, {device}")
        result["models"][name] = found = _measure_model(name, plan, samples)
        for reason in found["absent"].values():
            say(f"hop: left out: {reason}")
    result["load_after"] = load()
    return result


def _measure_model(name: str, plan: Plan, samples: Samples) -> dict[str, Any]:
    model = load_model(name, head=plan.head, device=plan.compute, dtype=plan.dtype, wish=Wish(frozenset({"en"})))
    with tempfile.TemporaryDirectory() as folder:
        peers, absent = peers_at_hand(plan.peers, load_module(name), Path(folder), plan.threads, model.device)
        _listen(model, samples[: 10 * SAMPLE_RATE])  # warm-up
        costs, beside = _listen(model, samples, peers)
    clock = time.process_time if model.device.type == "cpu" else time.perf_counter
    watch = Stopwatch(partial(wait, model.device), clock)
    began = clock()
    _listen(model, samples, watch=watch)
    split = watch.take()
    split["rest"] = clock() - began - sum(split.values())
    seconds = len(samples) / SAMPLE_RATE
    hop = statistics.mean(cost for cost, wrote in costs if wrote)
    return {
        "precision": model.precision,
        "margin_s": None if model.variable_context else model.margin_frames / 100,
        "head": model.head.name if model.head else None,
        "absent": absent,
        "cpu_s_per_s": round(sum(cost for cost, _ in costs) / seconds, 3),
        "hops_with_text": sum(wrote for _, wrote in costs),
        "hop_cpu_ms": round(1000 * hop, 1),
        "peer_cpu_ms": {peer: round(1000 * statistics.mean(found), 1) for peer, found in beside.items()},
        "ratios": {peer: round(statistics.mean(found) / hop, 1) for peer, found in beside.items()},
        "split_ms_per_s": {part: round(1000 * split.get(part, 0.0) / seconds, 2) for part in PARTS},
    }


def _listen(
    model: Model, samples: Samples, peers: Sequence[Peer] = (), watch: Stopwatch | None = None
) -> tuple[list[tuple[float, bool]], dict[str, list[float]]]:
    """Processor seconds of each hop and whether it wrote text; those of the peers at some of them."""
    stream = streamer.Stream(model, Settings(speech=SpeechSettings(language="en")))
    if watch:
        _watch(stream, model, watch)
    costs: list[tuple[float, bool]] = []
    beside: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for start in range(0, len(samples) - HOP_SAMPLES + 1, HOP_SAMPLES):
        before, began = stream.engine.search.windows, time.process_time()
        stream.push(samples[start : start + HOP_SAMPLES])
        costs.append((time.process_time() - began, stream.engine.search.windows > before))
        if costs[-1][1] and sum(wrote for _, wrote in costs) % PEER_EVERY == 0:
            end = start + HOP_SAMPLES
            for peer in peers:
                began = time.process_time()
                peer.decode(samples[max(0, end - LOOP_SAMPLES) : end], None)
                beside[peer.name].append(time.process_time() - began)
    stream.finish()
    return costs, beside


def _watch(stream: "streamer.Stream", model: Model, watch: Stopwatch) -> None:
    hearing, listener = stream._hearing, stream._listener
    session, search = hearing.session, stream.engine.search
    for owner, method, part in (
        *((hearing.mel, method, "mel") for method in ("append", "discard_before", "window")),
        (model, "encode_windows", "encoder"),
        (search, "decode", "decoder"),
        (search.decoder, "open", "keys"),
        (stream.engine, "_hypothesis", "times"),
        (listener, "step", "gate"),
        (session, "_patterns", "patterns"),
        (session.text, "prepare", "captions"),
        (session.text, "step", "captions"),
        (session.text, "hear", "captions"),
        (session, "_alerts", "alerts"),
    ):
        watch.watch(owner, method, part)


def report(result: Mapping[str, Any]) -> Report:
    """The page: costs, ratios, and where the time goes."""
    models: Mapping[str, Any] = result["models"]
    peers = sorted({peer for row in models.values() for peer in row["ratios"]}, reverse=True)
    totals = {name: sum(row["split_ms_per_s"].values()) for name, row in models.items()}
    return Report(
        name="hop",
        title="One hop of 0.5 s",
        about=" ".join((__doc__ or "").split("\n\n")[1].split()),
        result=result,
        tables=(
            Table(
                "Processor time with official weights at their defaults, English",
                (
                    *("weights", "precision", "silence behind a window s", "head", "seconds a second of audio"),
                    *("ms a hop with text", *(f"{peer} ms" for peer in peers), *(f"{peer} / ours" for peer in peers)),
                ),
                [
                    [
                        *(name, row["precision"], row["margin_s"], row["head"], row["cpu_s_per_s"], row["hop_cpu_ms"]),
                        *(row["peer_cpu_ms"].get(peer) for peer in peers),
                        *(row["ratios"].get(peer) for peer in peers),
                    ]
                    for name, row in models.items()
                ],
            ),
            Table(
                "Where one second of audio goes: milliseconds, and their share",
                ("part", *models),
                [
                    [
                        what,
                        *(
                            f"{row['split_ms_per_s'][part]:.1f} ({row['split_ms_per_s'][part] / totals[name]:.0%})"
                            for name, row in models.items()
                        ),
                    ]
                    for part, what in PARTS.items()
                ],
            ),
        ),
    )
