"""What the cadence detector says: which pattern, since when, how sure."""

import logging
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from streamer.events import SAMPLE_RATE

logger = logging.getLogger(__name__)
CANDIDATE_SCORE = 0.4  # of a candidate that the tagger need only agree with
PLAIN_SCORE = 1.0  # of a siren or a T3 that leaves no doubt
DOUBTFUL_SCORE = 0.5  # of a pattern that lacks what such an alarm also shows
SURE_SCORE = 0.8  # of one that may be chance
SIGN_SCORE = 0.2  # of one that is worth no more than not doubting the tagger


class CadenceKind(StrEnum):
    """A pattern that standards or usage prescribe; TONE, a pitch that is kept, is never more than a candidate."""

    T3 = "t3"
    T4 = "t4"
    WAIL = "wail"
    YELP = "yelp"
    HILO = "hilo"
    TONE = "tone"

    @property
    def readable(self) -> str:
        """What stands among an alert's labels."""
        return {"t3": "T3 pattern", "t4": "T4 pattern", "hilo": "hi-lo", "tone": "steady tone"}.get(
            self.value, self.value
        )


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
