"""Where decoded frames lie on the clock of their file: what is missing before each, and whether that is damage.

Pure. Times are exact fractions of seconds; the clock begins at the file's `origin`, where nothing need sound yet.
"""

from dataclasses import dataclass
from enum import Enum, auto
from fractions import Fraction

JITTER_S = Fraction(1, 50)  # containers round timestamps, Matroska to 1 ms: less than this is no hole
_EARLY_S = Fraction(1, 5)  # frames that come so much before their turn begin a new clock; less is jitter
_LONGEST_HOLE_S = 600  # a longer jump is a timestamp that wrapped around or was reset, not lost sound
_LATEST_LEAD_S = 86_400
_DRIFT_S = Fraction(1, 10)  # of silence put in for drift, of which people are told once

DAMAGED = "damaged here, or recorded with a pause"
DRIFTS = "its clock and its samples drift apart; a little silence keeps the times right"


class Missing(Enum):
    """What the time before a frame was."""

    NOTHING = auto()  # no time at all
    SILENCE = auto()  # nothing was sent because nothing sounded
    LOST = auto()  # sound that is gone


@dataclass(frozen=True, slots=True)
class Before:
    """`frames` native samples stand before the frame. `complaint`, `notice`: as in `Piece`, without the file's name."""

    missing: Missing = Missing.NOTHING
    frames: int = 0
    complaint: str = ""
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about the way to a frame.

    `broken`: packets that could not be decoded; `damaged`: bytes that no packet accounts for; `pause`: the encoder
    leaves out silence, and what came last was quiet.
    """

    broken: int = 0
    damaged: bool = False
    pause: bool = False


NOTHING_KNOWN = Evidence()


class Timeline:
    """One track. `origin`: the time at which the clock begins, None: with the first frame.

    `stamped` False: the format has no times, what looks like them follows from sizes; only broken packets make holes.
    """

    def __init__(self, origin: Fraction | None = None, *, stamped: bool = True) -> None:
        self.elapsed = Fraction(0)  # seconds so far, whatever is missing included
        self.lead = Fraction(0)  # seconds of them before the first frame
        self.origin = origin
        self._stamped = stamped
        self._begun = False
        self._ahead = Fraction(0)  # of its turn, by which the last frame came
        self._end = Fraction(0)  # of the last frame, by its own stamp
        self._drifted: Fraction | None = Fraction(0)  # None: people were told

    def place(self, stamp: Fraction | None, frames: int, rate: int, evidence: Evidence = NOTHING_KNOWN) -> Before:
        """The next frame, of so many native samples, that says it belongs at `stamp` seconds (None: it does not)."""
        before = Before() if stamp is None else self._before(stamp, rate, evidence)
        self._begun = True
        self._end = (stamp or Fraction(0)) + Fraction(frames, rate)
        self.elapsed += Fraction(before.frames + frames, rate)
        return before

    def _before(self, stamp: Fraction, rate: int, evidence: Evidence) -> Before:
        if self.origin is None:
            self.origin = stamp
        if not self._begun:
            return self._first(stamp, rate, evidence)
        if not self._stamped:
            step = stamp - self._end
            return _lost(step, rate) if evidence.broken and JITTER_S < step <= _LONGEST_HOLE_S else Before()
        ahead = stamp - self.origin - self.elapsed
        step, self._ahead = ahead - self._ahead, ahead
        if ahead < -_EARLY_S or ahead > _LONGEST_HOLE_S:
            self.origin, self._ahead = stamp - self.elapsed, Fraction(0)
            return Before(complaint=f"its timestamps jump by {float(ahead):.1f} s" if ahead > 0 else "")
        if ahead <= JITTER_S:
            return Before()
        self._ahead = Fraction(0)
        if evidence.broken or evidence.damaged:
            return _lost(ahead, rate)
        if step <= JITTER_S:
            return Before(Missing.SILENCE, round(ahead * rate), notice=self._drifts(ahead))
        return Before(Missing.SILENCE, round(ahead * rate)) if evidence.pause else _lost(ahead, rate)

    def _first(self, stamp: Fraction, rate: int, evidence: Evidence) -> Before:
        assert self.origin is not None
        lead = stamp - self.origin
        if not JITTER_S < lead <= _LATEST_LEAD_S:
            self.origin = stamp if lead < 0 or lead > JITTER_S else self.origin
            return Before()
        if evidence.broken:
            return _lost(lead, rate)
        self.lead = Fraction(round(lead * rate), rate)
        return Before(Missing.SILENCE, round(lead * rate))

    def _drifts(self, by: Fraction) -> str:
        if self._drifted is None:
            return ""
        self._drifted += by
        if self._drifted < _DRIFT_S:
            return ""
        self._drifted = None
        return DRIFTS


def _lost(seconds: Fraction, rate: int) -> Before:
    return Before(Missing.LOST, round(seconds * rate), complaint=DAMAGED)
