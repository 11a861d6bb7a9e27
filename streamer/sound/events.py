"""Sound events: when something begins to sound and when it is over, from the tagging head's judgements.

A pure state machine per group of labels, driven by sample time:

    QUIET ──above, confirmed──► SOUNDING ──below for hold_s──► QUIET

Labels that name one thing make one event. Onset and offset use two thresholds (hysteresis); an onset needs `confirm` of
the last `confirm + 1` judgements, or one that is sure. A pattern of the signal that counts for an alert rule makes the
event at once and keeps it: it tells a carbon monoxide alarm, for which there is no label, from an alarm clock.

What sounds is judged on several spans, a short one answers quickly, a long one is surer (`combine`). All end at the
same sample, so a sound that is over still fills the long span: it counts only as far as every shorter one supports it.
Heads that were trained on 10 s alone collapse on short spans (47 → 5 mAP at 2 s), so spans outside the trained range
are believed less when they say yes, and less when they say no.
"""

import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamer.events import SAMPLE_RATE, Sound, Stamp, seconds
from streamer.events.plans import SpanScores
from streamer.settings.rules import SoundSettings
from streamer.sound.labels import LABEL_COUNT, LabelGroup, event_group, groups, pattern_group
from streamer.sound.patterns.state import CadenceState

logger = logging.getLogger(__name__)
Scores = NDArray[np.float32]

TRAINED_SPANS_S = (1.0, 10.0)  # shortest and longest span that the project's own heads are trained on
SUPPORT_LOGITS = 1.5  # a short span supports odds 4.5 times its own of a longer one
SUPPORT_PER_OCTAVE = 1.0  # more where the short span is shorter than any that the head was trained on
DOUBT_PER_OCTAVE = 0.4  # taken off the logit of such a span
EDGE = 1e-6


@dataclass(frozen=True, slots=True)
class SoundChange:
    """A sound event began or ended, in samples.

    `at_sample`: end of the audio that the decision used. `end_sample`: None while it lasts, never before the start.
    """

    at_sample: int
    id: int
    label: str
    state: Literal["start", "end"]
    start_sample: int
    end_sample: int | None
    score: float
    group: str

    def event(self, stamp: Stamp) -> Sound:
        """The protocol's `sound`, in seconds."""
        return Sound(
            **stamp,
            id=self.id,
            label=self.label,
            state=self.state,
            start=seconds(self.start_sample),
            end=None if self.end_sample is None else seconds(self.end_sample),
            score=round(self.score, 4),
        )


@dataclass(slots=True)
class _Track:
    """One group that is heard or was heard a moment ago. `id` None: not confirmed (QUIET), else SOUNDING."""

    group: LabelGroup
    recent: deque[bool]
    id: int | None = None
    onset: int | None = None  # of the first judgement above, in the run that is being confirmed
    offset: int = 0  # estimated from the last judgement that was not below
    score: float = 0.0


@dataclass(slots=True)
class SoundEvents:
    """Onsets and offsets of everything that the head can name.

    `thresholds`: float [527], the head's calibrated threshold per class (None: `settings.threshold` for all).
    `trained_spans_s`: spans that the head was trained on, see `combine`. `ids`: numbers of the events.
    """

    settings: SoundSettings = field(default_factory=SoundSettings)
    thresholds: NDArray[np.float32] | None = None
    trained_spans_s: Sequence[float] = TRAINED_SPANS_S
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _tracks: dict[str, _Track] = field(default_factory=dict)
    _ended: dict[str, int] = field(default_factory=dict)  # group: end of its previous event
    _judged: int = 0  # end of the last judgement
    _on: Scores = field(init=False)

    def __post_init__(self) -> None:
        found = np.full(LABEL_COUNT, self.settings.threshold) if self.thresholds is None else self.thresholds
        if found.shape != (LABEL_COUNT,):
            raise ValueError(f"thresholds: must be {LABEL_COUNT} numbers, one per label, have shape {found.shape}")
        self._on = np.clip(found, 0.01, 1.0).astype(np.float32)

    def decide(self, judgement: Sequence[SpanScores]) -> tuple[Scores, Scores]:
        """The one score per class for the `tags` event, and by which span it was judged; see the function."""
        return decide(judgement, self.trained_spans_s)

    def step(
        self,
        judgement: tuple[SpanScores, ...],
        *,
        patterns: Sequence[CadenceState] = (),
        silent: bool = False,
        end_sample: int | None = None,
    ) -> list[SoundChange]:
        """Take the judgement of one second and return what began or ended.

        `patterns`: those of the signal that count now. `silent`: the audio is digital silence, which counts as scores
        of zero. An empty judgement that is not silent tells nothing: what sounds goes on until `unheard_s`. Both need
        `end_sample`.
        """
        at = judgement[0].end_sample if judgement else end_sample
        if at is None:
            raise ValueError("end_sample: needed where there is no judgement")
        changes = self._forget(at)
        if not judgement and not silent:
            return changes
        self._judged = at
        scores = combine(judgement, self.trained_spans_s)
        shown = {found.id: state for state in patterns if (found := pattern_group(state.kind.value))}
        mistaken = frozenset[int]().union(*(groups()[key].instead for key in shown))
        for key in shown:
            self._tracks.setdefault(key, self._track(groups()[key]))
        for track in sorted(self._heard(scores), key=lambda one: one.group.id not in shown):  # what covers others first
            if track.group.id in shown:
                changes += self._show(track, shown[track.group.id], at)
            else:
                changes += self._advance(track, scores, judgement, at, mistaken)
        self._tracks = {key: track for key, track in self._tracks.items() if track.id or any(track.recent)}
        return changes

    def finish(self, at_sample: int) -> list[SoundChange]:
        """The stream is over: end what still sounds, there if it was heard in the last judgement."""
        fresh = at_sample - self._judged <= SAMPLE_RATE
        return self._end_all(at_sample, lambda track: at_sample if fresh and track.recent[-1] else track.offset)

    def _forget(self, at: int) -> list[SoundChange]:
        """End everything where nothing was judged for too long."""
        if at - self._judged <= self.settings.unheard_s * SAMPLE_RATE:
            return []
        return self._end_all(at, lambda track: track.offset)

    def _end_all(self, at: int, offset: Callable[[_Track], int]) -> list[SoundChange]:
        changes = [self._end(track, at, offset(track)) for track in self._tracks.values() if track.id is not None]
        self._tracks.clear()
        return changes

    def _heard(self, scores: Scores) -> list[_Track]:
        """Tracks of all groups that sound, are being confirmed, or show above the lower threshold now."""
        near = np.flatnonzero(scores >= self._on * self.settings.off_ratio)
        for index in near:
            group = event_group(int(index))
            if group.event == "own" and group.id not in self._tracks:
                self._tracks[group.id] = self._track(group)
        return list(self._tracks.values())

    def _track(self, group: LabelGroup) -> _Track:
        return _Track(group, deque(maxlen=self.settings.confirm + 1))

    def _covered(self, scores: Scores, by: Iterable[_Track], beside: _Track) -> frozenset[int]:
        """Labels that make no event of their own now, because a more special sound is heard."""
        found: frozenset[int] = frozenset()
        for track in by:
            members = list(track.group.members)
            if track is not beside and (track.id is not None or bool((scores[members] >= self._on[members]).any())):
                found |= track.group.general
        return found

    def _advance(
        self, track: _Track, scores: Scores, judgement: tuple[SpanScores, ...], at: int, mistaken: frozenset[int]
    ) -> list[SoundChange]:
        covered = mistaken | self._covered(scores, self._tracks.values(), track)
        members = np.array(sorted(track.group.members - covered), np.intp)
        best = int(members[np.argmax(scores[members] / self._on[members])]) if members.size else None
        score = float(scores[best]) if best is not None else 0.0
        threshold = float(self._on[best]) if best is not None else 1.0
        above = best is not None and score >= threshold
        track.recent.append(above)
        if above and track.onset is None and best is not None:
            track.onset = max(estimated_onset(judgement, best, threshold), self._ended.get(track.group.id, 0))
        if score >= threshold * self.settings.off_ratio and judgement:
            track.score = max(track.score, score)
            track.offset = estimated_offset(judgement)
        if track.id is None:
            sure = above and score >= threshold + self.settings.sure * (1 - threshold)
            if sure or sum(track.recent) >= self.settings.confirm:
                return [self._start(track, at)]
            if not any(track.recent):
                track.onset, track.score = None, 0.0
            return []
        if best is not None and at - track.offset < track.group.hold_s * SAMPLE_RATE:
            return []
        return [self._end(track, at, track.offset)]

    def _show(self, track: _Track, pattern: CadenceState, at: int) -> list[SoundChange]:
        """A pattern needs no confirmation, and sounds until it is over."""
        track.recent.append(True)
        if track.onset is None:
            track.onset = max(pattern.onset_sample, self._ended.get(track.group.id, 0))
        track.offset = max(track.offset, min(pattern.last_sample, at))
        track.score = max(track.score, pattern.score)
        return [] if track.id is not None else [self._start(track, at)]

    def _start(self, track: _Track, at: int) -> SoundChange:
        track.id = next(self.ids)
        track.onset = at if track.onset is None else track.onset
        logger.debug("sound %d %s: QUIET -> SOUNDING at %d", track.id, track.group.id, at)
        return SoundChange(at, track.id, track.group.name, "start", track.onset, None, track.score, track.group.id)

    def _end(self, track: _Track, at: int, offset: int) -> SoundChange:
        assert track.id is not None
        assert track.onset is not None
        end = min(max(offset, track.onset), at)
        change = SoundChange(at, track.id, track.group.name, "end", track.onset, end, track.score, track.group.id)
        logger.debug("sound %d %s: SOUNDING -> QUIET at %d", track.id, track.group.id, at)
        track.id, track.onset, track.score, self._ended[track.group.id] = None, None, 0.0, end
        track.recent.clear()
        return change


def combine(judgement: Sequence[SpanScores], trained_spans_s: Sequence[float] = TRAINED_SPANS_S) -> Scores:
    """Scores float32 [527] in 0..1 of what sounds at the judgement's end; see `decide`."""
    return decide(judgement, trained_spans_s)[0]


def decide(
    judgement: Sequence[SpanScores], trained_spans_s: Sequence[float] = TRAINED_SPANS_S
) -> tuple[Scores, Scores]:
    """Scores float32 [527] in 0..1 of what sounds at the judgement's end, and the length in seconds of the shortest
    span that gives each, float32 [527]; zeros for an empty judgement.

    `trained_spans_s`: the spans (or the shortest and the longest) that the head was trained on.
    """
    spans = sorted(judgement, key=lambda span: span.end_sample - span.start_sample)
    best = np.zeros(LABEL_COUNT, np.float32)
    decided = np.zeros(LABEL_COUNT, np.float32)
    support = np.ones(LABEL_COUNT, np.float32)
    for span in spans:
        short = _octaves_short(span, trained_spans_s)
        scores = np.minimum(_shifted(span.scores, -DOUBT_PER_OCTAVE * short), support)
        decided[scores > best] = (span.end_sample - span.start_sample) / SAMPLE_RATE
        best = np.maximum(best, scores)
        support = np.minimum(support, _shifted(span.scores, SUPPORT_LOGITS + SUPPORT_PER_OCTAVE * short))
    return best, decided


def estimated_onset(judgement: Sequence[SpanScores], index: int, threshold: float) -> int:
    """Where a sound probably began that is heard first in this judgement (a sample; never after its end).

    The shortest span that shows it was filled about half when the score passed the threshold, and judgements are a
    second apart: on average it began half a span and half a second before the end.
    """
    spans = sorted(judgement, key=lambda span: span.end_sample - span.start_sample)
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


def _shifted(scores: Scores, logits: float) -> Scores:
    if logits == 0:
        return scores
    clipped = np.clip(scores.astype(np.float64), EDGE, 1 - EDGE)
    odds = clipped / (1 - clipped) * np.exp(logits)
    shifted: Scores = np.where(scores > 0, odds / (1 + odds), 0).astype(np.float32)
    return shifted
