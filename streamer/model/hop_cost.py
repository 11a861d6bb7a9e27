"""What a hop of the live program costs on this machine, by the size of the model: measured once, then remembered.

Weights that mean nothing take the time of the true ones, so nothing has to be fetched to learn whether it is worth it.
"""

import json
import logging
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from whisper.audio import HOP_LENGTH
from whisper.model import ModelDimensions, Whisper

from streamer.audio.mel import MelFrames
from streamer.model.engine import Engine
from streamer.model.publishers import cache_root
from streamer.model.whisper import Model
from streamer.plans import DecodeTask, StepRequest

log = logging.getLogger(__name__)

SIZES = {"base": (512, 8, 6)}  # what it is worth to ask for: width, heads, layers
WINDOW_SAMPLES = 10 * 16_000
PREFIX_TOKENS, NEW_TOKENS = 30, 6  # of a window in the midst of an utterance
TRIES = 2  # the quickest counts
SHARED_WELL = 0.8  # how well several threads share the work
FRESH_S = 7 * 86_400.0  # what was too slow is measured again after so long: it may have been busy all the while


def measured_hop_s(size: str, device: torch.device, dtype: torch.dtype) -> float:
    """Seconds of a window of 10 s with its margin: mel, encoder, some tokens, with torch's present number of threads.

    By the processor's time where that says less than the clock: a machine that is busy just now is no slow one.
    """
    width, heads, layers = SIZES[size]
    torch.manual_seed(0)
    module = Whisper(ModelDimensions(80, 1500, width, heads, layers, 51_865, 448, width, heads, layers))
    with torch.no_grad():
        module.decoder.positional_embedding.normal_(0.0, 0.01)  # openai-whisper leaves what lay in memory
    engine = Engine(Model(module, name=size, device=device, dtype=dtype))
    mel = MelFrames(engine.model.dims.n_mels)
    mel.append(np.random.default_rng(0).normal(0.0, 0.05, WINDOW_SAMPLES + HOP_LENGTH).astype(np.float32))
    task = DecodeTask(language="en", prefix=tuple(range(1000, 1000 + PREFIX_TOKENS)), max_new_tokens=NEW_TOKENS)
    request = StepRequest(0, WINDOW_SAMPLES, (), task)
    threads, taken_s = torch.get_num_threads(), list[float]()
    for _ in range(1 + TRIES):
        began_s, began_work_s = time.perf_counter(), time.process_time()
        engine.step([(mel, request)])
        shared = threads * SHARED_WELL if threads > 1 else 1.0
        taken_s.append(min(time.perf_counter() - began_s, (time.process_time() - began_work_s) / shared))
    return min(taken_s[1:])


Measure = Callable[[str, torch.device, torch.dtype], float]


@dataclass(frozen=True, slots=True)
class HopCosts:
    """The costs that were measured, kept in `path`; a file that cannot be read or written is done without."""

    path: Path
    measure: Measure = measured_hop_s
    now: Callable[[], float] = time.time

    def hop_s(self, size: str, device: torch.device, dtype: torch.dtype, limit_s: float) -> float:
        """Seconds of a hop, as remembered, or measured where nothing is (or what is exceeds the limit and is old)."""
        key, known = _key(size, device, dtype), self._read()
        found = known.get(key)
        if found is not None and (found["hop_s"] <= limit_s or self.now() - found["at"] < FRESH_S):
            return found["hop_s"]
        hop_s = round(self.measure(size, device, dtype), 4)
        log.debug("a hop of %s takes %.3f s (%s)", size, hop_s, key)
        self._write(known | {key: {"hop_s": hop_s, "at": round(self.now())}})
        return hop_s

    def known(self, size: str, device: torch.device, dtype: torch.dtype, limit_s: float) -> bool:
        """Whether `hop_s` answers at once."""
        found = self._read().get(_key(size, device, dtype))
        return found is not None and (found["hop_s"] <= limit_s or self.now() - found["at"] < FRESH_S)

    def _read(self) -> dict[str, dict[str, float]]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            return {str(key): {"hop_s": float(one["hop_s"]), "at": float(one["at"])} for key, one in found.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}

    def _write(self, costs: dict[str, dict[str, float]]) -> None:
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(json.dumps(costs, indent=1) + "\n", encoding="utf-8")
            os.replace(fresh, self.path)
        except OSError as error:
            log.debug("%s cannot be written: %s", self.path, error)


def remembered() -> HopCosts:
    """What was measured on the machines that share this home, each under its own key."""
    return HopCosts(cache_root() / "hop_costs.json")


def _key(size: str, device: torch.device, dtype: torch.dtype) -> str:
    """Everything that the cost depends on."""
    number = str(dtype).removeprefix("torch.")
    threads = f"{torch.get_num_threads()} threads"
    return ", ".join(
        [
            size,
            f"{_processor()} {torch.backends.cpu.get_cpu_capability()}",
            threads,
            device.type,
            number,
            f"torch {torch.__version__}",
        ]
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()
