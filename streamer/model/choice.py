"""Loading a model by name, where `auto` is the best one that this machine carries in real time and that can be had.

On a CPU that is multilingual `base` where its hop fits, else a tiny one; on a GPU it goes by memory. Where none can be
had it is the bundled `nano`. What a hop costs is measured here once: weights that mean nothing take the time of the
true ones, so nothing has to be fetched to learn whether it is worth it.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from whisper.audio import HOP_LENGTH
from whisper.model import ModelDimensions, Whisper

from streamer.audio.mel import MelFrames
from streamer.errors import DownloadError
from streamer.events.plans import DecodeTask, StepRequest
from streamer.model import catalog, checkpoint, machine_facts
from streamer.model.download import LoadStep, Progress, ProgressCallback, Tell
from streamer.model.engine import Engine
from streamer.model.machine_facts import MachineFacts
from streamer.model.names import AUTO
from streamer.model.whisper import Model

SIZES = {"base": (512, 8, 6)}  # what it is worth to ask for: width, heads, layers
WINDOW_SAMPLES = 10 * 16_000
PREFIX_TOKENS, NEW_TOKENS = 30, 6  # of a window in the midst of an utterance
TRIES = 2  # the quickest counts
SHARED_WELL = 0.8  # how well several threads share the work
HOP_S = 0.5  # of the default settings: a hop of the model that is chosen takes comfortably less,
HOP_SHARE = 0.6  # this part of it at most: the rest is for the other threads and for busy moments
GPU_MODELS = (("large-v3-turbo", 6.0), ("medium", 5.0), ("small", 2.5), ("base", 0.0))  # and the GiB that they want

log = logging.getLogger(__name__)


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


@dataclass(frozen=True, slots=True)
class Wish:
    """What the model has to know: languages ("": whichever is detected), and whether it translates."""

    languages: frozenset[str] = frozenset()
    translate: bool = False

    @property
    def english(self) -> bool:
        """Whether nothing but English is asked for."""
        return self.languages == {"en"} and not self.translate

    @property
    def foreign(self) -> bool:
        """Whether a model that knows English only will not do."""
        return self.translate or bool(self.languages - {"en", ""})


@dataclass(frozen=True, slots=True)
class Choice:
    """A model's name, and what people should know about it, in one line ("" where there is nothing)."""

    name: str
    note: str = ""


Fetch = Callable[[str], None]


def choose(fits: Callable[[str], bool], fetch: Fetch, ranked: Sequence[str], wish: Wish) -> Choice:
    """The first of the ranked names that this machine carries and that can be had.

    `fits`: whether it carries this one in real time. `fetch` has it on the disk afterwards, or raises DownloadError.
    Where no such model can be had, one that is too slow is better than none that understands people.
    """
    failure, slow = "", list[str]()
    for name in ranked:
        if wish.foreign and _english_only(name):
            continue
        if not fits(name):
            slow.insert(0, name)
        elif not (reason := _refused(fetch, name)):
            return Choice(name, _note(name, wish))
        else:
            failure = failure or reason
    for name in slow:
        if not (reason := _refused(fetch, name)):
            return Choice(name, f"this machine is slow for {name}: text comes less often than every {HOP_S:g} s")
        failure = failure or reason
    return Choice(
        catalog.BUNDLED,
        "no model that understands people is here and none could be fetched: the bundled nano knows spoken digits and "
        f"some words and misses most alarms; with a connection, `streamer pull base` brings one ({failure})",
    )


def ranked_models(device: torch.device, wish: Wish) -> tuple[str, ...]:
    """Best first."""
    if device.type == "cuda":
        gib = torch.cuda.get_device_properties(device).total_memory / 2**30
        return tuple(name for name, wanted in GPU_MODELS if gib >= wanted)
    return ("base", "tiny.en", "tiny") if wish.english else ("base", "tiny", "tiny.en")


def load_model(
    name_or_path: str | Path,
    *,
    head: str | Path | None = "auto",
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    download_root: str | Path | None = None,
    progress: ProgressCallback | None = None,
    short_windows: bool = True,
    wish: Wish | None = None,
    tell: Tell = lambda step: None,
    note: Callable[[str], None] = log.warning,
    costs: HopCosts | None = None,
) -> Model:
    """`streamer.model.checkpoint.load_model`, which also knows "auto".

    `short_windows`: as there, but wanted. `wish`: what the model has to know, or an `auto` one. `tell`: what is being
    done. `note`: told in a line what is worth knowing of the choice. `costs`: of hops here (default: as remembered).
    """
    name = str(name_or_path)

    def fetching(given: Progress) -> None:
        tell(LoadStep(f"fetching {given.name}", True, given.received_bytes, given.total_bytes))
        if progress is not None:
            progress(given)

    root = Path(download_root) if download_root is not None else None
    if name == AUTO:
        target, number = checkpoint.compute_target(device, dtype)
        given = wish or Wish()
        fits = partial(_fits, target, number, costs or HopCosts(machine_facts.remembered()), tell)
        fetch = partial(_fetch, root=root, progress=fetching)
        chosen = choose(fits, fetch, ranked_models(target, given), given)
        if chosen.note:
            note(chosen.note)
        name = chosen.name
    tell(LoadStep(f"loading {Path(name).name}"))
    return checkpoint.load_model(
        name,
        head=head,
        device=device,
        dtype=dtype,
        download_root=download_root,
        progress=fetching,
        short_windows=short_windows,
        languages=(wish or Wish()).languages,
    )


def _fits(device: torch.device, dtype: torch.dtype, costs: HopCosts, tell: Tell, name: str) -> bool:
    """Whether this machine carries a model. A tiny one it has to: there is no smaller one."""
    if name not in SIZES or device.type == "cuda":
        return True
    limit_s = HOP_SHARE * HOP_S
    if not costs.known(name, device, dtype, limit_s):
        tell(LoadStep(f"measuring whether this machine carries {name}", slow=True))
    return costs.hop_s(name, device, dtype, limit_s) <= limit_s


def _fetch(name: str, *, root: Path | None, progress: ProgressCallback) -> None:
    catalog.pull_checkpoint(name, root=root, progress=progress)


def _refused(fetch: Fetch, name: str) -> str:
    """Why a model cannot be had; "" where it can."""
    try:
        fetch(name)
    except DownloadError as error:
        log.debug("%s cannot be had: %s", name, error)
        return str(error)
    return ""


def _note(name: str, wish: Wish) -> str:
    if not _english_only(name) or wish.english:
        return ""
    return f"{name} is what this machine carries and what can be had: it understands English only (base: 99 languages)"


def _english_only(name: str) -> bool:
    return name.endswith(".en")
