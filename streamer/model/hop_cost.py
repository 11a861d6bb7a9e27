"""What a hop of the live program costs on this machine, by the size of the model: measured once, then remembered.

Weights that mean nothing take the time of the true ones, so nothing has to be fetched to learn whether it is worth it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from whisper.audio import HOP_LENGTH
from whisper.model import ModelDimensions, Whisper

from streamer.audio.mel import MelFrames
from streamer.model.engine import Engine
from streamer.model.machine_facts import MachineFacts
from streamer.model.whisper import Model
from streamer.steps import DecodeTask, StepRequest

SIZES = {"base": (512, 8, 6)}  # what it is worth to ask for: width, heads, layers
WINDOW_SAMPLES = 10 * 16_000
PREFIX_TOKENS, NEW_TOKENS = 30, 6  # of a window in the midst of an utterance
TRIES = 2  # the quickest counts
SHARED_WELL = 0.8  # how well several threads share the work


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
    """The costs that were measured, among what is known of this machine."""

    facts: MachineFacts
    measure: Measure = measured_hop_s

    def hop_s(self, size: str, device: torch.device, dtype: torch.dtype, limit_s: float) -> float:
        """Seconds of a hop, as remembered, or measured where nothing is (or what is exceeds the limit and is old)."""
        return self.facts.value(
            _asked(size, device, dtype), lambda: self.measure(size, device, dtype), lambda hop_s: hop_s <= limit_s
        )

    def known(self, size: str, device: torch.device, dtype: torch.dtype, limit_s: float) -> bool:
        """Whether `hop_s` answers at once."""
        return self.facts.known(_asked(size, device, dtype), lambda hop_s: hop_s <= limit_s) is not None


def _asked(size: str, device: torch.device, dtype: torch.dtype) -> str:
    number = str(dtype).removeprefix("torch.")
    return f"seconds of a hop of {size} in {number}, {device.type}, {torch.get_num_threads()} threads"
