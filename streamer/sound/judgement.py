"""One score per class from the judgements of several spans: what sounds at the end of them.

A short span answers quickly, a long one is surer. All spans end at the same sample, so a sound that is over still fills
the long span: a long span counts only as far as every shorter one supports it. Heads that were trained on 10 s alone
collapse on short spans (FIELD-NOTES: 47 → 5 mAP at 2 s), so spans outside the trained range are believed less when they
say yes, and less when they say no.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamer.events import SAMPLE_RATE
from streamer.plans import SpanScores
from streamer.sound.labels import LABEL_COUNT

TRAINED_SPANS_S = (1.0, 10.0)  # shortest and longest span that the project's own heads are trained on
SUPPORT_LOGITS = 1.5  # a short span supports odds 4.5 times its own of a longer one
SUPPORT_PER_OCTAVE = 1.0  # more where the short span is shorter than any that the head was trained on
DOUBT_PER_OCTAVE = 0.4  # taken off the logit of such a span
EDGE = 1e-6


def combine(judgement: Sequence[SpanScores], trained_spans_s: Sequence[float] = TRAINED_SPANS_S) -> NDArray[np.float32]:
    """Scores float32 [527] in 0..1 of what sounds at the judgement's end; zeros for an empty judgement.

    `trained_spans_s`: the spans (or the shortest and the longest) that the head was trained on.
    """
    spans = sorted(judgement, key=lambda span: span.end_sample - span.start_sample)
    best = np.zeros(LABEL_COUNT, np.float32)
    support = np.ones(LABEL_COUNT, np.float32)
    for span in spans:
        short = _octaves_short(span, trained_spans_s)
        best = np.maximum(best, np.minimum(_shifted(span.scores, -DOUBT_PER_OCTAVE * short), support))
        support = np.minimum(support, _shifted(span.scores, SUPPORT_LOGITS + SUPPORT_PER_OCTAVE * short))
    return best


def estimated_onset(judgement: Sequence[SpanScores], index: int, threshold: float) -> int:
    """Where a sound probably began that is heard first in this judgement (a sample; never after its end).

    The shortest span that shows it was filled about half when the score passed the threshold, and judgements are a
    second apart: on average it began half a span and half a second before the end.
    """
    spans = sorted(judgement, key=lambda span: span.end_sample - span.start_sample)
    if not spans:
        raise ValueError("a judgement without spans has no onset")
    showing = next((span for span in spans if span.scores[index] >= 0.8 * threshold), spans[-1])
    length = showing.end_sample - showing.start_sample
    return max(showing.start_sample, showing.end_sample - length // 2 - SAMPLE_RATE // 2)


def estimated_offset(judgement: Sequence[SpanScores]) -> int:
    """Where a sound probably ended that is heard last in this judgement: half of its shortest span ago (a sample)."""
    shortest = max(judgement, key=lambda span: span.start_sample)
    return (shortest.start_sample + shortest.end_sample) // 2


def _octaves_short(span: SpanScores, trained_spans_s: Sequence[float]) -> float:
    length_s = (span.end_sample - span.start_sample) / SAMPLE_RATE
    return max(0.0, float(np.log2(min(trained_spans_s) / max(length_s, 0.1))))


def _shifted(scores: NDArray[np.float32], logits: float) -> NDArray[np.float32]:
    if logits == 0:
        return scores
    clipped = np.clip(scores.astype(np.float64), EDGE, 1 - EDGE)
    odds = clipped / (1 - clipped) * np.exp(logits)
    shifted: NDArray[np.float32] = np.where(scores > 0, odds / (1 + odds), 0).astype(np.float32)
    return shifted
