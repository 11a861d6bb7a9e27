"""What the detectors say: which pattern, since when, how sure; and which of them count at once.

Steady music hits three equal notes and a rest by chance, though hardly one more in time, nor with the overtones of a
square wave. What glides is like a siren, to the network that knows its pattern: on recordings it took door bells, music
and drills for one, each within 1.5 s. So while the tagger does not agree, a pattern has to show more, and a siren waits
for the tagger's consent: without a tagger there is none.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum

from streamer.events import SAMPLE_RATE

logger = logging.getLogger(__name__)
CANDIDATE_SCORE = 0.4  # of a candidate that the tagger need only agree with
PLAIN_SCORE = 1.0  # of a siren or a T3 that leaves no doubt
DOUBTFUL_SCORE = 0.5  # of a pattern that lacks what such an alarm also shows
SURE_SCORE = 0.8  # of one that may be chance
SIGN_SCORE = 0.2  # of one that is worth no more than not doubting the tagger
LONGER_T3 = 0.2  # of the time that it took to be recognised a T3 has to go on: its next beep
LONGER_DOUBTFUL = 0.9  # what lacks a mark of such an alarm: a whole group more


class CadenceKind(StrEnum):
    """A pattern that standards or usage prescribe. TONE, a pitch that is kept, and WAVER, one that is not, are never
    more than candidates."""

    T3 = "t3"
    T4 = "t4"
    WAIL = "wail"
    YELP = "yelp"
    HILO = "hilo"
    TONE = "tone"
    WAVER = "waver"

    @property
    def readable(self) -> str:
        """What stands among an alert's labels."""
        return {
            "t3": "T3 pattern",
            "t4": "T4 pattern",
            "hilo": "hi-lo",
            "tone": "steady tone",
            "waver": "wavering tone",
        }.get(self.value, self.value)


SIRENS = frozenset({CadenceKind.WAIL, CadenceKind.YELP, CadenceKind.HILO})  # these have to become plain


class CadencePhase(Enum):
    """CANDIDATE: it may be one, worth something only beside the tagger. SOUNDING: sure. OVER: just ended, said once."""

    CANDIDATE = "candidate"
    SOUNDING = "sounding"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class CadenceState:
    """One pattern at the end of a hop: where it began, when it was last heard, score in 0..1."""

    kind: CadenceKind
    phase: CadencePhase
    onset_sample: int
    last_sample: int
    score: float


@dataclass(slots=True)
class Pattern:
    """One kind's state: CANDIDATE until `candidate_until`, SOUNDING while `onset` is set."""

    kind: CadenceKind
    timeout_s: float
    onset: int | None = None
    last: int = 0
    score: float = 0.0
    candidate: tuple[int, int, float] | None = None  # onset, last sample, score
    candidate_until: int = 0
    over: list[CadenceState] = field(default_factory=list)

    def propose(self, onset: int, last: int, until: int, score: float = CANDIDATE_SCORE) -> None:
        """It may be one; worth saying until sample `until`, unless something firmer still is."""
        if self.candidate is None or self.candidate[2] <= score:
            self.candidate, self.candidate_until = (onset, last, score), until

    def confirm(self, onset: int, last: int, score: float) -> None:
        """It is one."""
        if self.onset is None:
            logger.debug("%s: SOUNDING since %d", self.kind.value, onset)
            self.onset = max(onset, self.last)
        self.last, self.score = max(self.last, last), max(self.score, score)

    def tick(self, now: int) -> None:
        """Time passes: forget what has not been heard for the timeout."""
        if self.candidate is not None and now > self.candidate_until:
            self.candidate = None
        if self.onset is not None and now - self.last > self.timeout_s * SAMPLE_RATE:
            self.over.append(CadenceState(self.kind, CadencePhase.OVER, self.onset, self.last, self.score))
            self.onset, self.score, self.candidate = None, 0.0, None

    def states(self) -> list[CadenceState]:
        """What ended since the last call, and what is now."""
        found, self.over = self.over, []
        if self.onset is not None:
            found.append(CadenceState(self.kind, CadencePhase.SOUNDING, self.onset, self.last, self.score))
        elif self.candidate is not None:
            found.append(CadenceState(self.kind, CadencePhase.CANDIDATE, *self.candidate))
        return found


class Opinion(IntEnum):
    """What the tagger says of a pattern, worst first: it hears something else, nothing that matters, such a sound."""

    DENIES = 0
    SILENT = 1
    AGREES = 2


class PatternTrust:
    """Remembers how each pattern in sight began, and whether it counts already."""

    def __init__(self) -> None:
        self._first: dict[CadenceKind, CadenceState] = {}
        self._trusted: set[CadenceKind] = set()

    def step(self, states: Sequence[CadenceState], opinion: Opinion, *, consent: bool) -> list[CadenceState]:
        """Those of a hop's patterns that sound and count; what counted once does so until it is over.

        `opinion`: the worst of the last judgements. `consent`: whether the tagger heard a siren too, a moment ago.
        """
        sounding = [state for state in states if state.phase is CadencePhase.SOUNDING]
        kinds = {state.kind for state in sounding}
        self._first = {kind: first for kind, first in self._first.items() if kind in kinds}
        self._trusted &= kinds
        for state in sounding:
            first = self._first.setdefault(state.kind, state)
            if state.kind in SIRENS and not consent:
                continue
            if _needs_no_more(state, opinion) or _shows_more(first, state):
                self._trusted.add(state.kind)
        return [state for state in sounding if state.kind in self._trusted]


def _needs_no_more(state: CadenceState, opinion: Opinion) -> bool:
    """A T3 that is not plain needs the tagger's word or more beeps: everyday sounds show it most."""
    plain = state.kind is not CadenceKind.T3 or state.score >= PLAIN_SCORE
    return opinion is Opinion.AGREES or (opinion is Opinion.SILENT and plain)


def _shows_more(first: CadenceState, now: CadenceState) -> bool:
    if now.kind in SIRENS:
        return now.score >= PLAIN_SCORE
    took = first.last_sample - first.onset_sample
    longer = LONGER_T3 if now.kind is CadenceKind.T3 else 0.0
    longer = LONGER_DOUBTFUL if now.score <= DOUBTFUL_SCORE else longer
    return now.last_sample - first.last_sample >= longer * took
