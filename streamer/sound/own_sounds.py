"""Sounds of one's own: when one begins to sound and when it is over, and the evidence for its rule.

A pure state machine for each, driven by sample time; one judgement is enough, because the threshold was chosen so:

    QUIET ──score >= 0.5──► SOUNDING ──below 0.25 for HOLD_SAMPLES──► QUIET
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from streamer.events import SAMPLE_RATE
from streamer.events.plans import OwnScore
from streamer.settings.rules import AlertRule
from streamer.sound.events import SoundChange
from streamer.sound.triggers import AlertInput, Evidence

logger = logging.getLogger(__name__)

ON, OFF = 0.5, 0.25
HOLD_SAMPLES = 3 * SAMPLE_RATE  # a bell that rings twice is one event
UNHEARD_SAMPLES = 5 * SAMPLE_RATE  # not judged for so long: nobody knows whether it lasts


@dataclass(slots=True)
class _Standing:
    """A sound that sounds."""

    id: int
    start: int
    last: int
    score: float


@dataclass(slots=True)
class OwnSoundEvents:
    """Onsets and offsets of one's own sounds. `ids`: numbers of sound events, shared with those of the tagger."""

    ids: Iterator[int]
    _standing: dict[str, _Standing] = field(default_factory=dict)
    _ended: dict[str, int] = field(default_factory=dict)

    def step(self, scores: Sequence[OwnScore], at: int) -> list[SoundChange]:
        """Take the scores of one second (none: it was silent, or not judged) and return what began or ended."""
        changes = []
        for score in scores:
            standing = self._standing.get(score.name)
            if standing is None and score.score >= ON:
                start = min(max(score.start_sample, self._ended.get(score.name, 0)), at)
                standing = self._standing[score.name] = _Standing(next(self.ids), start, start, score.score)
                logger.debug("own sound %s: QUIET -> SOUNDING at %d", score.name, at)
                changes.append(self._change(score.name, standing, at))
            if standing is not None and score.score >= OFF:
                standing.last = min(max(standing.last, score.end_sample), at)
                standing.score = max(standing.score, score.score)
        for name, standing in list(self._standing.items()):
            if at - standing.last >= (HOLD_SAMPLES if scores else UNHEARD_SAMPLES):
                changes.append(self._end(name, at))
        return changes

    def finish(self, at: int) -> list[SoundChange]:
        """The stream is over: end what still sounds."""
        return [self._end(name, at) for name in list(self._standing)]

    def _end(self, name: str, at: int) -> SoundChange:
        standing = self._standing.pop(name)
        self._ended[name] = standing.last
        logger.debug("own sound %s: SOUNDING -> QUIET at %d", name, at)
        return self._change(name, standing, at, standing.last)

    def _change(self, name: str, standing: _Standing, at: int, end: int | None = None) -> SoundChange:
        state = "start" if end is None else "end"
        return SoundChange(at, standing.id, name, state, standing.start, end, standing.score, f"own {name}")  # type: ignore[arg-type]


@dataclass(slots=True)
class OwnTrigger:
    """Evidence for the rule of one sound of one's own."""

    rule: AlertRule
    _start: int = 0
    _last: int | None = None
    _score: float = 0.0

    def step(self, given: AlertInput) -> Evidence:
        """Take the latest scores."""
        at, raises = given.end_sample, False
        for score in given.own:
            if score.name == self.rule.own and score.score >= ON:
                if not self._lasts(at):
                    self._start, self._score = score.start_sample, 0.0
                raises, self._last, self._score = True, min(score.end_sample, at), max(self._score, score.score)
        last = at if self._last is None else self._last
        return Evidence(raises, raises or self._lasts(at), min(self._start, at), last, self._score, (self.rule.own,))

    def _lasts(self, at: int) -> bool:
        return self._last is not None and at - self._last < self.rule.clear_after_s * SAMPLE_RATE
