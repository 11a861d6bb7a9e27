"""`streamer train heads`: several kinds of heads on the same cached taps, as in the paper's table of heads.

Each kind is trained at each learning rate; the rate is chosen on the validation clips, then the kind is trained with
more seeds at that rate, and only then is the `test` split looked at. A head that exists already can stand beside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamer.model.checkpoint import load_model
from streamer.model.head import HeadKind, load_head
from streamer.model.whisper import Model
from streamer.training.evaluation import SpanScore, evaluate_head
from streamer.training.features import TapSet, cached_taps
from streamer.training.head_settings import HeadTraining, read_settings
from streamer.training.head_training import split_clips, train_head
from streamer.training.manifests import of_split, read_manifest
from streamer.training.processes import Processes
from streamer.training.reports import Report, Table, write_report

KINDS = (HeadKind.LAST_MLP, HeadKind.WA_MLP, HeadKind.WA_TR, HeadKind.TL_TR)


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


def main(
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

    `config` and `overrides`: as for `head_training.main` (its `out`, `head` and `recipe.rate` do not matter); `beside`:
    existing heads for the same backbone. Raises as `head_training.main`.
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
    write_report(report, out)
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
    rows = tuple(
        (
            each.name,
            each.parameters,
            None if each.rate is None else f"{each.rate:g}",
            each.validation,
            each.mean(0, "average_precision"),
            each.spread() if len(each.tests) > 1 else None,
            each.mean(0, "auc"),
            each.mean(0, "accuracy"),
            *(each.mean(place, "average_precision") for place in range(1, len(spans) + 1)),
        )
        for each in found
    )
    table = Table((*columns, *(f"mAP {span}" for span in spans)), rows)
    return Report(
        name="heads",
        title=f"Heads on the taps of {model.name}, {len(test)} windows of the split {split}",
        figures={
            "model": model.name,
            "split": split,
            "heads": [dict(zip(table.columns, row, strict=True)) for row in rows],
        },
        sections=(("mAP of whole windows, and over spans (means over seeds)", table),),
    )
