"""`streamer train t4`: compose the scenes (they stay in the folder, a killed run goes on), train, judge, write."""

import json
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from streamer.errors import UsageError
from streamer.recipes.small_nets import Arrays, Recipe, Say, blamed, composed, fit
from streamer.recipes.synthesis.scenes import SECONDS, Sounds
from streamer.recipes.t4.scenes import examples
from streamer.sound.patterns.t4 import LAYERS

VALIDATION = 10  # one scene in so many is held out
WIDTHS = (64, 32)
BATCH, POSITIVE = 256, 96  # pairs; of which so many are a CO alarm's
RATE, WARMUP = 1.5e-3, 200
DROPOUT, JITTER, HIDDEN = 0.15, 0.05, 0.03  # of the hidden values; noise on the inputs; part of them that is not seen
TOLD_EVERY = 1000
LATEST_S = SECONDS - 2  # what begins later may be a group that is not counted any more
APART_S = 1.0
THRESHOLDS = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
WIDE_DB = (-10.0, 0.0, 10.0)


class TrainedNet(nn.Module):
    """Inputs [b, n] to log-odds [b, 2]; for judging the same as `streamer.sound.patterns.t4.BeepNet`."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        sizes = (inputs, *WIDTHS, 2)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        """Log-odds that the group is a T4's, and that the one before it is too."""
        for layer in list(self.layers)[:-1]:
            x = functional.dropout(functional.relu(layer(x)), DROPOUT, self.training)
        found: Tensor = self.layers[-1](x)
        return found

    def save(self, path: Path) -> None:
        """Write what `BeepNet` is read from."""
        stored = {
            f"{name}.{part}": getattr(layer, part).detach().numpy().astype(np.float16)
            for name, layer in zip(LAYERS, self.layers, strict=True)
            for part in ("weight", "bias")
        }
        np.savez(path, **stored)


def main(recipe: Recipe, say: Say) -> Path:
    """The path of the network's file; `t4.json` beside it has its scores. Raises UsageError naming the option."""
    with blamed(recipe.out):
        known = composed(_composed, range(recipe.scenes), recipe.data, recipe.out / "pairs", recipe.processes, say)
        held = np.arange(recipe.scenes) % VALIDATION == 0
        teaching = ~held[known["scene"]] & (known["start_s"] < LATEST_S)
        classes = known["classes"][teaching]
        if not ((classes[:, 1] == 1).any() and (classes[:, 0] == 0).any()):
            raise UsageError(f"--scenes {recipe.scenes}: too few to learn from; give some hundreds")
        torch.set_num_threads(recipe.processes)
        network = train(known["inputs"][teaching], classes, recipe.steps, recipe.seed, say)
        path = recipe.out / "t4.npz"
        network.save(path)
        facts = {**asdict(recipe), **judged(network, known, held)}
        (recipe.out / "t4.json").write_text(json.dumps(facts, indent=1, default=str) + "\n", encoding="utf-8")
    return path


def train(
    inputs: NDArray[np.float16], classes: NDArray[np.int8], steps: int, seed: int = 0, say: Say = lambda line: None
) -> TrainedNet:
    """A network after so many steps: the running average of its weights. `inputs` [n, m], `classes` [n, 2]."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    alarming, other = np.flatnonzero(classes[:, 1] == 1), np.flatnonzero(classes[:, 1] == 0)
    values, wanted = torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(classes.astype(np.float32))
    network = TrainedNet(inputs.shape[1])

    def loss(step: int) -> Tensor:
        some = np.concatenate([random.choice(alarming, POSITIVE), random.choice(other, BATCH - POSITIVE)])
        x = values[some]
        x = (x + JITTER * torch.randn_like(x)) * (torch.rand_like(x) >= HIDDEN)
        return functional.binary_cross_entropy_with_logits(network(x), wanted[some])

    def rate(step: int) -> float:
        return float(RATE * min(1, (step + 1) / WARMUP) * (0.5 + 0.5 * np.cos(np.pi * step / steps)))

    return fit(network, loss, steps, rate=rate, weight_decay=0.05, told_every=TOLD_EVERY, say=say)


@torch.no_grad()
def judged(network: TrainedNet, known: Arrays, held: NDArray[np.bool_]) -> dict[str, Any]:
    """For each threshold: pairs taken for a CO alarm in the held-out scenes, and how many of its pairs were.

    Voices and recordings are those of the other scenes.
    """
    odds = network(torch.from_numpy(known["inputs"].astype(np.float32)))[:, 1].numpy()
    of, pairs = known["scene"], known["classes"][:, 1]
    mine, followed = held[of] & (known["start_s"] < LATEST_S), known["followed"] * held
    bands = [(low, high) for low, high in zip((-np.inf, *WIDE_DB), (*WIDE_DB, np.inf), strict=True)]

    def at(threshold: float) -> dict[str, Any]:
        sure = odds >= threshold
        row: dict[str, Any] = {"threshold": threshold, "false": int((sure & mine & (pairs == 0)).sum())}
        for low, high in bands:
            inside = (known["snr_db"] >= low) & (known["snr_db"] < high)
            right = np.flatnonzero(sure & mine & (pairs == 1) & inside[of])
            begins = np.sort(of[right] * 2 * SECONDS + known["start_s"][right])
            places = 1 + int((np.diff(begins) > APART_S).sum()) if begins.size else 0  # both bands may find one
            row[f"heard from {low:g} dB"] = f"{places} of {int(followed[inside].sum())}"
        return row

    return {"hours": round(float(held.sum()) * SECONDS / 3600, 2), "validation": [at(one) for one in THRESHOLDS]}


def _composed(sounds: Sounds, numbers: range) -> Arrays:
    found = [examples(sounds, number) for number in numbers]
    return {
        "inputs": np.concatenate([one.inputs for one in found]),
        "start_s": np.concatenate([one.starts_s for one in found]),
        "classes": np.concatenate([one.classes for one in found]),
        "scene": np.repeat(np.array(list(numbers)), [len(one.inputs) for one in found]),
        "followed": np.array([one.followed for one in found]),
        "snr_db": np.array([one.snr_db for one in found]),
    }
