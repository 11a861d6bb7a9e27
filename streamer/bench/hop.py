"""`streamer bench hop`: what one hop of 0.5 s costs on this machine, beside what the known programs pay for it.

Random weights of the official sizes; 10 s of context, a forced prefix of 36 tokens, exactly 4 new ones
(teacher-forced), a TL-Tr head on every second hop (spans of 2, 5 and 10 s). The peers decode the window anew, padded
to 30 s, 40 tokens. All run in one process on the same device with the same threads, one after the other in every round;
ratios are of medians over the rounds. On a GPU the taps are part of the recorded encoder pass and stand under it.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from whisper.model import Whisper

from streamer.audio.mel import MelFrames
from streamer.bench import clock as on
from streamer.bench.clock import Stopwatch
from streamer.bench.peers import PEERS, Peer, PeerAbsentError, Samples, peers_at_hand
from streamer.bench.scripted import Teacher, random_model, random_whisper
from streamer.events import SAMPLE_RATE
from streamer.measure import machine
from streamer.measure.machine import spinning
from streamer.measure.report import Report, Table
from streamer.model.checkpoint import compute_target
from streamer.model.engine import Context, Engine
from streamer.plans import DecodeTask, StepRequest

HOP_SAMPLES = SAMPLE_RATE // 2
CONTEXT_S = 10.0
PREFIX_TOKENS, NEW_TOKENS = 36, 4
SPANS_S = (2.0, 5.0, 10.0)
PARTS = ("mel", "encoder", "taps", "head", "decoder", "rest")
CONTEXTS: tuple[Context, ...] = ("fit", "padded")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: sizes, threads, rounds without and beside a busy process (0: not), which peers."""

    sizes: tuple[str, ...] = ("tiny", "base", "small")
    threads: int = 1
    rounds: int = 7
    busy_rounds: int = 3
    context_s: float = CONTEXT_S
    peers: tuple[str, ...] = PEERS
    compute: str = "auto"


@dataclass(frozen=True, slots=True)
class Cost:
    """One hop: seconds of wall clock and of processor time, and the wall seconds of its parts."""

    wall_s: float
    cpu_s: float
    parts: Mapping[str, float]


class Hopper:
    """Streamer's own hops: a stream of noise that moves on by 0.5 s each time."""

    def __init__(self, engine: Engine, teacher: Teacher, context_s: float, watch: Stopwatch) -> None:
        self._engine, self._watch = engine, watch
        self._context = round(context_s * SAMPLE_RATE)
        self._rng = np.random.default_rng(0)
        self._mel = MelFrames(engine.model.dims.n_mels)
        self._mel.append(noise(self._rng, context_s))
        engine.search = teacher
        engine.warm_up()
        self._prefix = teacher.text(PREFIX_TOKENS)
        for method in ("append", "discard_before", "window"):
            watch.watch(self._mel, method, "mel")

    def hop(self, *, judge: bool) -> Cost:
        """Take 0.5 s more and run one step."""
        fresh = noise(self._rng, HOP_SAMPLES / SAMPLE_RATE)
        self._watch.take()
        wall, cpu = time.perf_counter(), time.process_time()
        self._mel.append(fresh)
        end = self._mel.end_sample
        task = DecodeTask("en", prefix=self._prefix, max_new_tokens=NEW_TOKENS)
        self._engine.step([(self._mel, StepRequest(end - self._context, end, SPANS_S if judge else (), task))])
        self._mel.discard_before(end - self._context)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        parts = self._watch.take()
        return Cost(wall, cpu, {**parts, "rest": wall - sum(parts.values())})

    def pair(self) -> Cost:
        """The mean of a hop with tags and one without: they are due once a second."""
        both = self.hop(judge=True), self.hop(judge=False)
        return Cost(
            wall_s=statistics.mean(cost.wall_s for cost in both),
            cpu_s=statistics.mean(cost.cpu_s for cost in both),
            parts={part: statistics.mean(cost.parts.get(part, 0.0) for cost in both) for part in PARTS},
        )


def noise(rng: np.random.Generator, seconds: float) -> Samples:
    """White noise at -26 dBFS, float32."""
    return rng.normal(0.0, 0.05, round(seconds * SAMPLE_RATE)).astype(np.float32)


def measure(plan: Plan, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Run the plan. With a single size, its `ratios`, `padded_ratios` and `split_ms` also stand at the top."""
    torch.set_num_threads(plan.threads)
    device, _ = compute_target(plan.compute)
    result: dict[str, Any] = {
        "bench": "hop",
        "machine": machine.facts(plan.threads, on.name(device)),
        "what": {
            "hop_s": HOP_SAMPLES / SAMPLE_RATE,
            "context_s": plan.context_s,
            "prefix_tokens": PREFIX_TOKENS,
            "new_tokens": NEW_TOKENS,
            "peer_tokens": PREFIX_TOKENS + NEW_TOKENS,
            "head": "TL-Tr, random, every second hop",
            "rounds": plan.rounds,
            "busy_rounds": plan.busy_rounds,
        },
        "sizes": {},
    }
    for size in plan.sizes:
        say(f"hop: {size}, {device}")
        result["sizes"][size] = found = measure_size(size, plan)
        for reason in found["absent"].values():
            say(f"hop: left out: {reason}")
    if len(plan.sizes) == 1:
        only = result["sizes"][plan.sizes[0]]
        result |= {key: only[key] for key in ("ratios", "cpu_ratios", "padded_ratios", "split_ms", "absent")}
    result["load_after"] = machine.load()
    return result


def measure_size(size: str, plan: Plan) -> dict[str, Any]:
    """One size: quiet rounds, then rounds beside a process that spins."""
    module = random_whisper(size)
    device, dtype = compute_target(plan.compute)
    with tempfile.TemporaryDirectory() as folder:
        peers, absent = peers_at_hand(plan.peers, module, Path(folder), plan.threads, device)
        runs = {**_hoppers(module, size, device, dtype, plan.context_s), **_loops(peers, plan.context_s)}
        for run in runs.values():
            run()  # warm-up
        quiet = _rounds(runs, plan.rounds)
        with spinning(1):
            busy = _rounds(runs, plan.busy_rounds)
    return {"dtype": str(dtype).removeprefix("torch."), "absent": absent, **_summary(quiet, busy)}


def _hoppers(
    module: Whisper, size: str, device: torch.device, dtype: torch.dtype, context_s: float
) -> dict[str, Callable[[], Cost]]:
    model = random_model(module, size, device=device, dtype=dtype)
    watch, teacher = Stopwatch(partial(on.wait, device)), Teacher(model)
    for owner, method, part in (
        (model, "encode_windows", "encoder"),
        (model, "collect_taps", "taps"),
        (model, "tag", "head"),
        (model, "probabilities", "head"),
        (teacher, "decode", "decoder"),
    ):
        watch.watch(owner, method, part)
    return {context: Hopper(Engine(model, context=context), teacher, context_s, watch).pair for context in CONTEXTS}


def _loops(peers: Sequence[Peer], context_s: float) -> dict[str, Callable[[], Cost]]:
    audio = noise(np.random.default_rng(1), context_s)

    def loop(peer: Peer) -> Callable[[], Cost]:
        def run() -> Cost:
            wall, cpu = time.perf_counter(), time.process_time()
            written = peer.decode(audio, PREFIX_TOKENS + NEW_TOKENS)
            cost = Cost(time.perf_counter() - wall, time.process_time() - cpu, {})
            if len(written) != PREFIX_TOKENS + NEW_TOKENS:
                raise PeerAbsentError(
                    f"{peer.name} wrote {len(written)} tokens where {PREFIX_TOKENS + NEW_TOKENS} are due"
                )
            return cost

        return run

    return {peer.name: loop(peer) for peer in peers}


def _rounds(runs: Mapping[str, Callable[[], Cost]], rounds: int) -> dict[str, list[Cost]]:
    """Every run once a round, one after the other, so that a change of the machine's load hits all."""
    costs: dict[str, list[Cost]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            costs[name].append(run())
    return costs


def _summary(quiet: Mapping[str, list[Cost]], busy: Mapping[str, list[Cost]]) -> dict[str, Any]:
    wall = {name: _median(costs, "wall_s") for name, costs in quiet.items()}
    cpu = {name: _median(costs, "cpu_s") for name, costs in quiet.items()}
    beside = {name: _median(costs, "wall_s") for name, costs in busy.items() if costs}
    return {
        "ratios": _ratios(wall, "fit"),
        "padded_ratios": _ratios(wall, "padded"),
        "cpu_ratios": _ratios(cpu, "fit"),
        "padded_cpu_ratios": _ratios(cpu, "padded"),
        "hop_ms": _milliseconds(wall),
        "hop_cpu_ms": _milliseconds(cpu),
        "split_ms": _split(quiet["fit"]),
        "padded_split_ms": _split(quiet["padded"]),
        "taps_and_head_share": _tag_share(quiet["fit"]),
        "busy_ms": _milliseconds(beside),
        "busy_ratios": _ratios(beside, "fit") if beside else None,
        "busy_over_quiet": {name: round(beside[name] / wall[name], 2) for name in beside},
        "streams_per_machine": round(HOP_SAMPLES / SAMPLE_RATE / wall["fit"], 1),
    }


def _median(costs: Sequence[Cost], what: str) -> float:
    return float(statistics.median(getattr(cost, what) for cost in costs))


def _ratios(seconds: Mapping[str, float], ours: str) -> dict[str, float | None]:
    return {name: round(seconds[name] / seconds[ours], 2) if name in seconds else None for name in PEERS}


def _milliseconds(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value * 1000, 2) for name, value in seconds.items()}


def _split(costs: Sequence[Cost]) -> dict[str, float]:
    return {part: round(1000 * statistics.median(cost.parts[part] for cost in costs), 3) for part in PARTS}


def _tag_share(costs: Sequence[Cost]) -> float:
    """Taps and head over the whole step, averaged over hops with and without tags."""
    return round(statistics.median((cost.parts["taps"] + cost.parts["head"]) / cost.wall_s for cost in costs), 4)


def report(result: Mapping[str, Any]) -> Report:
    """The page: costs and ratios, the split, beside a busy process."""
    sizes: Mapping[str, Any] = result["sizes"]
    names = (*CONTEXTS, *PEERS)
    return Report(
        name="hop",
        title="One hop of 0.5 s",
        about=" ".join((__doc__ or "").split("\n\n")[1].split()),
        result=result,
        tables=(
            _cost_table("Milliseconds a hop (median; wall clock), and how many times the peers cost of it", sizes, ""),
            _cost_table("The same in processor time, which other programs on the machine disturb less", sizes, "cpu_"),
            Table(
                "Where our milliseconds go, averaged over a hop with tags and one without",
                ("size, context", *PARTS, "taps + head"),
                [
                    [f"{size}, {context}", *row[key].values(), share]
                    for size, row in sizes.items()
                    for context, key, share in (
                        ("fit", "split_ms", f"{row['taps_and_head_share']:.1%}"),
                        ("padded", "padded_split_ms", None),
                    )
                ],
            ),
            Table(
                "Beside a process that spins: milliseconds a hop, in brackets over the same without it",
                ("size", *names),
                [[size, *(_beside(row, name) for name in names)] for size, row in sizes.items() if row["busy_ms"]],
            ),
        ),
        draw=lambda figure: _draw(figure, sizes),
    )


def _cost_table(caption: str, sizes: Mapping[str, Any], clock: str) -> Table:
    names = (*CONTEXTS, *PEERS)
    return Table(
        caption,
        ("size", *names, *(f"{peer} / ours" for peer in PEERS), *(f"{peer} / padded" for peer in PEERS)),
        [
            [
                size,
                *(row[f"hop_{clock}ms"].get(name) for name in names),
                *row[f"{clock}ratios"].values(),
                *row[f"padded_{clock}ratios"].values(),
            ]
            for size, row in sizes.items()
        ],
    )


def _beside(row: Mapping[str, Any], name: str) -> str | None:
    if name not in row["busy_ms"]:
        return None
    return f"{row['busy_ms'][name]:.0f} ({row['busy_over_quiet'][name]:.2f} x)"


def _draw(figure: Any, sizes: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    names = (*CONTEXTS, *PEERS)
    for index, name in enumerate(names):
        places = [place + index * 0.2 for place in range(len(sizes))]
        bars = axes.bar(places, [row["hop_ms"].get(name) or 0 for row in sizes.values()], 0.2, label=name)
        axes.bar_label(bars, fmt="%.0f", fontsize=7)
    axes.set_xticks([place + 0.3 for place in range(len(sizes))], list(sizes))
    axes.set(yscale="log", ylabel="ms per hop of 0.5 s", title="Cost of a hop (random weights)")
    axes.legend(title="Streamer fit / padded, and peers")
