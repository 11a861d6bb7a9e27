"""`streamer eval probe`: what each encoder layer knows of sounds, by a linear classifier on its taps.

The study of Whisper-AT's figure on ESC-50 (Gong et al., arXiv 2307.03183): the mean over time of one layer's taps is
all that a logistic regression sees. Folds are the manifest's own (ESC-50's five, which keep clips of one source
together), or the given split: trained on `train`, judged on `test`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamer.errors import InputError
from streamer.measure.report import Curve, Report, Table, draw_curves, evaluation_library, publish
from streamer.model.checkpoint import load_model
from streamer.training.features import TapRecipe, TapSet, cached_taps
from streamer.training.manifests import Clip, ManifestSettings, read_manifest

Folds = Literal["split", "manifest"]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LayerScore:
    """One layer (from 1; 0: the mean of all): accuracy over all judged clips, in each fold, and F1 of each category."""

    layer: int
    accuracy: float
    folds: tuple[float, ...]
    f1: dict[str, float]


def main(
    model: str,
    manifests: Sequence[ManifestSettings],
    out: Path,
    *,
    folds: Folds = "split",
    split: str | None = None,
    cache: Path = Path("build/taps"),
    context: Literal["auto", "padded", "fit"] = "auto",
    device: str = "auto",
    dtype: str = "auto",
    progress: bool = True,
) -> Report:
    """Probe every layer; probe.json, probe.md and probe.png in `out`.

    `folds` manifest: cross-validation over the manifest's folds, on the clips of `split` (None: all). Raises InputError
    where the manifest has no categories or folds.
    """
    clips = [clip for each in manifests for clip in read_manifest(each).clips if clip.category]
    clips = [clip for clip in clips if split is None or clip.split == split]
    if not clips:
        raise InputError("no clip has a `category`: the probe needs one sound category for each clip")
    loaded = load_model(model, head=None, device=device, dtype=dtype)
    taps = cached_taps(loaded, clips, cache, TapRecipe(context=context), progress=progress)
    scores = probe(taps, partitions([window.clip for window in taps.windows], folds))
    report = _report(loaded.name, folds, taps, scores)
    publish(report, out)
    return report


def partitions(clips: Sequence[Clip], folds: Folds) -> list[tuple[Rows, Rows]]:
    """Rows to train on and rows to judge, for each fold. Raises InputError when there are none."""
    if folds == "split":
        keys, judged = [clip.split for clip in clips], ["test"]
    else:
        keys = [clip.fold for clip in clips]
        judged = sorted(set(keys) - {""})
    found = []
    for key in judged:
        test = np.array([row for row, other in enumerate(keys) if other == key], np.int64)
        train = np.array([row for row, other in enumerate(keys) if other not in (key, "")], np.int64)
        if len(test) and len(train):
            found.append((train, test))
    if not found:
        raise InputError(f"--folds {folds}: the clips do not fall into parts to train on and parts to judge")
    return found


def probe(taps: TapSet, parts: Sequence[tuple[Rows, Rows]]) -> list[LayerScore]:
    """The score of each layer, and of the mean over all layers (last)."""
    vectors = np.stack([taps.taps(row).mean(1).numpy() for row in range(len(taps))])  # [n, layers, d]
    categories = np.array([window.clip.category for window in taps.windows])
    layers = [*((layer + 1, vectors[:, layer]) for layer in range(taps.layers)), (0, vectors.mean(1))]
    return [_layer(layer, features, categories, parts) for layer, features in layers]


def _layer(
    layer: int, features: NDArray[np.float32], categories: NDArray[np.str_], parts: Sequence[tuple[Rows, Rows]]
) -> LayerScore:
    truth: list[str] = []
    guessed: list[str] = []
    folds = []
    for train, test in parts:
        found = _classifier().fit(features[train], categories[train]).predict(features[test])
        folds.append(float(np.mean(found == categories[test])))
        truth += categories[test].tolist()
        guessed += found.tolist()
    names = sorted(set(truth))
    f1 = evaluation_library("sklearn.metrics").f1_score(truth, guessed, labels=names, average=None, zero_division=0)
    accuracy = float(np.mean(np.array(truth) == np.array(guessed)))
    return LayerScore(layer, accuracy, tuple(folds), dict(zip(names, map(float, f1), strict=True)))


def _classifier() -> Any:
    scaler = evaluation_library("sklearn.preprocessing").StandardScaler()
    regression = evaluation_library("sklearn.linear_model").LogisticRegression(C=0.1, max_iter=1000)
    return evaluation_library("sklearn.pipeline").make_pipeline(scaler, regression)


def _report(model: str, folds: str, taps: TapSet, scores: Sequence[LayerScore]) -> Report:
    *layers, mean = scores
    judged = len(mean.folds)
    rows = [(str(score.layer), score.accuracy, min(score.folds), max(score.folds)) for score in layers]
    rows.append(("mean of all", mean.accuracy, min(mean.folds), max(mean.folds)))
    curve = Curve(model, [score.layer for score in layers], [score.accuracy for score in layers])
    categories = sorted(mean.f1)

    def draw(figure: Any) -> None:
        title = f"Accuracy of a linear probe on {model}"
        draw_curves(figure.subplots(), [curve], title=title, x="encoder layer", y="accuracy")

    return Report(
        name="probe",
        title=f"Linear probe of {model}: {len(taps)} clips, {len(categories)} categories, {judged} fold(s) ({folds})",
        about="",
        result={
            "model": model,
            "folds": folds,
            "layers": [
                {"layer": s.layer or "mean", "accuracy": s.accuracy, "folds": s.folds, "f1": s.f1} for s in scores
            ],
        },
        tables=(Table("Accuracy of each layer", ("layer", "accuracy", "worst fold", "best fold"), rows),),
        draw=draw,
    )
