"""Evidence from sounds: the tagger's scores and the signal's patterns; either alone is enough, both together sooner.

But a siren's pattern alone is not: it takes the tagger's consent (`streamer.sound.patterns.state`).

A weak head errs on what it was never shown, and it errs for seconds. So where much depends on a rule, the tagger's word
alone counts only if nothing speaks against it: the signal shows at least the beginning of what such a sound consists of
(`signs`), and no other label that would explain the sound scores as high (`rivals`).
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamer.events import SAMPLE_RATE
from streamer.settings.rules import AlertRule
from streamer.sound.judgement import TRAINED_SPANS_S, combine, estimated_offset, estimated_onset
from streamer.sound.labels import LABEL_COUNT, labels
from streamer.sound.patterns.state import CANDIDATE_SCORE, CadencePhase, CadenceState, Opinion, PatternTrust
from streamer.sound.triggers import AlertInput, Evidence

OFF_RATIO = 0.5  # a rule's sound lasts while its score is above this part of the threshold
FUSED_RATIO = 0.8  # with a pattern in sight, one judgement over the threshold or two in a row so near it are enough
CONSENT = 0.1  # a siren's pattern counts where the tagger gave one of the rule's labels such a score
CONSENT_SAMPLES = 40_000  # so long ago at most
AGREED, DENIED = 0.1, 0.25  # the tagger agrees with a pattern from such a score, or denies it where a rival has such a
OUTDONE = 3.0  # and so many times the rule's own
MISTAKEN = 0.4  # of a label that the tagger mistakes for the rule's: from such a score on it is doubted for
MISTAKEN_SAMPLES = 160_000  # so long
DENIED_SAMPLES = 112_000  # so long after another alarm's last beep its pattern may go on: a T4's pause is 5 s
SURE = 0.7  # so far between threshold and 1, one judgement is enough
SIGN_SAMPLES = 32_000  # a sign may have been in sight so long ago: beeps pause
SIGNS_APART = 16_000  # and one more so long before it: a single one may be chance
SIGNS_KEPT = 80_000
OVERDUE_SAMPLES = 24_000  # a judgement is due every second; after 1.5 s it is missed
NEVER = -SAMPLE_RATE * 1000

Indices = NDArray[np.intp]


@dataclass(slots=True)
class SoundTrigger:
    """Scores of a set of labels and patterns of the signal.

    `members`: the rule's labels; `on`: float [527], the least score per label; `rivals`: labels that explain the sound
    otherwise; `mistaken`: those that the tagger mistakes for it.
    """

    rule: AlertRule
    members: Indices
    on: NDArray[np.float32]
    rivals: Indices = field(default_factory=lambda: np.zeros(0, np.intp))
    mistaken: Indices = field(default_factory=lambda: np.zeros(0, np.intp))
    trained_spans_s: Sequence[float] = TRAINED_SPANS_S
    _recent: deque[bool] = field(init=False)
    _onset: int | None = None  # of the run of judgements that is being confirmed
    _heard: int | None = None  # last sample that the tagger is thought to have heard
    _judged: int = NEVER
    _names: tuple[str, ...] = ()  # of the latest judgement
    _score: float = 0.0
    _confirmed: bool = False
    _near: deque[float] = field(default_factory=lambda: deque(maxlen=2))  # the last scores, as parts of the threshold
    _patterns: tuple[CadenceState, ...] = ()  # of the latest hop
    _signs: deque[int] = field(default_factory=deque)  # when signs were in sight
    counting: tuple[CadenceState, ...] = ()  # patterns of the latest hop that are evidence by themselves
    _trust: PatternTrust = field(default_factory=PatternTrust)
    _opinions: deque[Opinion] = field(default_factory=lambda: deque(maxlen=2))  # of the last judgements
    _consented_until: int = NEVER
    _doubted_until: int = 0  # the tagger mistakes what it heard
    _denied_until: int = 0  # a pattern says that it is another alarm
    _stands: bool = False  # it was raised and lasts: signs are needed to raise, not to go on

    def __post_init__(self) -> None:
        self._recent = deque(maxlen=self.rule.confirm + 1)

    def step(self, given: AlertInput) -> Evidence:
        """Take this hop's patterns and, once a second, the judgement."""
        at = given.end_sample
        if given.cadence is not None:
            self._patterns = given.cadence
            going_on = [state.kind.value for state in given.cadence if state.phase is not CadencePhase.OVER]
            if not set(self.rule.signs).isdisjoint(going_on):
                self._signs.append(at)
            while self._signs and at - self._signs[0] > SIGNS_KEPT:
                self._signs.popleft()
        if given.judgement or given.silent:
            self._names = self._judge(given)
        if self._denied(at):
            self._forget()
        own = [state for state in self._patterns if state.kind.value in self.rule.cadence]
        opinion = min(self._opinions, default=Opinion.SILENT)
        consent = at <= self._consented_until or not self.members.size  # without labels it asks for patterns alone
        sounding = self.counting = tuple(self._trust.step(own, opinion, consent=consent))
        in_sight = [s for s in own if s.phase is CadencePhase.CANDIDATE and s.score >= CANDIDATE_SCORE]
        fused = bool(in_sight) and self._backed() and at - self._judged <= SAMPLE_RATE
        known = self._judged if at - self._judged <= OVERDUE_SAMPLES else at  # between judgements nothing changes
        tagged = self._heard is not None and known - self._heard < self.rule.clear_after_s * SAMPLE_RATE
        seen = (*sounding, *(in_sight if fused else ()))
        starts = [state.onset_sample for state in seen]
        ends = [min(state.last_sample, at) for state in own if state.phase is not CadencePhase.CANDIDATE]
        if self._onset is not None and (self._confirmed or fused):
            starts.append(self._onset)
        if self._heard is not None:
            ends.append(self._heard)
        strongest = max((state.score for state in (*sounding, *in_sight)), default=0.0)
        raises, lasts = bool(sounding) or fused or self._confirmed, bool(sounding) or fused or tagged
        self._stands = lasts and (raises or self._stands)
        return Evidence(
            raises=raises,
            lasts=lasts,
            start_sample=min(starts, default=at),
            last_sample=max(ends, default=at),
            score=max(self._score if self._confirmed or fused else 0.0, strongest),
            labels=(*self._names, *(state.kind.readable for state in seen)),
        )

    def _backed(self) -> bool:
        """Whether the tagger agrees with a pattern that has begun."""
        near = self._near
        return bool(near) and (near[-1] >= 1 or (len(near) == 2 and min(near) >= FUSED_RATIO))

    def _denied(self, at: int) -> bool:
        """Whether the signal shows the pattern of another alarm, or did a moment ago."""
        others = [state.last_sample for state in self._patterns if state.kind.value in self.rule.unless]
        self._denied_until = max([self._denied_until, *(last + DENIED_SAMPLES for last in others)])
        return bool(self.rule.unless) and at < self._denied_until

    def _forget(self) -> None:
        """The tagger has said nothing."""
        self._recent.clear()
        self._near.clear()
        self._onset = self._heard = None
        self._score, self._confirmed, self._names = 0.0, False, ()

    def _signed(self, at: int) -> bool:
        """Whether the signal shows, and keeps showing, signs of such a sound."""
        if not self.rule.signs:
            return True
        seen = self._signs
        return bool(seen) and at - seen[-1] <= SIGN_SAMPLES and seen[-1] - seen[0] >= SIGNS_APART

    def _judge(self, given: AlertInput) -> tuple[str, ...]:
        scores = combine(given.judgement, self.trained_spans_s) if given.scores is None else given.scores
        at, self._judged = given.end_sample, given.end_sample
        own, rival = (float(scores[some].max(initial=0.0)) for some in (self.members, self.rivals))
        self._opinions.append(_opinion(own, rival))
        if own >= CONSENT:
            self._consented_until = at + CONSENT_SAMPLES
        if scores[self.mistaken].max(initial=0.0) >= MISTAKEN:
            self._doubted_until = at + MISTAKEN_SAMPLES
        doubted = (self.rivals.size and rival >= own) or (at < self._doubted_until and not self._stands)
        if not given.judgement or doubted:
            scores = np.zeros(LABEL_COUNT, np.float32)
        strength = scores[self.members] / self.on[self.members] if self.members.size else np.zeros(1, np.float32)
        strongest = float(strength.max())
        signed = self._signed(at)
        above = strongest >= 1 and signed
        self._near.append(strongest)
        self._recent.append(above)
        self._confirmed = False
        if strongest >= OFF_RATIO:
            best = int(self.members[strength.argmax()])
            threshold, self._score = float(self.on[best]), float(scores[best])
            self._heard = estimated_offset(given.judgement) if signed or self._stands else self._heard
            if self._onset is None:
                self._onset = estimated_onset(given.judgement, best, threshold * OFF_RATIO)
            sure = self._score >= threshold + SURE * (1 - threshold)
            enough = sum(self._recent) >= self.rule.confirm or sure
            self._confirmed = above and enough and at - self._onset >= self.rule.min_duration_s * SAMPLE_RATE
        elif self._heard is None or at - self._heard >= self.rule.clear_after_s * SAMPLE_RATE:
            self._onset, self._score = None, 0.0
        heard = self.members[strength >= OFF_RATIO] if self.members.size else self.members
        return tuple(labels()[int(index)].name for index in heard)


def _opinion(own: float, rival: float) -> Opinion:
    if rival >= OUTDONE * own:
        return Opinion.DENIES if rival >= DENIED else Opinion.SILENT
    return Opinion.AGREES if own >= AGREED else Opinion.SILENT
