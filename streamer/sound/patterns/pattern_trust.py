"""Which patterns of the signal count at once, and which have to show more while the tagger does not agree.

Steady music hits three equal notes and a rest by chance, though hardly one more in time, nor with the overtones of a
square wave. What glides is like a siren, to the network that knows its pattern: on recordings it took door bells, music
and drills for one, each within 1.5 s. So a siren waits for the tagger's consent, and without a tagger there is none.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType

from streamer.sound.patterns.cadence_state import DOUBTFUL_SCORE, PLAIN_SCORE, CadenceKind, CadencePhase, CadenceState

SIRENS = frozenset({CadenceKind.WAIL, CadenceKind.YELP, CadenceKind.HILO})  # these have to become plain
LONGER: Mapping[CadenceKind, float] = MappingProxyType(
    {CadenceKind.T3: 0.2}
)  # of the time that it took to be recognised another pattern has to go on: a T3's next beep
LONGER_DOUBTFUL = 0.9  # what lacks a mark of such an alarm: a whole group more


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
    longer = LONGER_DOUBTFUL if now.score <= DOUBTFUL_SCORE else LONGER.get(now.kind, 0.0)
    return now.last_sample - first.last_sample >= longer * took
