"""`streamer train context`: low-rank differences with which an official encoder hears windows without their 30 s.

The teacher is the official model with silence behind the window; the student hears the audio and 0.8 to 2.9 s more.
What is taught are differences of rank 16 to the matrices of the encoder's attention and MLPs (LoRA, Hu et al. 2021),
0.9 MB for tiny.en, 1.8 for base. Every eighth recording is kept from it and read now and then: word errors over steps.
"""

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from streamer.errors import UsageError
from streamer.events import SAMPLE_RATE
from streamer.events.plans import DecodeTask
from streamer.measure.recordings import SOUNDS, Recording, read_recordings
from streamer.measure.word_errors import WordErrors, normaliser, total, word_errors
from streamer.model.checkpoint import load_module
from streamer.model.context_adapter import ContextAdapter
from streamer.model.encoder import encoder_sha256
from streamer.training.context import loop
from streamer.training.context.loop import Reader
from streamer.training.context.windows import Windows

VALIDATION = 8  # every so many recordings is for judging only
LONGEST_S = 28
MARGIN_FRAMES = 128  # mel frames of silence behind a window, when it is used
WHOLE_POSITIONS = 1500
JUDGE_EVERY = 500
TAUGHT_S = 300.0  # of a language: with less it reads worse than the official weights do


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides the differences. `model`: a name or path; `data`: manifests as `streamer bench speech` reads."""

    model: str
    data: Sequence[Path]
    out: Path
    steps: int = 4000
    rank: int = 16
    margin_frames: int = MARGIN_FRAMES
    seed: int = 0
    threads: int = 1


def main(recipe: Recipe, say: Callable[[str], None]) -> Path:
    """Teach, going on where a run in the same folder was ended; the path of the differences' file, a JSON beside it.

    Raises UsageError or InputError naming the option.
    """
    torch.set_num_threads(recipe.threads)
    teacher = load_module(recipe.model)
    sha256 = encoder_sha256(teacher.encoder)
    recordings = [item for path in recipe.data for item in read_recordings(path, untold=True)]
    spoken = [item for item in recordings if not item.set.startswith(SOUNDS)]
    if teacher.is_multilingual and any(item.language is None for item in spoken):
        raise UsageError("--data: a model of several languages needs the column `language` in each row")
    held = [item for item in spoken if item.text][VALIDATION - 1 :: VALIDATION]
    windows = Windows([item for item in recordings if item not in held], recipe.seed)
    recipe.out.mkdir(parents=True, exist_ok=True)
    state = recipe.out / "state.pt"
    run = loop.begin(teacher, recipe.rank, recipe.seed)
    if state.exists():
        loop.go_on(run, state)
    began = time.monotonic()

    def judge(run: loop.Run) -> None:
        if run.step % JUDGE_EVERY and run.step != recipe.steps:
            return

        encoder = copy.deepcopy(run.teacher.module.encoder)
        ContextAdapter(sha256, recipe.margin_frames, frozenset(), _parts(run)).merge(encoder)
        found = _word_errors(Reader(loop.with_encoder(run.teacher.module, encoder)), held, recipe.margin_frames // 2)
        run.curve.append({"step": run.step, "wer": found.rate or 0.0, "words": found.words})
        say(f"step {run.step} of {recipe.steps}, {time.monotonic() - began:.0f} s: {run.curve[-1]}")

    if not run.curve:
        padded = _word_errors(run.teacher, held, WHOLE_POSITIONS)
        run.curve.append({"step": 0, "wer": padded.rate or 0.0, "words": padded.words})
        say(f"official weights, 30 s: {run.curve[-1]}")
    loop.train(run, windows, recipe.steps, state, judge)
    return _write(run, recipe, sha256, windows.seconds(), len(spoken) - len(held))


def _write(run: loop.Run, recipe: Recipe, sha256: str, seconds: Mapping[str, float], taught_on: int) -> Path:
    path = recipe.out / f"{Path(recipe.model).name.removesuffix('.pt')}.safetensors"
    tensors = {}
    for name, (up, down) in _parts(run).items():
        tensors[f"{name}.up"], tensors[f"{name}.down"] = up, down
    dims = run.student.dims
    facts = {
        "encoder_sha256": sha256,
        "shape": f"{dims.n_audio_layer}x{dims.n_audio_state}",
        "margin_frames": str(recipe.margin_frames),
        "languages": " ".join(sorted(language for language, taught_s in seconds.items() if taught_s >= TAUGHT_S)),
        "rank": str(recipe.rank),
        "steps": str(run.step),
    }
    save_file(tensors, path, metadata=facts)
    described = {**facts, "seconds": seconds, "recordings": taught_on, "curve": run.curve}
    path.with_suffix(".json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    return path


def _parts(run: loop.Run) -> dict[str, tuple[Tensor, Tensor]]:
    """The averaged differences as they are stored."""
    values = (value.to(torch.float16).contiguous() for value in run.average)
    return dict(zip(run.parts, zip(values, values, strict=True), strict=True))


def _word_errors(reader: Reader, recordings: Sequence[Recording], margin: int) -> WordErrors:
    """Of one greedy pass over each recording of at most 28 s with so many positions of silence behind it."""
    found = []
    for item in recordings:
        samples = item.samples()
        if len(samples) > LONGEST_S * SAMPLE_RATE:
            continue
        decoded, _, _ = reader.read(samples, margin, DecodeTask(language=item.language or "en", max_new_tokens=160))
        normal = normaliser(item.language)
        written = reader.model.tokenizer(item.language or "en").decode(list(decoded.tokens))
        found.append(word_errors(normal(item.text), normal(written)))
    return total(found)
