"""Whether one more sender is taken: what a stream costs on this machine, as the worker measured it (pure, no clock).

`stepped` is told what the worker did; `refusal` answers. A stream costs as many seconds of the worker as it takes for a
second of its sound: what is carried faster than in real time is no more expensive. So many fit as cost `FULL` together.
Who is quiet costs less than who speaks: what is measured may be too little, so that the number of streams at most
doubles in `MEASURE_S`, and nobody is taken while those that are there come late.
"""

from collections.abc import Sequence

FULL = 0.85  # of the worker's time; overload.py finds that the machine cannot keep up from 0.9 on
MEASURE_S = 6.0  # so long it takes until a new stream shows in the measurement
UNMEASURED = 4  # streams that are taken before anything is known
MEMORY_S = 30.0  # of sound: what is longer ago hardly counts
KNOWN_S = 5.0  # of sound: before that nothing is known
LATE_S = 3.0  # so late, people are told
CHEAPEST = 1e-3  # of a second, for a second of sound: digital silence costs nothing at all
SOON_S, LATER_S = round(MEASURE_S), 30  # after which a sender may try again


class Admission:
    """What streams cost here."""

    def __init__(self) -> None:
        self._busy_s = self._sound_s = 0.0  # what is longer ago weighs less

    def stepped(self, took_s: float, sound_s: float) -> None:
        """The worker was busy for `took_s` with `sound_s` of all streams' sound."""
        kept = 0.5 ** (sound_s / MEMORY_S)
        self._busy_s = self._busy_s * kept + took_s
        self._sound_s = self._sound_s * kept + sound_s

    @property
    def places(self) -> int | None:
        """How many streams fit; None: not known yet."""
        if self._sound_s < KNOWN_S:
            return None
        return max(1, int(FULL / max(CHEAPEST, self._busy_s / self._sound_s) + 1e-6))  # sums are rounded

    def refusal(self, ages_s: Sequence[float], late_s: float, *, slowed: bool) -> str | None:
        """Why one more stream is not taken, with the seconds after which it may try again; None: it is.

        `ages_s`: of the streams there are; `late_s`: how late the latest of them is; `slowed`: the machine cannot
        keep up and text comes less often than it should.
        """
        places, count = self.places, len(ages_s)
        if slowed or late_s > LATE_S:
            return f"full: this machine cannot keep up with {count} streams; try in {LATER_S} s"
        if places is not None and count >= places:
            return f"full: this machine carries {places} streams; try in {LATER_S} s"
        young = sum(age_s < MEASURE_S for age_s in ages_s)
        if young >= max(UNMEASURED, count - young):
            return f"full: what {young} new streams cost is being measured; try in {SOON_S} s"
        return None
