"""Alarm patterns in the signal itself: T3 (smoke) and T4 (carbon monoxide) beeps, siren sweeps."""

from dataclasses import dataclass
from enum import Enum, StrEnum

import numpy as np
from numpy.typing import NDArray


class CadenceKind(StrEnum):
    """A pattern that standards or usage prescribe."""

    T3 = "t3"
    T4 = "t4"
    WAIL = "wail"
    YELP = "yelp"
    HILO = "hilo"

    @property
    def readable(self) -> str:
        """What stands among an alert's labels."""
        return {"t3": "T3 pattern", "t4": "T4 pattern", "hilo": "hi-lo"}.get(self.value, self.value)


class CadencePhase(Enum):
    """CANDIDATE: it may be one, worth something only beside the tagger. SOUNDING: sure. OVER: just ended, said once."""

    CANDIDATE = "candidate"
    SOUNDING = "sounding"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class CadenceState:
    """One pattern at the end of a hop: where it began, the end of its last beep or sweep so far, score in 0..1."""

    kind: CadenceKind
    phase: CadencePhase
    onset_sample: int
    last_sample: int
    score: float


class CadenceDetector:
    """The patterns in a stream; the same for any chunking."""

    def step(self, samples: NDArray[np.float32], end_sample: int) -> list[CadenceState]:
        """Take the conditioned samples up to `end_sample` and return the patterns in sight."""
        return []
