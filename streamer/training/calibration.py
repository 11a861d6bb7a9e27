"""From logits to probabilities: one mapping and one threshold per class, fitted on validation data.

The mapping is Platt's (1999): score = logistic(scale * logit + offset), with his smoothed targets. A class with few
positive recordings would be fitted to chance, so its own mapping is pulled towards one that all trained classes share;
the same holds for its threshold, the one of the best F1. Classes without a training example are mapped to zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.measure.report import evaluation_library
from streamer.model.head import CLASSES

UNTRAINED = (0.0, -20.0)  # scale and offset: a score of 2e-9 whatever the logit
SURE_POSITIVES = 20  # recordings with a class at which its own fit counts as much as the shared one
LEAST_SCALE = 0.05  # a mapping must rise
THRESHOLDS = np.arange(0.1, 0.91, 0.02)
DEFAULT_THRESHOLD = 0.5

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Fit:
    """Scale, offset and threshold of each class [527], and whose are (mostly) their own."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    thresholds: tuple[float, ...]
    own: tuple[int, ...]

    def scores(self, logits: Floats) -> Floats:
        """Calibrated scores in 0..1 for logits [n, 527]."""
        return _logistic(logits * np.array(self.scale, np.float32) + np.array(self.offset, np.float32))


def calibrate(logits: Floats, truth: Floats, recordings: NDArray[np.int64], trained: Sequence[int]) -> Fit:
    """Fit on judgements [n, 527] of validation data.

    `recordings` [n]: which recording each is of; `trained`: indices of the classes that training had examples of.
    """
    scale, offset = np.full(CLASSES, UNTRAINED[0]), np.full(CLASSES, UNTRAINED[1])
    thresholds = np.full(CLASSES, DEFAULT_THRESHOLD)
    classes = np.array(sorted(trained), np.int64)
    shared = _platt(logits[:, classes].ravel(), truth[:, classes].ravel())
    positives = _positives(truth, recordings)
    own = []
    for index in classes:
        scale[index], offset[index] = shared
        weight = positives[index] / (positives[index] + SURE_POSITIVES)
        if positives[index] >= 2:
            fitted = _platt(logits[:, index], truth[:, index], around=shared)
            scale[index] += weight * (fitted[0] - shared[0])
            offset[index] += weight * (fitted[1] - shared[1])
        if weight >= 0.5:
            own.append(int(index))
    scores = _logistic(logits * scale + offset)
    common = _best_threshold(scores[:, classes], truth[:, classes])
    for index in classes:
        weight = positives[index] / (positives[index] + SURE_POSITIVES)
        best = _best_threshold(scores[:, index], truth[:, index]) if positives[index] >= 2 else common
        thresholds[index] = common + weight * (best - common)
    return Fit(_rounded(scale), _rounded(offset), _rounded(thresholds), tuple(own))


def _platt(logits: Floats, truth: Floats, around: tuple[float, float] = (1.0, 0.0)) -> tuple[float, float]:
    """Scale and offset, mildly penalised for turning away from `around`."""
    linear: Any = evaluation_library("sklearn.linear_model")
    positive = truth > 0.5
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        return around
    target = np.where(positive, (count + 1) / (count + 2), 1 / (others + 2))
    moved = (around[0] * logits + around[1])[:, None]
    fit = linear.LogisticRegression(C=10.0, max_iter=1000).fit(
        np.concatenate([moved, moved]),
        np.repeat([1, 0], len(moved)),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    slope, shift = max(float(fit.coef_[0, 0]), LEAST_SCALE), float(fit.intercept_[0])
    return slope * around[0], slope * around[1] + shift


def _positives(truth: Floats, recordings: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many recordings have each class [527]; several judgements of one count once."""
    seen = np.zeros((int(recordings.max(initial=-1)) + 1, truth.shape[1]), np.bool_)
    np.logical_or.at(seen, recordings, truth > 0.5)
    return np.asarray(seen.sum(axis=0))


def _best_threshold(scores: Floats, truth: Floats) -> float:
    """The threshold with the best F1; the middle of several that are equal."""
    positive = truth > 0.5
    if not positive.any():
        return DEFAULT_THRESHOLD
    over = [scores >= threshold for threshold in THRESHOLDS]
    f1 = np.array([2 * (each & positive).sum() / (each.sum() + positive.sum()) for each in over])
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(THRESHOLDS[best[len(best) // 2]])


def _logistic(values: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -60, 60))), np.float32)


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(value), 5) for value in values)
