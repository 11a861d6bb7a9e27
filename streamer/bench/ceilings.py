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
from whisper.model import ModelDimensions, Whisper

from streamer.audio.mel import FRAMES_PER_SECOND
from streamer.bench.hop import wait
from streamer.errors import StreamerError
from streamer.events.plans import DecodeTask
from streamer.measure.report import Report, Table
from streamer.model import catalog
from streamer.model.checkpoint import compute_target
from streamer.model.decoding.search import AudioWindow, GreedySearch
from streamer.model.linear import Affine
from streamer.model.machine_facts import load, machine_facts
from streamer.model.whisper import Model

CONTEXT_S = 10.0
FRAMES = round(CONTEXT_S * FRAMES_PER_SECOND)
PREFIX = tuple(range(1000, 1036))  # tokens of text that stand before those that are written
BATCHES = (1, 2, 4, 8)
STEPS = 24  # of the decoder in one measurement
START_TOKENS = 4  # start of transcript, language, task, no time marks
LEAST_S = 0.05  # what is measured is repeated until it takes so long
MATRIX_SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
MEMORY_BYTES = {"cpu": 512 * 2**20, "cuda": 2**30}  # far more than any cache holds

MULTILINGUAL = 51_865
# encoder layers, width, attention heads, decoder layers, mel bands, vocabulary
SIZES = {
    "tiny": (4, 384, 6, 4, 80, MULTILINGUAL),
    "base": (6, 512, 8, 6, 80, MULTILINGUAL),
    "small": (12, 768, 12, 12, 80, MULTILINGUAL),
    "medium": (24, 1024, 16, 24, 80, MULTILINGUAL),
    "large-v2": (32, 1280, 20, 32, 80, MULTILINGUAL),
    "large-v3": (32, 1280, 20, 32, 128, MULTILINGUAL + 1),
    "large-v3-turbo": (32, 1280, 20, 4, 128, MULTILINGUAL + 1),
}

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


def random_model(size: str, device: torch.device, dtype: torch.dtype) -> Model:
    """A model of a size of SIZES, weights drawn: what it costs does not depend on them."""
    layers, width, heads, text_layers, mels, vocabulary = SIZES[size]
    torch.manual_seed(0)
    module = Whisper(ModelDimensions(mels, 1500, width, heads, layers, vocabulary, 448, width, heads, text_layers))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "embedding" in name:
                parameter.normal_(0.0, 0.02)
    module.set_alignment_heads(catalog.alignment_heads(size))
    return Model(module.eval(), name=f"random {size}", device=device, dtype=dtype)


def measure(plan: Plan, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Run the plan."""
    torch.set_num_threads(plan.threads)
    device, dtype = compute_target(plan.compute, plan.dtype)
    result: dict[str, Any] = {
        "bench": "ceilings",
        "machine": machine_facts(plan.threads, device),
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "context_s": CONTEXT_S,
        "rounds": plan.rounds,
    }
    matrix, memory = 0.0, 0.0
    found = {}
    for size in plan.sizes:
        say(f"ceilings: {size}, {device}")
        model = random_model(size, device, dtype)
        top, rows = measure_size(model, plan)
        matrix, memory = max(matrix, top["matrix"]), max(memory, top["memory"])
        found[size] = rows
    result |= {"matrix_gflops": round(matrix / 1e9, 1), "memory_gb_per_s": round(memory / 1e9, 2)}
    result["sizes"] = {size: [_shares(row, matrix, memory) for row in rows] for size, rows in found.items()}
    return {**result, "load_after": load()}


def measure_size(model: Model, plan: Plan) -> tuple[dict[str, float], list[dict[str, float]]]:
    """The ceilings (operations and bytes a second), and for each batch what a pass and a step are and take."""
    runs = matrix_runs(model.device, model.dtype) | memory_runs(model.device)
    runs |= {("pass", str(count)): pass_run(model, count) for count in BATCHES}
    clock = time.process_time if model.device.type == "cpu" and plan.threads == 1 else time.perf_counter
    search = GreedySearch(model)
    for count in reversed(BATCHES):  # what is recorded, or packed for so many rows, is so before it is measured
        write(search, model, count, 1 + STEPS, clock)
    run_s: dict[Kind, list[float]] = {kind: [] for kind in runs}
    step_s: dict[int, list[tuple[float, float]]] = {count: [] for count in BATCHES}
    for _ in range(plan.rounds):
        for kind, (_, run) in runs.items():
            run_s[kind].append(seconds(run, model.device, clock))
        for count, found in step_s.items():
            found.append((write(search, model, count, 1 + STEPS, clock), write(search, model, count, 1, clock)))
    top = {
        what: max(amount / min(run_s[kind]) for kind, (amount, _) in runs.items() if kind[0] == what)
        for what in ("matrix", "memory")
    }
    positions = START_TOKENS + len(PREFIX) + 1 + (STEPS + 1) / 2  # in use, on the average over the steps
    rows = [
        {
            "windows": count,
            "encoder_s": min(run_s["pass", str(count)]),
            "encoder_flop": runs["pass", str(count)][0],
            # One step without what comes before: the best of many tokens less the best of one.
            "step_s": max(min(many for many, _ in found) - min(one for _, one in found), 1e-9) / STEPS,
            "step_bytes": float(search.decoder.bytes_read(count, round(positions), FRAMES // 2)),
        }
        for count, found in step_s.items()
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
    mel = torch.randn(count, model.dims.n_mels, FRAMES, generator=torch.Generator().manual_seed(count))
    return count * encoder_flop(model.dims, FRAMES), partial(model.encode_windows, mel, window_frames=[FRAMES] * count)


def write(search: GreedySearch, model: Model, count: int, tokens: int, clock: Clock) -> float:
    """Seconds of writing so many tokens for each of `count` windows: random weights do not end a text by themselves.

    Raises StreamerError where they did.
    """
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(FRAMES // 2, model.dims.n_audio_state, generator=generator).to(model.device, model.dtype)
    task = DecodeTask("en", prefix=PREFIX, max_new_tokens=tokens)
    wait(model.device)
    start = clock()
    found = search.decode([AudioWindow(features, len(features))] * count, [task] * count)
    wait(model.device)
    took = clock() - start
    if any(len(one.tokens) < tokens for one in found):
        raise StreamerError(f"bench ceilings: {model.name} wrote fewer than {tokens} tokens")
    return took


def seconds(run: Callable[[], object], device: torch.device, clock: Clock) -> float:
    """Seconds of one run: once to warm up, then as often as `LEAST_S` needs."""

    @torch.inference_mode()
    def took(times: int) -> float:
        wait(device)
        start = clock()
        for _ in range(times):
            run()
        wait(device)
        return clock() - start

    took(1)
    once = took(1)
    if once >= LEAST_S:
        return once
    times = math.ceil(LEAST_S / max(once, 1e-6))
    return took(times) / times


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
