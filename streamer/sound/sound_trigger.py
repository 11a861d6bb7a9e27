"""Evidence from sounds: the tagger's scores and the signal's patterns; either alone is enough, both together sooner.

But a siren's pattern alone is not: it takes the tagger's consent (`streamer.sound.patterns.state`).

A weak head errs on what it was never shown, and it errs for seconds. So where much depends on a rule, the tagger's word
alone counts only if nothing speaks against it: the signal shows at least the beginning of what such a sound consists of
(`signs`), and no other label that would explain the sound scores as high (`rivals`).

    QUIET ──signs or scores──► CANDIDATE ──enough, and not denied──► CONFIRMED ──nothing for clear_after_s──► QUIET
      └──────────── another sound's pattern (`unless`) ───────────► DENIED, while it may go on

A pattern of the rule's own confirms whatever denies the labels. For a head that is trusted more, signs only lower the
threshold (`signed_threshold`).
"""

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from streamer.events import SAMPLE_RATE
from streamer.settings.rules import AlertRule
from streamer.sound.events import estimated_offset, estimated_onset
from streamer.sound.labels import LABEL_COUNT, labels
from streamer.sound.patterns.state import (
    CANDIDATE_SCORE,
    CadenceKind,
    CadencePhase,
    CadenceState,
    Opinion,
    PatternTrust,
)
from streamer.sound.triggers import AlertInput, Evidence

logger = logging.getLogger(__name__)

OFF_RATIO = 0.5  # a rule's sound lasts while its score is above this part of the threshold
FUSED_RATIO = 0.8  # with a pattern in sight, one judgement over the threshold or two in a row so near it are enough
SURE = 0.7  # so far between threshold and 1, one judgement is enough
# A siren's pattern counts where one of the rule's labels scored so much, at most so long ago.
CONSENT, CONSENT_SAMPLES = 0.1, 40_000
# The tagger agrees with a pattern where a label of the rule scores so much. It denies one where a rival scores so much,
# and so many times what the rule's own do.
AGREED, DENIED, OUTDONE = 0.1, 0.25, 3.0
# The tagger is doubted for so long once a label that it mistakes for the rule's scored so much.
MISTAKEN, MISTAKEN_SAMPLES = 0.4, 160_000
DENIED_SAMPLES = 112_000  # so long after another alarm's last beep its pattern may go on: a T4's pause is 5 s
WAVER_SAMPLES = 48_000  # and so long after a wavering tone one may come again
# Signs (beeps pause): the newest at most so long ago, and one more so long before it, since one alone may be chance.
SIGN_SAMPLES, SIGNS_APART, SIGNS_KEPT = 32_000, 16_000, 80_000
OVERDUE_SAMPLES = 24_000  # a judgement is due every second; after 1.5 s it is missed
NEVER = -SAMPLE_RATE * 1000

Indices = NDArray[np.intp]


class SoundState(Enum):
    """How far a rule's sound is: not there, perhaps, for sure until it is over, or taken for another alarm's."""

    QUIET = "quiet"
    CANDIDATE = "candidate"
    CONFIRMED = "confirmed"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class Clues:
    """What speaks for the sound at the end of a hop, and what against it.

    `counting`: patterns that are enough by themselves. `begun`: those that may be one. `fused`: the tagger backs them,
    both together are enough. `sure`: its word alone is. `tagged`: it heard the sound within `clear_after_s`. `denied`:
    it is another alarm, so its word is nothing.
    """

    counting: tuple[CadenceState, ...] = ()
    begun: tuple[CadenceState, ...] = ()
    fused: bool = False
    sure: bool = False
    tagged: bool = False
    denied: bool = False

    @property
    def raises(self) -> bool:
        """Whether it is the sound."""
        return bool(self.counting) or self.fused or self.sure

    @property
    def lasts(self) -> bool:
        """Whether it is not over."""
        return bool(self.counting) or self.fused or self.tagged


@dataclass(slots=True)
class _Run:
    """What the tagger's judgements of late come to; begun anew where its word is nothing.

    `latest`: the last judgements: the best score as a part of the threshold, and whether it was above with signs in
    sight. `onset`: since when, in the judgements that are being confirmed. `last`: last sample of the sound. `names`:
    labels of the latest judgement. `sure`: as in `Clues`.
    """

    latest: deque[tuple[float, bool]]
    onset: int | None = None
    last: int | None = None
    score: float = 0.0
    names: tuple[str, ...] = ()
    sure: bool = False

    @property
    def backs(self) -> bool:
        """Whether it agrees with a pattern that has begun."""
        strengths = [strength for strength, _ in self.latest][-2:]
        return bool(strengths) and (strengths[-1] >= 1 or (len(strengths) == 2 and min(strengths) >= FUSED_RATIO))


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
    state: SoundState = SoundState.QUIET
    clues: Clues = Clues()  # of the latest hop
    _run: _Run = field(init=False)
    _judged: int = NEVER  # end of the latest judgement
    _opinions: deque[Opinion] = field(default_factory=lambda: deque(maxlen=2))  # of the last judgements
    _consented_until: int = NEVER
    _doubted_until: int = 0  # the tagger mistakes what it heard
    _denied_until: int = 0  # a pattern says that it is another alarm
    _patterns: tuple[CadenceState, ...] = ()  # of the latest hop with audio
    _signs: deque[int] = field(default_factory=deque)  # when signs were in sight
    _trust: PatternTrust = field(default_factory=PatternTrust)

    def __post_init__(self) -> None:
        self._run = self._new_run()

    def step(self, given: AlertInput) -> Evidence:
        """Take this hop's patterns and, once a second, the judgement."""
        at = given.end_sample
        if given.cadence is not None:
            self._see(given.cadence, at)
        if given.judgement or given.silent:
            self._judge(given)
        denied = self._denied(at)
        if denied:
            self._run = self._new_run()
        own = [state for state in self._patterns if state.kind.value in self.rule.cadence]
        self.clues = self._weigh(own, at, denied=denied)
        self._move(self.clues, at)
        return self._evidence(own, at)

    def _new_run(self) -> _Run:
        return _Run(deque(maxlen=self.rule.confirm + 1))

    def _weigh(self, own: Sequence[CadenceState], at: int, *, denied: bool) -> Clues:
        """The rule's own patterns and the tagger's judgements, put together."""
        run = self._run
        opinion = min(self._opinions, default=Opinion.SILENT)
        consent = at <= self._consented_until or not self.members.size  # without labels it asks for patterns alone
        begun = tuple(s for s in own if s.phase is CadencePhase.CANDIDATE and s.score >= CANDIDATE_SCORE)
        known = self._judged if at - self._judged <= OVERDUE_SAMPLES else at  # between judgements nothing changes
        return Clues(
            counting=tuple(self._trust.step(own, opinion, consent=consent)),
            begun=begun,
            fused=bool(begun) and run.backs and at - self._judged <= SAMPLE_RATE,
            sure=run.sure,
            tagged=run.last is not None and known - run.last < self.rule.clear_after_s * SAMPLE_RATE,
            denied=denied,
        )

    def _move(self, clues: Clues, at: int) -> None:
        """The one place where the state changes."""
        if clues.lasts and (clues.raises or self.state is SoundState.CONFIRMED):
            state = SoundState.CONFIRMED
        elif clues.denied:
            state = SoundState.DENIED
        elif clues.begun or clues.tagged:
            state = SoundState.CANDIDATE
        else:
            state = SoundState.QUIET
        if state is not self.state:
            logger.debug("%s: %s -> %s at %d", self.rule.id, self.state.name, state.name, at)
            self.state = state

    def _evidence(self, own: Sequence[CadenceState], at: int) -> Evidence:
        clues, run = self.clues, self._run
        seen = (*clues.counting, *(clues.begun if clues.fused else ()))
        starts = [state.onset_sample for state in seen]
        ends = [min(state.last_sample, at) for state in own if state.phase is not CadencePhase.CANDIDATE]
        by_tagger = clues.sure or clues.fused
        if run.onset is not None and by_tagger:
            starts.append(run.onset)
        if run.last is not None:
            ends.append(run.last)
        strongest = max((state.score for state in (*clues.counting, *clues.begun)), default=0.0)
        return Evidence(
            raises=clues.raises,
            lasts=clues.lasts,
            start_sample=min(starts, default=at),
            last_sample=max(ends, default=at),
            score=max(run.score if by_tagger else 0.0, strongest),
            labels=(*run.names, *(state.kind.readable for state in seen)),
        )

    def _see(self, patterns: tuple[CadenceState, ...], at: int) -> None:
        self._patterns = patterns
        going_on = [state.kind.value for state in patterns if state.phase is not CadencePhase.OVER]
        if any(kind in self.rule.signs for kind in going_on):
            self._signs.append(at)
        while self._signs and at - self._signs[0] > SIGNS_KEPT:
            self._signs.popleft()

    def _denied(self, at: int) -> bool:
        """Whether the signal shows the pattern of another alarm, or did a moment ago.

        A tone that wavers says what the sound is not before it is taken for one; an alarm that stands goes on beside
        the baby that it wakes.
        """
        stands = self.state is SoundState.CONFIRMED
        for state in self._patterns:
            if state.kind.value in self.rule.unless and not (stands and state.kind is CadenceKind.WAVER):
                lasts = WAVER_SAMPLES if state.kind is CadenceKind.WAVER else DENIED_SAMPLES
                self._denied_until = max(self._denied_until, state.last_sample + lasts)
        return bool(self.rule.unless) and at < self._denied_until

    def _signed(self, at: int) -> bool:
        """Whether the signal shows, and keeps showing, signs of such a sound."""
        if not self.rule.signs:
            return True
        seen = self._signs
        return bool(seen) and at - seen[-1] <= SIGN_SAMPLES and seen[-1] - seen[0] >= SIGNS_APART

    def _judge(self, given: AlertInput) -> None:
        scores = np.zeros(LABEL_COUNT, np.float32) if given.scores is None else given.scores
        at, run, stands = given.end_sample, self._run, self.state is SoundState.CONFIRMED
        self._judged = at
        own, rival = (float(scores[some].max(initial=0.0)) for some in (self.members, self.rivals))
        self._opinions.append(_opinion(own, rival))
        if own >= CONSENT:
            self._consented_until = at + CONSENT_SAMPLES
        if scores[self.mistaken].max(initial=0.0) >= MISTAKEN:
            self._doubted_until = at + MISTAKEN_SAMPLES
        doubted = (self.rivals.size and rival >= own) or (at < self._doubted_until and not stands)
        if not given.judgement or doubted:
            scores = np.zeros(LABEL_COUNT, np.float32)
        signed, lower = self._signed(at), self.rule.signed_threshold
        on = self.on[self.members]
        if lower is not None:
            on, signed = np.minimum(on, lower) if signed else on, True
        strength = scores[self.members] / on if self.members.size else np.zeros(1, np.float32)
        strongest = float(strength.max())
        above = strongest >= 1 and signed
        run.latest.append((strongest, above))
        run.sure = False
        if strongest >= OFF_RATIO:
            place = int(strength.argmax())
            best, threshold = int(self.members[place]), float(on[place])
            run.score = float(scores[best])
            run.last = estimated_offset(given.judgement) if signed or stands else run.last
            if run.onset is None:
                run.onset = estimated_onset(given.judgement, best, threshold * OFF_RATIO)
            plain = run.score >= threshold + SURE * (1 - threshold)
            enough = sum(was_above for _, was_above in run.latest) >= self.rule.confirm or plain
            run.sure = above and enough and at - run.onset >= self.rule.min_duration_s * SAMPLE_RATE
        elif run.last is None or at - run.last >= self.rule.clear_after_s * SAMPLE_RATE:
            run.onset, run.score = None, 0.0
        heard = self.members[strength >= OFF_RATIO] if self.members.size else self.members
        run.names = tuple(labels()[int(index)].name for index in heard)


def _opinion(own: float, rival: float) -> Opinion:
    if rival >= OUTDONE * own:
        return Opinion.DENIES if rival >= DENIED else Opinion.SILENT
    return Opinion.AGREES if own >= AGREED else Opinion.SILENT
