"""`streamer bench ceilings`: how much of what the device can do the encoder and the decoder get.

Random weights of the official sizes, 10 s of audio, 1 to 8 windows at once. An encoder pass is bound by
multiplications: its floating-point operations a second are set beside the most that products of large matrices reach
in the same precision. A decoder step (one more token for each window) is bound by reading weights, keys and values:
its bytes a second are set beside the most that reading or copying a large piece of memory reaches. Steps are whole
ones: with the vocabulary, the filters and the reading of the result. A share above 100 % means that part of what is
read stays in the processor's cache.

Everything is measured in turn in every round, and the best of all rounds counts: of passes and steps as of ceilings.
Where one thread of the processor computes, the clock is its own time, which other programs disturb less.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from whisper.model import ModelDimensions

from streamer.audio.mel import FRAMES_PER_SECOND
from streamer.bench import clock as on
from streamer.bench.hop import PREFIX_TOKENS
from streamer.bench.scripted import Teacher, random_model, random_whisper
from streamer.measure import machine
from streamer.measure.report import Report, Table
from streamer.model.checkpoint import compute_target
from streamer.model.decoding.decoder import Decoder
from streamer.model.decoding.search import AudioWindow
from streamer.model.linear import Affine
from streamer.model.whisper import Model
from streamer.plans import DecodeTask

CONTEXT_S = 10.0
BATCHES = (1, 2, 4, 8)
STEPS = 24  # of the decoder in one measurement
START_TOKENS = 4  # start of transcript, language, task, no time marks
LEAST_S = 0.05  # what is measured is repeated until it takes so long
MATRIX_SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
MEMORY_BYTES = {"cpu": 512 * 2**20, "cuda": 2**30}  # far more than any cache holds

Clock = Callable[[], float]
Kind = tuple[str, str]
Run = tuple[float, Callable[[], object]]  # operations or bytes, and what does them


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run."""

    sizes: tuple[str, ...] = ("tiny", "base", "small")
    rounds: int = 5
    threads: int = 1
    compute: str = "auto"
    dtype: str = "auto"
    batches: tuple[int, ...] = BATCHES


def measure(plan: Plan, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Run the plan."""
    torch.set_num_threads(plan.threads)
    device, dtype = compute_target(plan.compute, plan.dtype)
    result: dict[str, Any] = {
        "bench": "ceilings",
        "machine": machine.facts(plan.threads, on.name(device)),
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "context_s": CONTEXT_S,
        "rounds": plan.rounds,
    }
    matrix, memory = 0.0, 0.0
    found = {}
    for size in plan.sizes:
        say(f"ceilings: {size}, {device}")
        model = random_model(random_whisper(size), size, device=device, dtype=dtype, head=False)
        top, rows = measure_size(model, plan)
        matrix, memory = max(matrix, top["matrix"]), max(memory, top["memory"])
        found[size] = rows
    result |= {"matrix_gflops": round(matrix / 1e9, 1), "memory_gb_per_s": round(memory / 1e9, 2)}
    result["sizes"] = {size: [_shares(row, matrix, memory) for row in rows] for size, rows in found.items()}
    return {**result, "load_after": machine.load()}


def measure_size(model: Model, plan: Plan) -> tuple[dict[str, float], list[dict[str, float]]]:
    """The ceilings (operations and bytes a second), and for each batch what a pass and a step are and take."""
    runs = matrix_runs(model.device, model.dtype) | memory_runs(model.device)
    runs |= {("pass", str(count)): pass_run(model, count) for count in plan.batches}
    clock = time.process_time if model.device.type == "cpu" and plan.threads == 1 else time.perf_counter
    steps, decoder = step_timers(model, plan.batches, clock)
    run_s: dict[Kind, list[float]] = {kind: [] for kind in runs}
    step_s: dict[int, list[tuple[float, float]]] = {count: [] for count in plan.batches}
    for _ in range(plan.rounds):
        for kind, (_, run) in runs.items():
            run_s[kind].append(seconds(run, model.device, clock))
        for count, timed in steps.items():
            step_s[count].append(timed())
    top = {
        what: max(amount / min(run_s[kind]) for kind, (amount, _) in runs.items() if kind[0] == what)
        for what in ("matrix", "memory")
    }
    positions = START_TOKENS + PREFIX_TOKENS + 1 + (STEPS + 1) / 2  # in use, on the average over the steps
    rows = [
        {
            "windows": count,
            "encoder_s": min(run_s["pass", str(count)]),
            "encoder_flop": runs["pass", str(count)][0],
            "step_s": _step_s(step_s[count]),
            "step_bytes": float(decoder.bytes_read(count, round(positions), _frames() // 2)),
        }
        for count in plan.batches
    ]
    return top, rows


def encoder_flop(dims: ModelDimensions, frames: int) -> float:
    """Floating-point operations (a multiplication and an addition are two) of one window's pass.

    With n mel bands, F mel frames, P = F / 2 positions, width d and L layers:

        convolutions    2 F (3 n) d + 2 P (3 d) d
        each layer      8 P d^2 (query, key, value, output) + 4 P^2 d (scores, mixing) + 16 P d^2 (the two of the MLP)

    What is done once for each value (norms, GELU, softmax, sums) is left out: under a hundredth.
    """
    bands, width, positions = dims.n_mels, dims.n_audio_state, frames // 2
    convolutions = 2 * frames * 3 * bands * width + 2 * positions * 3 * width * width
    layer = 24 * positions * width**2 + 4 * positions**2 * width
    return float(convolutions + dims.n_audio_layer * layer)


def matrix_runs(device: torch.device, dtype: torch.dtype) -> dict[Kind, Run]:
    """By size n: a product of n x n matrices, computed as the encoder does (on some CPUs packed)."""
    runs: dict[Kind, Run] = {}
    for size in MATRIX_SIZES[device.type]:
        x = torch.randn(size, size).to(device, dtype)
        runs["matrix", str(size)] = (2.0 * size**3, partial(Affine(torch.randn(size, size).to(device, dtype)), x))
    return runs


def memory_runs(device: torch.device) -> dict[Kind, Run]:
    """What moves bytes: a sum and a product with a vector that read a piece of memory, and a copy."""
    count = MEMORY_BYTES[device.type] // 4
    source, target = torch.ones(count, device=device), torch.empty(count, device=device)
    rows = source.view(-1, 4096)
    vector = torch.ones(4096, device=device)
    return {
        ("memory", "sum"): (4.0 * count, partial(torch.sum, source)),
        ("memory", "product"): (4.0 * count, partial(torch.mv, rows, vector)),
        ("memory", "copy"): (8.0 * count, partial(target.copy_, source)),
    }


def pass_run(model: Model, count: int) -> Run:
    """An encoder pass over `count` windows of 10 s, as the engine asks for it with `fit` context."""
    mel = torch.randn(count, model.dims.n_mels, _frames(), generator=torch.Generator().manual_seed(count))
    return count * encoder_flop(model.dims, _frames()), partial(
        model.encode_windows, mel, window_frames=[_frames()] * count
    )


def step_timers(
    model: Model, batches: Sequence[int], clock: Clock
) -> tuple[dict[int, Callable[[], tuple[float, float]]], Decoder]:
    """By number of windows: what measures the seconds of writing `1 + STEPS` tokens and one; and the decoder."""
    teacher = Teacher(model)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(_frames() // 2, model.dims.n_audio_state, generator=generator).to(model.device, model.dtype)
    window = AudioWindow(features, len(features))

    def took(count: int, tokens: int) -> float:
        task = DecodeTask("en", prefix=teacher.text(PREFIX_TOKENS), max_new_tokens=tokens)
        on.wait(model.device)
        start = clock()
        teacher.decode([window] * count, [task] * count)
        on.wait(model.device)
        return clock() - start

    def both(count: int) -> tuple[float, float]:
        return took(count, 1 + STEPS), took(count, 1)

    for count in reversed(batches):  # what is recorded, or packed for so many rows, is so before it is measured
        took(count, 1 + STEPS)
    return {count: partial(both, count) for count in batches}, teacher.decoder


def _step_s(times: Sequence[tuple[float, float]]) -> float:
    """Seconds of one step, without what comes before: the best of many tokens less the best of one."""
    return max(min(many for many, _ in times) - min(one for _, one in times), 1e-9) / STEPS


def seconds(run: Callable[[], object], device: torch.device, clock: Clock) -> float:
    """Seconds of one run: once to warm up, then as often as `LEAST_S` needs."""

    @torch.inference_mode()
    def took(times: int) -> float:
        on.wait(device)
        start = clock()
        for _ in range(times):
            run()
        on.wait(device)
        return clock() - start

    took(1)
    once = took(1)
    if once >= LEAST_S:
        return once
    times = math.ceil(LEAST_S / max(once, 1e-6))
    return took(times) / times


def _frames() -> int:
    return round(CONTEXT_S * FRAMES_PER_SECOND)


def _shares(row: Mapping[str, float], matrix: float, memory: float) -> dict[str, Any]:
    flops, rate = row["encoder_flop"] / row["encoder_s"], row["step_bytes"] / row["step_s"]
    return {
        "windows": int(row["windows"]),
        "encoder_ms": round(1000 * row["encoder_s"], 3),
        "encoder_gflop": round(row["encoder_flop"] / 1e9, 2),
        "encoder_gflops": round(flops / 1e9, 1),
        "encoder_share": round(flops / matrix, 4),
        "step_ms": round(1000 * row["step_s"], 3),
        "step_mb": round(row["step_bytes"] / 1e6, 2),
        "step_gb_per_s": round(rate / 1e9, 2),
        "step_share": round(rate / memory, 4),
    }


def report(result: Mapping[str, Any]) -> Report:
    """The page: a row for each size and number of windows."""
    sizes: Mapping[str, Sequence[Mapping[str, Any]]] = result["sizes"]
    ceilings = (
        f" **Ceilings here, {result['dtype']}: {result['matrix_gflops']:.0f} GFLOP/s, "
        f"{result['memory_gb_per_s']:.1f} GB/s.**"
    )
    return Report(
        name="ceilings",
        title=f"Encoder and decoder beside what the device can do: {result['device']}, {result['dtype']}",
        about=" ".join((__doc__ or "").split("\n\n", 1)[1].split()) + ceilings,
        result=result,
        tables=(
            Table(
                "An encoder pass over 10 s, and a decoder step",
                (
                    *("size", "windows", "pass ms", "GFLOP", "GFLOP/s", "of the matrix ceiling"),
                    *("step ms", "MB read", "GB/s", "of the memory ceiling"),
                ),
                [[size, *map(_cell, row, row.values())] for size, rows in sizes.items() for row in rows],
            ),
        ),
        draw=lambda figure: _draw(figure, sizes),
    )


def _cell(key: str, value: object) -> object:
    return f"{value:.0%}" if key.endswith("_share") else value


def _draw(figure: Any, sizes: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, key, title in (
        (left, "encoder_share", "Encoder pass of the matrix ceiling"),
        (right, "step_share", "Decoder step of the memory ceiling"),
    ):
        for size, rows in sizes.items():
            axes.plot([row["windows"] for row in rows], [100 * row[key] for row in rows], "o-", label=size)
        axes.set(xscale="log", xlabel="windows at once", title=title)
        axes.set_xticks([row["windows"] for row in next(iter(sizes.values()))])
        axes.get_xaxis().set_major_formatter("{x:.0f}")
        axes.minorticks_off()
    left.set(ylabel="%")
    left.set_ylim(bottom=0)
    right.legend()
