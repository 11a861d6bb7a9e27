"""`streamer train head`: a tagging head on the taps of a frozen backbone, from a YAML file to a `.pth` with its JSON.

    streamer train head --config configs/train_head.yaml --set recipe.epochs=40
    torchrun --nproc-per-node 4 --no-python streamer train head --config configs/train_head.yaml

The files are those of the released heads (`at_model.` keys; see `streamer.model.head` for the JSON), so `--head` takes
them. `OUT.training` beside them is the state that a killed run goes on from.
"""

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streamer.errors import InputError
from streamer.model.catalog import LABELS
from streamer.model.checkpoint import load_model
from streamer.model.download import file_sha256
from streamer.model.head import HeadModule, HeadShape
from streamer.model.whisper import Model
from streamer.training import trainer
from streamer.training.calibration import Fit, calibrate
from streamer.training.features import TapSet, cached_taps, encoder_sha256, recipe_hash
from streamer.training.head_settings import HeadTraining, read_settings
from streamer.training.judging import Judgements, judge_spans
from streamer.training.manifests import Clip, hold_out, of_split, read_manifest
from streamer.training.processes import Processes, processes
from streamer.training.sampling import Sampler


@dataclass(frozen=True, slots=True)
class TrainedHead:
    """What a run made. `losses`: mean of each epoch; `trained`: class indices that had examples."""

    path: Path
    losses: tuple[float, ...]
    trained: tuple[int, ...]
    train_windows: int
    validation_windows: int


def main(config: Path, overrides: Sequence[str] = (), *, progress: bool = True) -> TrainedHead:
    """Train the head that the YAML file describes; `overrides` are KEY=VALUE. Goes on where a killed run stopped.

    Raises ConfigError (settings), InputError (data), CheckpointError (backbone or state).
    """
    settings = read_settings(config, HeadTraining, tuple(overrides))
    with processes(settings.device) as group:
        return train_head(settings, group, progress=progress)


def train_head(settings: HeadTraining, group: Processes, *, progress: bool = False) -> TrainedHead:
    """Train by validated settings; every process of `group` calls this."""
    model = load_model(settings.model, head=None, device=group.device, dtype=settings.dtype)
    train_clips, validation_clips = split_clips(settings)
    recipe, cache = settings.features.recipe(), settings.features.cache
    taps = cached_taps(model, train_clips, cache, recipe, group=group, progress=progress)
    held_out = cached_taps(model, validation_clips, cache, recipe, group=group, progress=progress)
    identity = trainer.identity_of(
        settings.model_dump_json(include={"head", "recipe", "seed"}),
        recipe_hash(model, recipe),
        [(str(window.clip.path), window.clip.labels, window.start_s, window.end_s) for window in taps.windows],
    )
    run = trainer.begin(_shape(settings, model), settings.recipe, settings.seed, identity, group.device)
    state = settings.out.with_name(f"{settings.out.name}.training")
    trainer.resume(run, state)
    sampler = Sampler(
        taps,
        settings.recipe.augmentation(),
        batch=settings.recipe.batch,
        seed=settings.seed,
        balanced=settings.recipe.balanced,
    )
    trainer.train(run, sampler, settings.recipe, state, group, progress=progress)
    trained = tuple(sorted({label for clip in train_clips for label in clip.labels}))
    if group.leads:
        head = trainer.averaged_head(run)
        fit = fit_calibration(head, held_out, settings.recipe.spans_s, trained)
        write_head(settings.out, head, fit, _facts(settings, model, taps, held_out, trained, run.losses))
    group.wait()
    return TrainedHead(settings.out, tuple(run.losses), trained, len(taps), len(held_out))


def split_clips(settings: HeadTraining) -> tuple[list[Clip], list[Clip]]:
    """The training and the validation clips of all manifests; see `configs/train_head.yaml`."""
    data = settings.data
    clips = [clip for manifest in data.manifests for clip in read_manifest(manifest).clips if clip.labels]
    kept = of_split(clips, data.train)
    if any(clip.split == data.validation for clip in clips):
        return kept, of_split(clips, data.validation)
    kept, held = hold_out(kept, data.validation_share)
    if not kept or not held:
        raise InputError(
            f"data.validation_share: {data.validation_share} leaves {len(kept)} clips for training and {len(held)} for "
            "validation: both are needed"
        )
    return kept, held


def fit_calibration(head: HeadModule, held_out: TapSet, spans_s: Sequence[float], trained: Sequence[int]) -> Fit:
    """The calibration on all spans together, for the live engine takes the best of several."""
    judged = [judge_spans(head, held_out, span) for span in spans_s]
    joined = Judgements(
        np.concatenate([each.logits for each in judged]),
        np.concatenate([each.truth for each in judged]),
        np.concatenate([each.windows for each in judged]),
        0,
    )
    return calibrate(joined.logits, joined.truth, joined.windows, trained)


def write_head(path: Path, head: HeadModule, fit: Fit, facts: dict[str, Any]) -> None:
    """Write `NAME.pth` in the released key format and `NAME.json`, each whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.part")
    content = io.BytesIO()  # a file would put its own name into the archive, and equal weights would differ
    torch.save({f"at_model.{name}": value.contiguous() for name, value in head.state_dict().items()}, content)
    fresh.write_bytes(content.getvalue())
    description = facts | {
        "sha256": file_sha256(fresh),
        "thresholds": list(fit.thresholds),
        "calibration": {"scale": list(fit.scale), "offset": list(fit.offset)},
        "own_calibration": list(fit.own),
    }
    os.replace(fresh, path)
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in description.items()]
    fresh.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    os.replace(fresh, path.with_suffix(".json"))


def _shape(settings: HeadTraining, model: Model) -> HeadShape:
    return HeadShape(settings.head.kind, model.dims.n_audio_state, model.dims.n_audio_layer, settings.head.low_width)


def _facts(
    settings: HeadTraining,
    model: Model,
    taps: TapSet,
    held_out: TapSet,
    trained: Sequence[int],
    losses: Sequence[float],
) -> dict[str, Any]:
    return {
        "name": settings.out.stem,
        "backbone": model.name,
        "backbone_encoder_sha256": encoder_sha256(model),
        "kind": settings.head.kind.value,
        "low_width": settings.head.low_width,
        "labels": LABELS,
        "source": "streamer train head",
        "trained_spans_s": [min(settings.recipe.spans_s), max(settings.recipe.spans_s)],
        "trained_classes": list(trained),
        "train_windows": len(taps),
        "validation_windows": len(held_out),
        "final_loss": losses[-1] if losses else None,
        "settings": settings.model_dump(mode="json", include={"head", "recipe", "features", "seed"}),
    }
