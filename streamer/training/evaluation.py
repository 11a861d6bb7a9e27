"""`streamer eval tags`: how well a head tags, over spans of 1, 2, 5 and 10 s and over whole windows.

    streamer eval tags --model nano --manifest data/manifest.csv --split test --out build/eval

A label belongs to a whole recording, so a short span may be judged for a sound that is not in it: the curve falls for
that reason too, as it does in every published one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamer.errors import UsageError
from streamer.measure.report import Curve, Report, Table, draw_curves, evaluation_library, publish
from streamer.model.checkpoint import load_model
from streamer.model.head import CLASSES, HeadModule, TaggingHead
from streamer.model.whisper import Model, span_steps
from streamer.sound.labels import labels
from streamer.training.features import TapRecipe, TapSet, cached_taps
from streamer.training.manifests import ManifestSettings, of_split, read_manifest

BATCH = 256


SPANS_S = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Judgements:
    """One judgement a row: logits and truth, float32 [n, 527], and the index of the window. `short`: how many windows
    were shorter than the span and judged whole.
    """

    logits: NDArray[np.float32]
    truth: NDArray[np.float32]
    windows: NDArray[np.int64]
    short: int

    def tensor(self) -> Tensor:
        """The logits as a tensor."""
        return torch.from_numpy(self.logits)


@dataclass(frozen=True, slots=True)
class TagMetrics:
    """Scores of n judgements: means over the `classes` that occur.

    - `average_precision`: mAP.  `auc`: mean area under the ROC curve.  `d_prime`: see there.
    - `accuracy`: how often the best class is among the labels.  `per_class`: index -> average precision.
    """

    n: int
    classes: int
    average_precision: float
    auc: float
    d_prime: float
    accuracy: float
    per_class: dict[int, float]


@torch.inference_mode()
def judge_spans(head: HeadModule, taps: TapSet, span_s: float | None) -> Judgements:
    """Judge every window of a set in stretches of `span_s` (None: whole), one behind the other, the last one's end at
    the window's end. What is shorter is judged whole, as in the live engine.
    """
    cuts: dict[int, list[tuple[int, int]]] = {}
    short = 0
    for index, window in enumerate(taps.windows):
        steps = window.steps if span_s is None else max(1, span_steps(span_s))
        short += window.steps < steps
        steps = min(steps, window.steps)
        first = window.steps % steps
        cuts.setdefault(steps, []).extend((index, at) for at in range(first, window.steps - steps + 1, steps))
    logits, windows = [], []
    device = next(head.parameters()).device
    for steps, places in sorted(cuts.items()):
        for begin in range(0, len(places), BATCH):
            batch = places[begin : begin + BATCH]
            stacked = torch.stack([taps.taps(index, at, steps) for index, at in batch])
            logits.append(head(stacked.to(device, _type_of(head))).float().cpu().numpy())
            windows += [index for index, _ in batch]
    order = np.argsort(windows, kind="stable")
    picked = np.array(windows, np.int64)[order]
    return Judgements(np.concatenate(logits)[order], taps.labels(CLASSES)[picked], picked, short)


def _type_of(head: HeadModule) -> torch.dtype:
    """The type that a head computes in: its transformers' (its classifier is always float32)."""
    return next(
        (value.dtype for name, value in head.named_parameters() if name.endswith("attn.out.weight")), torch.float32
    )


def tag_metrics(scores: NDArray[np.float32], truth: NDArray[np.float32]) -> TagMetrics:
    """Metrics of scores [n, 527] (any monotone scale per class) against truth [n, 527]."""
    metrics = evaluation_library("sklearn.metrics")
    present = np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0))
    precision = {int(i): float(metrics.average_precision_score(truth[:, i], scores[:, i])) for i in present}
    areas = [float(metrics.roc_auc_score(truth[:, i], scores[:, i])) for i in present]
    labelled = truth.any(axis=1)
    best = scores.argmax(axis=1)
    hits = truth[np.arange(len(truth)), best][labelled]
    auc = float(np.mean(areas)) if areas else math.nan
    return TagMetrics(
        n=len(truth),
        classes=len(present),
        average_precision=float(np.mean(list(precision.values()))) if precision else math.nan,
        auc=auc,
        d_prime=d_prime(auc),
        accuracy=float(hits.mean()) if len(hits) else math.nan,
        per_class=precision,
    )


def d_prime(auc: float) -> float:
    """The distance of two unit normals that gives this area under the curve: sqrt(2) times its quantile."""
    return math.sqrt(2) * NormalDist().inv_cdf(min(max(auc, 1e-9), 1 - 1e-9)) if not math.isnan(auc) else math.nan


def expected_calibration_error(scores: NDArray[np.float32], truth: NDArray[np.float32], bins: int = 15) -> float:
    """How far scores in 0..1 are from how often they are right (Guo et al., 2017), over all their entries."""
    flat, right = scores.ravel(), truth.ravel()
    place = np.minimum((flat * bins).astype(int), bins - 1)
    error = 0.0
    for bin_ in range(bins):
        inside = place == bin_
        if inside.any():
            error += inside.mean() * abs(float(flat[inside].mean()) - float(right[inside].mean()))
    return error


def f1_at(scores: NDArray[np.float32], truth: NDArray[np.float32], thresholds: Sequence[float]) -> float:
    """Micro F1 of the decisions that the thresholds [527] make."""
    over = scores >= np.asarray(thresholds)
    hits = float((over & (truth > 0.5)).sum())
    return 2 * hits / max(1.0, float(over.sum() + truth.sum()))


@dataclass(frozen=True, slots=True)
class SpanScore:
    """A head's metrics at one span (None: whole windows), with the quality of its calibrated scores.

    `short`: windows that were shorter and judged whole; `f1`: micro, at the head's own thresholds (None without).
    """

    span_s: float | None
    short: int
    metrics: TagMetrics
    calibration_error: float
    f1: float | None


def main(
    model: str,
    manifests: Sequence[ManifestSettings],
    out: Path,
    *,
    head: str = "auto",
    split: str = "test",
    spans_s: Sequence[float] = SPANS_S,
    cache: Path = Path("build/taps"),
    context: Literal["auto", "padded", "fit"] = "auto",
    device: str = "auto",
    dtype: str = "auto",
    progress: bool = True,
) -> Report:
    """Evaluate a model's head on a split and write tags.json, tags.md and tags.png into `out`.

    Raises UsageError without a head, InputError for data that is not there.
    """
    loaded = load_model(model, head=head, device=device, dtype=dtype)
    if loaded.head is None:
        raise UsageError(f"--head {head}: there is no tagging head for {model}: give the path of a .pth")
    clips = of_split([clip for each in manifests for clip in read_manifest(each).clips if clip.labels], split)
    taps = cached_taps(loaded, clips, cache, TapRecipe(context=context), progress=progress)
    report = tag_report(loaded, loaded.head, taps, split, evaluate_head(loaded.head, taps, spans_s))
    publish(report, out)
    return report


def evaluate_head(head: TaggingHead, taps: TapSet, spans_s: Sequence[float] = SPANS_S) -> list[SpanScore]:
    """The metrics of whole windows first, then of each span. The head computes in the type that its weights have."""
    found = []
    for span in (None, *spans_s):
        judged = judge_spans(head.module, taps, span)
        scores = head.probabilities(judged.tensor()).numpy()
        thresholds = head.description.thresholds
        found.append(
            SpanScore(
                span_s=span,
                short=judged.short,
                metrics=tag_metrics(scores, judged.truth),
                calibration_error=expected_calibration_error(scores, judged.truth),
                f1=None if thresholds is None else f1_at(scores, judged.truth, thresholds),
            )
        )
    return found


def tag_report(model: Model, head: TaggingHead, taps: TapSet, split: str, scores: Sequence[SpanScore]) -> Report:
    """The report of `evaluate_head`."""
    whole, *spans = scores
    per_class = [(labels()[index].name, value) for index, value in whole.metrics.per_class.items()]
    per_class.sort(key=lambda item: -item[1])
    facts = {"model": model.name, "head": head.name, "kind": head.module.shape.kind.value, "split": split}
    curve = Curve("mAP", [each.span_s or 0 for each in spans], [each.metrics.average_precision for each in spans])

    def draw(figure: Any) -> None:
        draw_curves(figure.subplots(), [curve], title="mAP over the judged span", x="span, s", y="mAP")

    return Report(
        name="tags",
        title=f"Tags: {model.name} with {head.name}, {len(taps)} windows of the split {split}",
        about="",
        result=facts | {"spans": [_row(each) for each in scores], "average_precision": dict(per_class)},
        tables=(
            _span_table(scores),
            Table("Average precision of each class (whole windows)", ("class", "AP"), per_class),
        ),
        draw=draw if spans else None,
    )


def _span_table(scores: Sequence[SpanScore]) -> Table:
    columns = ("span", "judgements", "judged whole", "classes", "mAP", "mAUC", "d'", "accuracy", "ECE", "F1")
    return Table(
        "Over spans",
        columns,
        [
            (
                "whole" if each.span_s is None else f"{each.span_s:g} s",
                each.metrics.n,
                each.short,
                each.metrics.classes,
                each.metrics.average_precision,
                each.metrics.auc,
                each.metrics.d_prime,
                each.metrics.accuracy,
                each.calibration_error,
                each.f1,
            )
            for each in scores
        ],
    )


def _row(score: SpanScore) -> dict[str, Any]:
    metrics = score.metrics
    return {
        "span_s": score.span_s,
        "judgements": metrics.n,
        "judged_whole": score.short,
        "classes": metrics.classes,
        "mAP": metrics.average_precision,
        "mAUC": metrics.auc,
        "d_prime": metrics.d_prime,
        "accuracy": metrics.accuracy,
        "calibration_error": score.calibration_error,
        "f1": score.f1,
    }
