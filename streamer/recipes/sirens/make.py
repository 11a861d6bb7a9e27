"""`streamer train sirens`: compose the scenes (they stay in the folder, a killed run goes on), train, judge, write."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streamer.errors import UsageError
from streamer.recipes.sirens.loop import VALIDATION, Bank, heard, train
from streamer.recipes.sirens.network import TrainedNet
from streamer.recipes.sirens.scenes import compose
from streamer.recipes.small_nets import Arrays, Recipe, Say, blamed, composed
from streamer.recipes.synthesis.scenes import Sounds
from streamer.sound.patterns.sirens import STEPS

LOOK_STEPS = 4
STEP_S = 0.032
AFTER_STEPS = 110  # behind a siren's end nothing is counted: 3.5 s
THRESHOLDS = (0.9, 0.95, 0.98, 0.99)
LOOKS = 4


def main(recipe: Recipe, say: Say) -> Path:
    """The path of the network's file; `sirens.json` beside it has its scores. Raises UsageError naming the option."""
    with blamed(recipe.out):
        bank = Bank(
            **composed(_composed, range(recipe.scenes), recipe.data, recipe.out / "scenes", recipe.processes, say)
        )
        if not all(map(len, bank.places())):
            raise UsageError(f"--scenes {recipe.scenes}: too few to learn from; give some hundreds")
        torch.set_num_threads(recipe.processes)
        network = train(bank, recipe.steps, recipe.seed, say)
        path = recipe.out / "sirens.onnx"
        network.save(path)
        facts = {**asdict(recipe), **judged(network, bank)}
        (recipe.out / "sirens.json").write_text(json.dumps(facts, indent=1, default=str) + "\n", encoding="utf-8")
    return path


def judged(network: TrainedNet, bank: Bank) -> dict[str, Any]:
    """For each threshold, LOOKS looks in a row: false alarms in the held-out scenes, sirens heard and how soon."""
    levels, classes = bank.levels[::VALIDATION], bank.classes[::VALIDATION]
    held = Bank(levels, classes)
    ends = np.arange(STEPS // 4, classes.shape[1], LOOK_STEPS)
    places = np.stack(np.meshgrid(np.arange(len(classes)), ends, indexing="ij"), axis=-1).reshape(-1, 2)
    chance = heard(network, held, places.astype(np.int32)).reshape(len(classes), len(ends))
    chance = np.stack([chance[:, look : chance.shape[1] - LOOKS + 1 + look] for look in range(LOOKS)]).min(axis=0)
    ends = ends[LOOKS - 1 :]
    return {
        "hours_without_siren": round(float((classes == 0).sum()) * STEP_S / 3600, 2),
        "validation": [_at(threshold, chance >= threshold, classes, ends) for threshold in THRESHOLDS],
    }


def _at(threshold: float, above: Any, classes: Any, ends: Any) -> dict[str, Any]:
    false, taken, sirens = 0, [], 0
    for hits, sounding in zip(above, classes > 0, strict=True):
        lately = np.convolve(sounding, np.ones(AFTER_STEPS))[: sounding.size] > 0
        wrong = hits & ~lately[ends]
        false += int((wrong[1:] & ~wrong[:-1]).sum() + wrong[0])
        edges = np.flatnonzero(np.diff(sounding.astype(np.int8), prepend=0, append=0))
        for begin, end in zip(edges[::2], edges[1::2], strict=True):
            sirens += 1
            found = ends[hits & (ends > begin) & (ends <= end)]
            taken += [float(found[0] - begin) * STEP_S] if found.size else []
    return {
        "threshold": threshold,
        "false_alarms": false,
        "sirens": sirens,
        "heard": len(taken),
        "p50_s": round(float(np.median(taken)), 2) if taken else None,
    }


def _composed(sounds: Sounds, numbers: range) -> Arrays:
    scenes = [compose(sounds, number) for number in numbers]
    return {
        "levels": np.stack([scene.levels for scene in scenes]),
        "classes": np.stack([scene.classes for scene in scenes]),
    }
