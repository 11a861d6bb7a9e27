"""The taps of composed scenes, computed once and kept in shards, and the batches that a head is taught from them.

A folder holds `NUMBER.npz` (samples int16 [n, 160000], targets in 255ths, uint8 [n, 25, 527]) for the scenes, which no
model changes, and one subfolder of `NUMBER.npz` (taps float16 [n, 25, layers, d], steps [n]) for each model and way of
hearing: of short windows (with the differences of `streamer train context`) and of stock weights.
"""

import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamer.audio.mel import FRAMES_PER_SECOND, MelFrames
from streamer.events import SAMPLE_RATE
from streamer.model.whisper import Model, span_steps
from streamer.training.evaluation import Judgements
from streamer.training.head_settings import RecipeSection
from streamer.training.scenes import COUNT, SECONDS, STEPS, Scenes
from streamer.training.teacher import STEP
from streamer.training.trainer import Part, masked

SHARD = 50  # scenes
WHOLE = 0.6  # how often a window holds the whole scene; else its last seconds, from 1.2 s on
Say = Callable[[str], None]


def compose(scenes: Scenes, count: int, folder: Path, say: Say) -> None:
    """Write the scenes 0 to `count`; shards that are there are not written again."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(-(-count // SHARD)):
        path = folder / f"{shard:04d}.npz"
        if path.exists():
            continue
        drawn = [scenes.draw(number) for number in range(shard * SHARD, min((shard + 1) * SHARD, count))]
        samples = np.stack([np.rint(scene.samples * 32767).astype(np.int16) for scene in drawn])
        targets = np.stack([np.rint(scene.targets * 255).astype(np.uint8) for scene in drawn])
        _write(path, samples=samples, targets=targets)
        say(f"{folder.name}: {shard * SHARD + len(drawn)} of {count} scenes")


def encode(model: Model, folder: Path, name: str, share: tuple[int, int], say: Say) -> None:
    """Write the taps of the scenes whose number leaves `share[0]` when divided by `share[1]`."""
    (folder / name).mkdir(exist_ok=True)
    for path in sorted(folder.glob("*.npz")):
        target = folder / name / path.name
        if target.exists():
            continue
        first = int(path.stem) * SHARD
        samples = np.load(path)["samples"]
        rows = [row for row in range(len(samples)) if (first + row) % share[1] == share[0]]
        taps = np.zeros((len(rows), STEPS, model.dims.n_audio_layer, model.dims.n_audio_state), np.float16)
        steps = np.zeros(len(rows), np.int64)
        for place, row in enumerate(rows):
            found = _taps(model, samples[row][COUNT - window_samples(first + row) :].astype(np.float32) / 32768)
            steps[place] = len(found)
            taps[place, : len(found)] = found
        _write(target, taps=taps, steps=steps, rows=np.array(rows))
        say(f"{folder.name}/{name}: {first + len(samples)} scenes")


def window_samples(number: int) -> int:
    """How much of a scene's end its window holds: all, or from 1.2 s on."""
    random = np.random.default_rng((number, 1))
    if random.random() < WHOLE:
        return COUNT
    return int(random.uniform(1.2, SECONDS) * SAMPLE_RATE) // STEP * STEP


def _taps(model: Model, samples: NDArray[np.float32]) -> NDArray[np.float16]:
    """[steps, layers, d] of a window as the live engine hears it: with the model's margin behind."""
    frames = MelFrames(model.dims.n_mels)
    frames.append(samples)
    real = len(samples) * FRAMES_PER_SECOND // SAMPLE_RATE
    total = real if model.variable_context else min(real + model.margin_frames + 1, 2 * model.dims.n_audio_ctx) // 2 * 2
    mel = frames.window(0, len(samples), total)
    taps = model.encode_windows(mel[None], real_frames=[real], tag_spans_s=[SECONDS]).taps[0]
    assert taps is not None
    return taps.transpose(0, 1).float().cpu().numpy().astype(np.float16)


def _write(path: Path, **arrays: NDArray[Any]) -> None:
    fresh = path.with_suffix(".part")
    with fresh.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    os.replace(fresh, path)


class SceneTaps:
    """Windows of scenes with their taps and targets, in memory. `names`: ways of hearing, as `encode` wrote them."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        taps, steps, targets = [], [], []
        for name in names:
            for path in sorted((folder / name).glob("*.npz")):
                with np.load(path) as found, np.load(folder / path.name) as scenes:
                    taps.append(found["taps"])
                    steps.append(found["steps"])
                    targets.append(scenes["targets"][found["rows"]])
        self.taps = np.concatenate(taps)
        self.steps = np.concatenate(steps)
        self.targets = np.concatenate(targets)

    def __len__(self) -> int:
        return len(self.steps)

    def cut(self, index: int, end: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Taps [layers, steps, d] before step `end` of a window, and how surely each class sounds there [527]."""
        first = STEPS - int(self.steps[index])  # of the scene's steps
        taps = torch.from_numpy(self.taps[index, end - steps : end].astype(np.float32).transpose(1, 0, 2))
        target = self.targets[index, first + end - steps : first + end].max(0).astype(np.float32) / 255
        return taps, torch.from_numpy(target)

    def identity(self) -> int:
        """What they are, for the state of a run that was killed."""
        return zlib.crc32(self.steps.tobytes() + self.targets[:, ::5].tobytes())

    def heard(self) -> list[int]:
        """The classes that sound surely in ten windows or more."""
        return np.flatnonzero((self.targets.max(1) > 127).sum(0) >= 10).tolist()


class SceneSampler:
    """Draws batches from scenes: windows uniformly, any end, one of the recipe's spans before it."""

    def __init__(self, scenes: SceneTaps, recipe: RecipeSection, seed: int) -> None:
        self._scenes, self._recipe, self._seed = scenes, recipe, seed
        self._spans = [max(1, span_steps(span)) for span in recipe.spans_s]

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        return max(1, len(self._scenes) // self._recipe.batch)

    def draw(self, epoch: int, step: int, rank: int = 0, count: int = 1) -> list[Part]:
        """The part of a batch that belongs to process `rank` of `count`, items of one length together."""
        by_steps: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for place in range(rank, self._recipe.batch, count):
            random = np.random.default_rng((self._seed, epoch, step, place))
            index = int(random.integers(len(self._scenes)))
            has = int(self._scenes.steps[index])
            steps = min(self._spans[int(random.integers(len(self._spans)))], has)
            taps, target = self._scenes.cut(index, int(random.integers(steps, has + 1)), steps)
            by_steps.setdefault(steps, []).append((masked(taps, self._recipe.time_mask_share, random), target))
        return [
            Part(torch.stack([taps for taps, _ in items]), torch.stack([target for _, target in items]))
            for _, items in sorted(by_steps.items())
        ]


@torch.inference_mode()
def judge_scenes(head: Any, scenes: SceneTaps, spans_s: Sequence[float]) -> Judgements:
    """Judge each window at each second that a span fits before."""
    logits, truth, windows = [], [], []
    for span in spans_s:
        steps = max(1, span_steps(span))
        places = [
            (index, end)
            for index in range(len(scenes))
            for end in range(steps, int(scenes.steps[index]) + 1, max(3, steps // 2))
        ]
        for begin in range(0, len(places), 256):
            cuts = [scenes.cut(index, end, steps) for index, end in places[begin : begin + 256]]
            logits.append(head(torch.stack([taps for taps, _ in cuts])).float().numpy())
            truth.append(np.stack([target.numpy() for _, target in cuts]))
            windows += [index for index, _ in places[begin : begin + 256]]
    found = np.concatenate(truth) >= 0.5
    return Judgements(np.concatenate(logits), found.astype(np.float32), np.array(windows, np.int64), 0)
