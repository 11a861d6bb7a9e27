"""`streamer bench busy`: what the whole program costs for a minute of speech, alone and where every core is taken.

Each run is a fresh process, `streamer run --input FILE --speed 0`, whose environment says nothing about threads: those
that wait by spinning show as processor seconds on a quiet machine, and as wall-clock seconds beside busy processes.
"Busy" is one process for each core that spins. Beside it the same with one second of audio: what starting costs.
"""

import os
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.errors import StreamerError
from streamer.events import SAMPLE_RATE
from streamer.measure.report import Report, Table
from streamer.model.machine_facts import load, machine_facts

# What a shell may say about threads, and what this program says for itself before torch starts.
THREADS = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "NUMEXPR_", "VECLIB_")


@dataclass(frozen=True, slots=True)
class Run:
    """One process from its start to its end. `peak_mib`: the most memory it held (resident)."""

    wall_s: float
    processor_s: float
    peak_mib: float


def measure(
    models: Sequence[str], audio: NDArray[np.float32], rounds: int, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Every model on `audio`, float32 [n], `rounds` times in turn alone and beside busy processes; the best counts.

    Raises StreamerError where the program fails.
    """
    result: dict[str, Any] = {"bench": "busy", "machine": machine_facts(None), "seconds": len(audio) / SAMPLE_RATE}
    cores: int = result["machine"]["cores"]
    found: dict[str, dict[str, Run]] = {model: {} for model in models}
    with tempfile.TemporaryDirectory() as folder:
        whole, start = Path(folder) / "speech.wav", Path(folder) / "start.wav"
        write_wav(whole, audio)
        write_wav(start, audio[:SAMPLE_RATE])
        for number in range(rounds):
            for model, runs in found.items():
                say(f"busy: round {number + 1} of {rounds}, {model}")
                _keep(runs, "start", run_program(model, start))
                _keep(runs, "quiet", run_program(model, whole))
                with spinning(cores):
                    _keep(runs, "busy", run_program(model, whole))
    return {
        **result,
        "models": {model: {name: asdict(run) for name, run in runs.items()} for model, runs in found.items()},
        "load_after": load(),
    }


def run_program(model: str, audio: Path) -> Run:
    """Run the program over a file in a process of its own. Raises StreamerError with its last line where it fails."""
    command = [sys.executable, "-m", "streamer.commands.cli", "run", "--input", str(audio), "--speed", "0"]
    command += ["--model", model, "--no-server", "--quiet"]
    with tempfile.TemporaryFile() as said:
        begin = time.perf_counter()
        child = subprocess.Popen(command, env=without_threads(os.environ), stdout=said, stderr=said)
        _, status, used = os.wait4(child.pid, 0)
        wall_s = time.perf_counter() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
            raise StreamerError(f"bench busy: --model {model}: the program ended with {child.returncode}: {lines[-1]}")
    per_mib = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return Run(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss / per_mib)


@contextmanager
def spinning(processes: int) -> Iterator[None]:
    """That many processes that do nothing, busily."""
    children = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()


def without_threads(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of somebody who never thought of threads."""
    return {name: value for name, value in environment.items() if not name.startswith(THREADS)}


def write_wav(path: Path, samples: NDArray[np.float32]) -> None:
    """float32 [n] at 16 kHz as a WAV file of 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def _keep(runs: dict[str, Run], name: str, run: Run) -> None:
    """The least of each: other programs only ever add."""
    old = runs.get(name, run)
    runs[name] = Run(
        min(old.wall_s, run.wall_s), min(old.processor_s, run.processor_s), max(old.peak_mib, run.peak_mib)
    )


def report(result: Mapping[str, Any]) -> Report:
    """The page: a row for each model."""
    rows = [
        [
            model,
            runs["start"]["processor_s"],
            runs["quiet"]["processor_s"],
            runs["quiet"]["wall_s"],
            runs["busy"]["processor_s"],
            runs["busy"]["wall_s"],
            runs["busy"]["wall_s"] / runs["quiet"]["wall_s"],
            max(run["peak_mib"] for run in runs.values()),
        ]
        for model, runs in result["models"].items()
    ]
    header = (
        "model",
        "start: processor s",
        "quiet: processor s",
        "wall s",
        "busy: processor s",
        "wall s",
        "busy / quiet",
        "peak MiB",
    )
    return Report(
        name="busy",
        title="The whole program beside busy processes",
        about=" ".join((__doc__ or "").split("\n\n", 1)[1].split()),
        result=result,
        tables=(Table(f"{result['seconds']:.0f} s of audio at once", header, rows),),
        draw=lambda figure: _draw(figure, result["models"]),
    )


def _draw(figure: Any, models: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    kinds = (("quiet", "processor_s"), ("quiet", "wall_s"), ("busy", "processor_s"), ("busy", "wall_s"))
    for index, (name, key) in enumerate(kinds):
        places = [place + index * 0.2 for place in range(len(models))]
        axes.bar(places, [runs[name][key] for runs in models.values()], 0.2, label=f"{name}: {key}")
    axes.set_xticks([place + 0.3 for place in range(len(models))], list(models))
    axes.set(ylabel="seconds")
    axes.legend()
