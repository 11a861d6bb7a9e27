"""What a session says of a signal that is not well: broken stretches, clipping, an offset (pure, integer samples)."""

from dataclasses import dataclass, replace

from streamer.events import SAMPLE_RATE, State
from streamer.events.plans import Report, Trouble

TROUBLE_SAMPLES = 10 * SAMPLE_RATE  # so long people are told of clipping or an offset
BROKEN_OVER_SAMPLES = 2 * SAMPLE_RATE  # so long after a broken stretch it does not go on


@dataclass(frozen=True, slots=True)
class Stretch:
    """Samples [start, end) that were not finite. `told`: people are told now; False: the stretch may go on."""

    start: int
    end: int
    detail: str
    told: bool = True


@dataclass(frozen=True, slots=True)
class Condition:
    """The signal's state from now on; `listening` with a detail is a notice."""

    state: State
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Broken:
    """A stretch of samples that were not finite, of which people know up to `said`."""

    start: int = -1
    end: int = -1
    said: int = -1
    detail: str = ""


class SignalTrouble:
    """Reports in, what is to be said of them out, in this order."""

    def __init__(self) -> None:
        self._troubled_until: int | None = None
        self._told_of_offset = False
        self._broken = _Broken()

    def noticed(self, report: Report, at_sample: int) -> list[Stretch | Condition]:
        """What is to be said of this report."""
        if report.trouble is Trouble.NOT_FINITE:
            return [*self._not_finite(report)]
        if report.trouble is Trouble.DC_OFFSET:  # taken out, nothing is worse for it: people are told once
            told, self._told_of_offset = self._told_of_offset, True
            return [] if told else [Condition("listening", report.detail)]
        self._troubled_until = at_sample + TROUBLE_SAMPLES
        return [Condition("degraded", report.detail)]

    def recovered(self, at_sample: int) -> list[Stretch | Condition]:
        """What a stretch of broken sound still is to be said of, and `listening` a while after the last trouble."""
        said: list[Stretch | Condition] = []
        if at_sample - self._broken.end >= BROKEN_OVER_SAMPLES:
            said += self.rest()
        if self._troubled_until is not None and at_sample >= self._troubled_until:
            self._troubled_until = None
            said.append(Condition("listening"))
        return said

    def rest(self) -> list[Stretch]:
        """What was not finite and was not said yet, if anything."""
        broken = self._broken
        if broken.said == broken.end:
            return []
        self._broken = replace(broken, said=broken.end)
        return [Stretch(broken.said, broken.end, broken.detail)]

    def _not_finite(self, report: Report) -> list[Stretch]:
        """A stretch that goes on is a gap after its first second, and then one each time that it doubled."""
        goes_on = report.start_sample == self._broken.end
        before = [] if goes_on else self.rest()
        start = self._broken.start if goes_on else report.start_sample
        said = self._broken.said if goes_on else report.start_sample
        self._broken = _Broken(start, report.end_sample, said, report.detail)
        if not goes_on or report.end_sample - start >= 2 * (said - start):
            return before + self.rest()
        return [*before, Stretch(said, report.end_sample, report.detail, told=False)]
