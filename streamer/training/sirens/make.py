"""`streamer train sirens`: compose the scenes (they stay in the folder, a killed run goes on), train, judge, write."""

import json
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streamer.bench.processes import as_done
from streamer.errors import UsageError
from streamer.sound.siren_net import STEPS
from streamer.training.sirens.loop import VALIDATION, Bank, Say, heard, train
from streamer.training.sirens.network import TrainedNet
from streamer.training.sirens.scenes import Sounds, compose

BLOCK = 200  # scenes in a file
LOOK_STEPS = 4
STEP_S = 0.032
AFTER_STEPS = 110  # behind a siren's end nothing is counted: 3.5 s
THRESHOLDS = (0.9, 0.95, 0.98, 0.99)
LOOKS = 4
COLUMNS = ("path", "kind", "split", "labels")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides the network. `data`: a folder with `manifest.csv`, whose train split is used."""

    data: Path
    out: Path
    scenes: int = 12_800
    steps: int = 20_000
    seed: int = 0
    processes: int = 2


def main(recipe: Recipe, say: Say) -> Path:
    """The path of the network's file; `sirens.json` beside it has its scores. Raises UsageError naming the option."""
    _check(recipe.data / "manifest.csv")
    try:
        bank = _bank(recipe, say)
        if not all(map(len, bank.places())):
            raise UsageError(f"--scenes {recipe.scenes}: too few to learn from; give some hundreds")
        torch.set_num_threads(recipe.processes)
        network = train(bank, recipe.steps, recipe.seed, say)
        path = recipe.out / "sirens.npz"
        network.save(path)
        facts = {**asdict(recipe), "data": str(recipe.data), "out": str(recipe.out), **judged(network, bank)}
        (recipe.out / "sirens.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"{error.filename}: not found; espeak-ng, flite and the manifest's files are needed") from None
    except OSError as error:
        raise UsageError(f"{error.filename or recipe.out}: {error.strerror}") from None
    except subprocess.CalledProcessError as error:
        raise UsageError(f"{error.cmd[0]}: failed ({error.cmd}); it must have the voices of the list") from None
    return path


def _check(manifest: Path) -> None:
    try:
        header = manifest.read_text(encoding="utf-8").partition("\n")[0].strip().split(",")
    except (OSError, UnicodeDecodeError):
        header = []
    if not set(COLUMNS) <= set(header):
        raise UsageError(f"--data {manifest.parent}: must have a manifest.csv with the columns {', '.join(COLUMNS)}")


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


def _bank(recipe: Recipe, say: Say) -> Bank:
    folder = recipe.out / "scenes"
    folder.mkdir(parents=True, exist_ok=True)
    blocks = range(0, recipe.scenes, BLOCK)
    wanted = [first for first in blocks if not _file(folder, first).exists()]
    for done, _ in enumerate(as_done(_compose, wanted, recipe.processes, _prepare, (recipe.data, folder)), 1):
        say(f"{done * BLOCK} of {len(wanted) * BLOCK} scenes composed")
    stored = [np.load(_file(folder, first)) for first in blocks]
    levels, classes = (np.concatenate([block[name] for block in stored]) for name in ("levels", "classes"))
    return Bank(levels[: recipe.scenes], classes[: recipe.scenes])


_composing: list[tuple[Sounds, Path]] = []  # of this process of the pool


def _prepare(data: Path, folder: Path) -> None:
    _composing[:] = [(Sounds(data), folder)]


def _compose(first: int) -> None:
    sounds, folder = _composing[0]
    scenes = [compose(sounds, number) for number in range(first, first + BLOCK)]
    partial = folder / f"{first:05d}.partial.npz"
    np.savez(
        partial,
        levels=np.stack([scene.levels for scene in scenes]),
        classes=np.stack([scene.classes for scene in scenes]),
    )
    partial.rename(_file(folder, first))


def _file(folder: Path, first: int) -> Path:
    return folder / f"{first:05d}.npz"
