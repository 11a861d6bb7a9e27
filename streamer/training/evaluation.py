"""`streamer eval tags`: how well a head tags, over spans of 1, 2, 5 and 10 s and over whole windows.

    streamer eval tags --model nano --manifest data/manifest.csv --split test --out build/eval

A label belongs to a whole recording, so a short span may be judged for a sound that is not in it: the curve falls for
that reason too, as it does in every published one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from streamer.errors import UsageError
from streamer.measure.report import Curve, Report, Table, draw_curves, publish
from streamer.model.checkpoint import load_model
from streamer.model.head import TaggingHead
from streamer.model.whisper import Model
from streamer.sound.labels import labels
from streamer.training.features import TapRecipe, TapSet, cached_taps
from streamer.training.judging import TagMetrics, expected_calibration_error, f1_at, judge_spans, tag_metrics
from streamer.training.manifests import ManifestSettings, of_split, read_manifest

SPANS_S = (1.0, 2.0, 5.0, 10.0)


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
