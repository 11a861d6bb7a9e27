"""How often text is decoded: the least hop of all live streams (`Pace`), which hops of one are due (`TextSchedule`).

Pure; the clock is the caller's.
"""

from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from streamer.events import SAMPLE_RATE
from streamer.events.plans import Hop, SegmentClosed
from streamer.settings.config import WindowSettings

STARVED_HOPS = 4  # partial text is merged for at most so many hops: where hops always wait, none would be left

LADDER_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # the hops there are
WINDOW_S = 3.0  # load is judged over this long, so that one slow step changes nothing
FULL = 0.9  # busy for this share of a window, with hops waiting: the machine cannot keep up
ROOM = 0.4  # busy for less: half the hop costs at most twice as much, and that would still fit
FALLING = 0.9  # waits that shrink by more than this from window to window: the queue is being worked off
CALM_S = 9.0  # there must be room for so long before the hop shrinks
CALM_MAX_S = 300.0
SOON_S = 30.0  # growing again so soon after shrinking: next time we wait twice as long


def text_alone(end_sample: int, level_db: float) -> Hop:
    """An empty hop, for text up to `end_sample` whose audio was carried out before."""
    nothing = np.zeros(0, np.float32)
    return Hop(end_sample, nothing, (), text=True, judge=False, silent=False, level_db=level_db)


class TextSchedule:
    """Which hops of one stream are decoded. Tags keep their second.

    A hop is due when it reaches or crosses a multiple of the hop in force, so that text comes with the tags of whole
    seconds in one encoder pass.
    """

    def __init__(self, window: WindowSettings) -> None:
        self.own_s = window.hop_s
        self.longest_s = max(window.hop_s, window.hop_max_s)
        self.speaking = False  # a segment is open
        self._begin = 0
        self.end_sample = 0  # of the last hop that was carried out
        self.undecoded = False  # there is voice of this segment that no window was decoded for
        self._text_sample = 0  # end of the last hop whose text was decoded, or of which none was due
        self._level_db = 0.0

    def begin_at(self, sample: int) -> None:
        """Before anything else: the audio before this sample was an earlier process's."""
        self.end_sample = self._text_sample = self._begin = sample

    def hop_s(self, least_s: float) -> float:
        """The hop in force where others need one of at least `least_s`."""
        return min(max(self.own_s, least_s), self.longest_s)

    def due(self, hop: Hop, least_s: float) -> bool:
        """Whether the text of this hop is due."""
        every = round(self.hop_s(least_s) * SAMPLE_RATE)
        own = self.hop_s(least_s) == self.own_s
        return own or hop.end_sample // every > (hop.end_sample - len(hop.samples)) // every

    def starves(self, hop: Hop, least_s: float) -> bool:
        """Whether the last text is so old that this hop's must be decoded although a later one waits already."""
        longest_s = max(STARVED_HOPS * self.own_s, 2 * self.hop_s(least_s))
        return hop.end_sample - self._text_sample >= longest_s * SAMPLE_RATE

    def carried_out(self, hop: Hop, text: bool) -> None:
        """The hop is carried out, with or without its text."""
        self.end_sample, self._level_db = hop.end_sample, hop.level_db
        if hop.text:
            self.undecoded = not text and (self.undecoded or any(hop.voiced))
        if text or not hop.text:
            self._text_sample = hop.end_sample

    def opened(self) -> None:
        """A segment begins: nothing of it was decoded."""
        self.undecoded = self.speaking = True

    def failed(self) -> None:
        """The text of the hop that was carried out last did not come: it is due again where the segment closes."""
        self.undecoded = True

    def put_off(self, plan: SegmentClosed) -> bool:
        """Whether text was put off that must be decoded before the segment closes."""
        return self.undecoded and plan.end_sample >= self._begin and self.end_sample > 0

    def closed(self) -> None:
        """A segment is over: nothing of it is put off any more."""
        self.undecoded = self.speaking = False

    def catch_up(self) -> Hop:
        """What must be carried out then, before the segment closes: an empty hop with the text that was put off."""
        self.undecoded = False
        return text_alone(self.end_sample, self._level_db)


@dataclass(slots=True)
class _Window:
    """What is being measured: since when, and how long the last hop of the window before had to wait."""

    began_s: float | None
    before_s: float = 0.0
    busy_s: float = 0.0
    waits_s: list[float] = field(default_factory=list)


class Pace:
    """The least hop for all live streams, `hop_s`; 0: each has its own.

    It follows how much of the time the worker was busy and how long hops waited for it.
    """

    def __init__(self) -> None:
        self.hop_s = 0.0
        self._window = _Window(None)
        self._room_s = 0.0
        self._calm_s = CALM_S
        self._shrank_s = float("-inf")

    def step(self, now_s: float, took_s: float, waited_s: float, own_s: float, longest_s: float) -> bool:
        """A step of the worker ended at `now_s` after `took_s`; whether the hop changed.

        `waited_s`: how much longer than it may a hop of this step had waited; `own_s`: the shortest hop that a stream
        has by its settings; `longest_s`: the longest that any of them may have.
        """
        window = self._window
        if window.began_s is None:
            window.began_s = now_s - took_s
        window.busy_s += took_s
        window.waits_s.append(max(0.0, waited_s))
        span_s = now_s - window.began_s
        if span_s < WINDOW_S:
            return False
        share, wait_s = window.busy_s / span_s, fmean(window.waits_s)
        late = wait_s > max(self.hop_s, own_s) / 2
        self._window = _Window(now_s, window.waits_s[-1])
        self._room_s = self._room_s + span_s if share < ROOM and not late else 0.0
        if share >= FULL and late and wait_s >= FALLING * window.before_s:
            return self._grow(now_s, own_s, longest_s)
        return self._room_s >= self._calm_s and self._shrink(now_s, own_s)

    def _grow(self, now_s: float, own_s: float, longest_s: float) -> bool:
        longer = [hop_s for hop_s in LADDER_S if max(self.hop_s, own_s) < hop_s <= longest_s]
        if not longer:
            return False
        soon = now_s - self._shrank_s < SOON_S + self._calm_s
        self._calm_s = min(2 * self._calm_s, CALM_MAX_S) if soon else CALM_S
        self.hop_s = longer[0]
        return True

    def _shrink(self, now_s: float, own_s: float) -> bool:
        if not self.hop_s:
            return False
        shorter = [hop_s for hop_s in LADDER_S if own_s < hop_s < self.hop_s]
        self.hop_s = shorter[-1] if shorter else 0.0
        self._room_s, self._shrank_s = 0.0, now_s
        return True
