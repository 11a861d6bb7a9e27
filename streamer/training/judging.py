"""A head's judgements over spans of cached taps, and the metrics of a multi-label tagger (from scikit-learn)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamer.model.head import CLASSES, HeadModule
from streamer.model.whisper import span_steps
from streamer.training.extras import evaluation_library
from streamer.training.features import TapSet

BATCH = 256


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
