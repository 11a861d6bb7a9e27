"""`streamer train head`: a tagging head on the taps of a frozen backbone, from a YAML file to a `.pth` with its JSON.

    streamer train head --config configs/train_head.yaml --set recipe.epochs=40
    torchrun --nproc-per-node 4 --no-python streamer train head --config configs/train_head.yaml

The files are those of the released heads (`at_model.` keys; see `streamer.model.head` for the JSON), so `--head` takes
them. `OUT.training` beside them is the state that a killed run goes on from.

`streamer train heads` compares kinds of heads on the same cached taps, as in the paper's table of heads: each kind is
trained at each learning rate, the rate is chosen on the validation clips, then the kind is trained with more seeds at
that rate, and only then is the `test` split looked at. A head that exists already can stand beside them.
"""

import io
import json
import logging
import os
import zlib
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streamer.errors import InputError
from streamer.measure.report import Report, Table, publish
from streamer.model.catalog import LABELS
from streamer.model.checkpoint import load_model, load_module
from streamer.model.download import file_sha256
from streamer.model.encoder import encoder_sha256 as encoder_identity
from streamer.model.head import HeadKind, HeadModule, HeadShape, load_head
from streamer.model.whisper import Model
from streamer.training import trainer
from streamer.training.calibration import Fit, calibrate
from streamer.training.evaluation import Judgements, SpanScore, evaluate_head, judge_spans
from streamer.training.features import TapSet, cached_taps, encoder_sha256, recipe_hash
from streamer.training.head_settings import HeadTraining, SceneSection, read_settings
from streamer.training.manifests import Clip, hold_out, of_split, read_manifest
from streamer.training.processes import Processes, processes
from streamer.training.scene_taps import SceneSampler, SceneTaps, compose, encode, judge_scenes
from streamer.training.scenes import Scenes
from streamer.training.teacher import Teacher
from streamer.training.trainer import Sampler

logger = logging.getLogger(__name__)

KINDS = (HeadKind.LAST_MLP, HeadKind.WA_MLP, HeadKind.WA_TR, HeadKind.TL_TR)


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
    if settings.scenes is not None:
        return _train_on_scenes(settings, settings.scenes, group, progress=progress)
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
    run = _begin(settings, model, identity, group.device)
    state = settings.out.with_name(f"{settings.out.name}.training")
    trainer.resume(run, state)
    sampler = Sampler(taps, settings.recipe, settings.seed)
    trainer.train(run, sampler, settings.recipe, state, group, progress=progress)
    trained = tuple(sorted({label for clip in train_clips for label in clip.labels}))
    if group.leads:
        head = _finished(settings, run)
        fit = fit_calibration(head, held_out, settings.recipe.spans_s, trained)
        write_head(settings.out, head, fit, _facts(settings, model, taps, held_out, trained, run.losses))
    group.wait()
    return TrainedHead(settings.out, tuple(run.losses), trained, len(taps), len(held_out))


def _train_on_scenes(settings: HeadTraining, how: SceneSection, group: Processes, *, progress: bool) -> TrainedHead:
    """The same on scenes composed from the clips, the held out ones from held out clips. The first process composes."""
    train_clips, validation_clips = split_clips(settings, unlabelled=True)
    hearings = _hearings(settings, how, group.device)
    teacher = None if how.teacher is None else Teacher(how.teacher)
    sets = []
    for name, clips, count in (("train", train_clips, how.count), ("validation", validation_clips, how.validation)):
        folder = how.folder / name
        if group.leads:
            compose(Scenes(clips, teacher, zlib.crc32(name.encode())), count, folder, logger.info)
            for place, (hearing, model) in enumerate(hearings.items()):
                encode(model, folder, hearing, (place, len(hearings)), logger.info)
        group.wait()
        sets.append(SceneTaps(folder, list(hearings)))
    scenes, held_out = sets
    model = next(iter(hearings.values()))
    identity = trainer.identity_of(
        settings.model_dump_json(include={"head", "recipe", "seed"}), encoder_sha256(model), scenes.identity()
    )
    run = _begin(settings, model, identity, group.device)
    state = settings.out.with_name(f"{settings.out.name}.training")
    trainer.resume(run, state)
    trainer.train(
        run, SceneSampler(scenes, settings.recipe, settings.seed), settings.recipe, state, group, progress=progress
    )
    known = (
        set() if settings.head.start is None else set(load_head(settings.head.start).description.trained_classes or ())
    )
    trained = tuple(sorted(known | set(scenes.heard())))
    if group.leads:
        head = _finished(settings, run)
        judged = judge_scenes(head, held_out, settings.recipe.spans_s)
        fit = calibrate(judged.logits, judged.truth, judged.windows, trained)
        facts = _facts(settings, model, scenes, held_out, trained, run.losses)
        facts["shape"] = (model.dims.n_audio_layer, model.dims.n_audio_state)
        facts["encoder_sha256"] = encoder_identity(load_module(settings.model).encoder)
        write_head(settings.out, head.half(), fit, facts)
    group.wait()
    return TrainedHead(settings.out, tuple(run.losses), trained, len(scenes), len(held_out))


def _begin(settings: HeadTraining, model: Model, identity: str, device: torch.device) -> trainer.Run:
    """A run with fresh weights, or with those of `head.start`. Raises InputError where that is of another shape."""
    shape, start = _shape(settings, model), settings.head.start
    if start is None:
        return trainer.begin(shape, settings.recipe, settings.seed, identity, device)
    head = load_head(start).module
    if any(getattr(head.shape, name) != getattr(shape, name) for name in ("kind", "width", "low_width")):
        raise InputError(f"head.start: {start} is {head.shape}, what is to be trained is {shape}")
    run = trainer.begin(shape, settings.recipe, settings.seed, f"{identity} {file_sha256(start)}", device)
    run.head.load_state_dict(head.state_dict())
    return run


def _finished(settings: HeadTraining, run: trainer.Run) -> HeadModule:
    """The mean of the last epochs, drawn back to `head.start` by `head.keep` (Wortsman et al., arXiv 2109.01903)."""
    head = trainer.averaged_head(run)
    if settings.head.start is not None and settings.head.keep:
        before = load_head(settings.head.start).module.state_dict()
        after = head.state_dict()
        head.load_state_dict({name: torch.lerp(after[name], before[name], settings.head.keep) for name in after})
    return head


def _hearings(settings: HeadTraining, how: SceneSection, device: torch.device) -> dict[str, Model]:
    """The ways in which the backbone hears a window, by name."""
    found: dict[str, Model] = {}
    for name, short in (("short", True), ("stock", False)):
        wanted = how.short_windows if short else how.stock or not how.short_windows
        if wanted:
            languages = ("en",) if short else ()
            found[f"{settings.model.replace('/', '_')}-{name}"] = load_model(
                settings.model,
                head=None,
                device=device,
                dtype=settings.dtype,
                short_windows=short,
                languages=languages,
            )
    return found


def split_clips(settings: HeadTraining, *, unlabelled: bool = False) -> tuple[list[Clip], list[Clip]]:
    """The training and the validation clips of all manifests; see `configs/train_head.yaml`."""
    data = settings.data
    every = [clip for manifest in data.manifests for clip in read_manifest(manifest).clips]
    clips = [clip for clip in every if clip.labels or unlabelled]
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
    taps: Sized,
    held_out: Sized,
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
        "settings": settings.model_dump(mode="json", include={"head", "recipe", "features", "seed", "scenes"}),
    }


@dataclass(frozen=True, slots=True)
class Compared:
    """One kind: the rate that validation chose, mAP there, and the test scores of each seed (whole windows first)."""

    name: str
    parameters: int
    rate: float | None
    validation: float | None
    tests: tuple[tuple[SpanScore, ...], ...]

    def mean(self, place: int, name: str) -> float:
        """The mean over the seeds of a metric at a span (0: whole windows)."""
        return float(np.mean([getattr(scores[place].metrics, name) for scores in self.tests]))

    def spread(self) -> float:
        """The standard deviation of the mAP over the seeds."""
        return float(np.std([scores[0].metrics.average_precision for scores in self.tests]))


def compare_heads(
    config: Path,
    out: Path,
    overrides: Sequence[str] = (),
    *,
    kinds: Sequence[HeadKind] = KINDS,
    rates: Sequence[float] = (5e-4, 2e-3),
    seeds: int = 3,
    split: str = "test",
    beside: Sequence[Path] = (),
    progress: bool = True,
) -> Report:
    """Compare kinds of heads under one recipe; heads.json and heads.md in `out`, the trained heads beside them.

    `config` and `overrides`: as for `main` (its `out`, `head` and `recipe.rate` do not matter); `beside`:
    existing heads for the same backbone. Raises as `main`.
    """
    settings = read_settings(config, HeadTraining, tuple(overrides))
    model = load_model(settings.model, head=None, device=settings.device, dtype=settings.dtype)
    group = Processes(0, 1, model.device)
    recipe, cache = settings.features.recipe(), settings.features.cache
    validation = cached_taps(model, split_clips(settings)[1], cache, recipe)
    labelled = [clip for each in settings.data.manifests for clip in read_manifest(each).clips if clip.labels]
    test = cached_taps(model, of_split(labelled, split), cache, recipe, progress=progress)
    found = [_compare(settings, kind, group, out, rates, seeds, (validation, test), progress) for kind in kinds]
    found += [_existing(path, model, test) for path in beside]
    report = _report(model, split, test, found)
    publish(report, out)
    return report


def _compare(
    settings: HeadTraining,
    kind: HeadKind,
    group: Processes,
    out: Path,
    rates: Sequence[float],
    seeds: int,
    sets: tuple[TapSet, TapSet],
    progress: bool,
) -> Compared:
    validation, test = sets
    trained = {rate: _train(settings, kind, rate, 0, group, out, progress) for rate in rates}
    judged = {rate: evaluate_head(load_head(path), validation, ())[0] for rate, path in trained.items()}
    best = max(rates, key=lambda rate: judged[rate].metrics.average_precision)
    paths = [trained[best], *(_train(settings, kind, best, seed, group, out, progress) for seed in range(1, seeds))]
    heads = [load_head(path) for path in paths]
    return Compared(
        name=kind.value,
        parameters=sum(value.numel() for value in heads[0].module.parameters()),
        rate=best,
        validation=judged[best].metrics.average_precision,
        tests=tuple(tuple(evaluate_head(head, test)) for head in heads),
    )


def _train(
    settings: HeadTraining, kind: HeadKind, rate: float, seed: int, group: Processes, out: Path, progress: bool
) -> Path:
    path = out / f"{kind.value}_{rate:g}_{seed}.pth"
    chosen = settings.model_copy(
        update={
            "out": path,
            "seed": seed,
            "head": settings.head.model_copy(update={"kind": kind, "low_width": None}),
            "recipe": settings.recipe.model_copy(update={"rate": rate}),
        }
    )
    return train_head(chosen, group, progress=progress).path


def _existing(path: Path, model: Model, test: TapSet) -> Compared:
    head = load_head(path)
    head.check_fits(model.dims.n_audio_layer, model.dims.n_audio_state, model.name)
    parameters = sum(value.numel() for value in head.module.parameters())
    return Compared(path.name, parameters, None, None, (tuple(evaluate_head(head, test)),))


def _report(model: Model, split: str, test: TapSet, found: Sequence[Compared]) -> Report:
    spans = [f"{score.span_s:g} s" for score in found[0].tests[0][1:]] if found else []
    columns = ("head", "parameters", "rate", "validation mAP", "mAP", "± seeds", "mAUC", "accuracy")
    rows = [
        [
            each.name,
            each.parameters,
            None if each.rate is None else f"{each.rate:g}",
            each.validation,
            each.mean(0, "average_precision"),
            each.spread() if len(each.tests) > 1 else None,
            each.mean(0, "auc"),
            each.mean(0, "accuracy"),
            *(each.mean(place, "average_precision") for place in range(1, len(spans) + 1)),
        ]
        for each in found
    ]
    header = (*columns, *(f"mAP {span}" for span in spans))
    return Report(
        name="heads",
        title=f"Heads on the taps of {model.name}, {len(test)} windows of the split {split}",
        about="",
        result={
            "model": model.name,
            "split": split,
            "heads": [dict(zip(header, row, strict=True)) for row in rows],
        },
        tables=(Table("mAP of whole windows, and over spans (means over seeds)", header, rows),),
    )
