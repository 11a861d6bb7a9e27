"""What is done where the machine cannot do everything: what runs next, what is merged, what is left out, how long the
hop is, what people are told (pure: no threads, and the clock is the caller's).

`Overload` is one for all streams of a worker; what waits in a stream is its `Backlog`. Plans are carried out once each,
in order, whatever happens; what gives way is what the model is asked for:

1. Text of a hop that a later one of its utterance follows is not decoded: partials are merged.
2. Tags of seconds that are far behind are left out, which a `degraded` status says.
3. Where that goes on, the hop of live streams grows, so that nothing has to queue; it shrinks when there is room.
4. A full backlog lets the listener wait, so that the ring buffer overruns, with an exact `gap`.

No final is lost: an utterance that ends with voice that no window has covered is decoded first. Where more streams wait
than a batch holds, those in which an utterance ends go first, and nobody is overtaken for ever.
"""

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from statistics import fmean

import numpy as np

from streamer.events import SAMPLE_RATE, State
from streamer.events.plans import Hop, Plan, SegmentClosed, SegmentOpened
from streamer.settings.config import WindowSettings

log = logging.getLogger(__name__)

LIMIT_SAMPLES = 10 * SAMPLE_RATE  # of a backlog
OVERDUE_S = 2.0  # who has waited so long is not overtaken for ever
OVERDUE_EVERY = 4  # one place in so many is for those
FAR_BEHIND_S = 4.0  # a hop that waited so long: first of all the stream must catch up, whatever its text misses
STARVED_HOPS = 4  # partial text is merged for at most so many hops: where hops always wait, none would be left
PASSES_ENDING = 2  # hops of an utterance that are decoded when the program ends: words are believed that two have
JUDGEMENTS_BEHIND = 2  # so many judgements waiting behind one: it is left out, or the lag would grow beyond 5 s
DEGRADED_LAG_S = 3.0  # so far behind, people are told
RECOVERED_LAG_S = 1.0
FAILURES_MAX = 3  # steps in a row that may fail before the session is closed and started again

LADDER_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # the hops there are
WINDOW_S = 3.0  # load is judged over this long, so that one slow step changes nothing
FULL = 0.9  # busy for this share of a window, with hops waiting: the machine cannot keep up
ROOM = 0.4  # busy for less: half the hop costs at most twice as much, and that would still fit
FALLING = 0.9  # waits that shrink by more than this from window to window: the queue is being worked off
CALM_S = 9.0  # there must be room for so long before the hop shrinks
CALM_MAX_S = 300.0
SOON_S = 30.0  # growing again so soon after shrinking: next time we wait twice as long


class Drain(Enum):
    """How the program ends. NONE: not yet; ENDING: of each utterance that waits only the last words count; OVER: the
    model is asked no more.
    """

    NONE = auto()
    ENDING = auto()
    OVER = auto()


@dataclass(frozen=True, slots=True)
class Job:
    """One plan to carry out; `text`, `judge`: whether the model is to be asked for them.

    `waited_s`: how much longer than it may it has waited. `text_samples`: speech whose text it brings.
    """

    plan: Plan
    text: bool = True
    judge: bool = True
    waited_s: float = 0.0
    text_samples: int = 0


@dataclass(frozen=True, slots=True)
class Announced:
    """What people were told: far behind, text only every `hop_s` seconds (None: as often as set)."""

    behind: bool = False
    hop_s: float | None = None


class Overload:
    """The streams of one worker. Not for several threads at once."""

    def __init__(self) -> None:
        self.pace = Pace()
        self._waited_s = 0.0  # longest of this round

    def order(self, waiting: Sequence["Backlog"], now_s: float) -> list[int]:
        """The places in `waiting` as they are to be served: finals first, then who waits longest; equals stay in order.

        Who is overdue gets every fourth place whatever else is due, so that utterances which end all the time in other
        streams cannot keep it waiting for ever.
        """
        by_age = sorted(range(len(waiting)), key=lambda place: waiting[place].since_s)
        overdue = iter([place for place in by_age if now_s - waiting[place].since_s >= OVERDUE_S])
        order: dict[int, None] = {}
        for place in [place for place in by_age if waiting[place].closing]:
            if len(order) % OVERDUE_EVERY == OVERDUE_EVERY - 1:
                order |= dict.fromkeys([next((one for one in overdue if one not in order), place)])
            order[place] = None
        return list(order | dict.fromkeys(by_age))

    def take(self, backlog: "Backlog", now_s: float, *, model: bool = True) -> Job | None:
        """The next plan of a stream, and what of it is still worth asking the model for; None: there is none.

        `model` False: only a plan that needs nothing of the model, whatever it says.
        """
        job = backlog.take(now_s, self.pace.hop_s, model=model)
        self._waited_s = max(self._waited_s, job.waited_s if job else 0.0)
        return job

    def stepped(self, backlogs: Sequence["Backlog"], now_s: float, took_s: float) -> None:
        """A round of the worker ended at `now_s`; sets the hop."""
        waited_s, self._waited_s = self._waited_s, 0.0
        if not backlogs:
            return
        own_s = min(backlog.schedule.own_s for backlog in backlogs)
        longest_s = max(backlog.schedule.longest_s for backlog in backlogs)
        if self.pace.step(now_s, took_s, waited_s, own_s, longest_s):
            log.info("the hop of live streams is now at least %g s (0: each its own)", self.pace.hop_s)

    def news(self, backlog: "Backlog") -> tuple[State, str] | None:
        """State and detail that people must be told now: once that text comes late or less often, once that no more."""
        lag_s, own_s = backlog.lag_s, backlog.schedule.own_s
        hop_s = backlog.schedule.hop_s(self.pace.hop_s)
        limit_s = RECOVERED_LAG_S if backlog.announced.behind else DEGRADED_LAG_S
        behind = lag_s > limit_s or backlog.skipped_judgements > backlog.told_judgements
        backlog.told_judgements = backlog.skipped_judgements
        announced = Announced(behind, hop_s if hop_s > own_s else None)
        if announced == backlog.announced:
            return None
        backlog.announced = announced
        parts = []
        if announced.behind:
            parts.append(f"{lag_s:.0f} s behind: captions come late, some tags are left out")
        if announced.hop_s:
            parts.append(f"the machine cannot keep up: text comes every {hop_s:g} s instead of {own_s:g} s")
        return ("degraded", "; ".join([*parts, "a smaller --model helps"])) if parts else ("listening", "")


class Backlog:
    """What waits in one stream."""

    def __init__(self, window: WindowSettings, patience_s: float = 0.0) -> None:
        """`patience_s`: how long a hop may wait before a later one makes parts of it superfluous."""
        self.schedule = TextSchedule(window)
        self.announced = Announced()
        self.drain = Drain.NONE
        self.failures = 0  # steps in a row that the model could not do
        self.skipped_judgements = self.told_judgements = 0  # how many were left out, and how many people know of
        self._patience_s = patience_s
        self._plans: deque[tuple[Plan, float]] = deque()  # with the time at which they came
        self._queued_samples = 0
        self._closings = 0  # ends of utterances, and pauses that may be some, among the plans
        self._text_due_samples = 0  # speech of this segment that no window was decoded for yet
        self._left_out_samples = 0
        self.given_up_samples = 0  # speech that the model failed on, to the end

    def __len__(self) -> int:
        """How many plans wait."""
        return len(self._plans)

    @property
    def full(self) -> bool:
        """Whether nothing may be put in now."""
        return self._queued_samples >= LIMIT_SAMPLES and self.drain is not Drain.OVER

    @property
    def lag_s(self) -> float:
        """Seconds of audio that wait."""
        return self._queued_samples / SAMPLE_RATE

    @property
    def closing(self) -> bool:
        """Whether an utterance ends in what waits."""
        return self._closings > 0

    @property
    def since_s(self) -> float:
        """When the next plan came."""
        return self._plans[0][1] if self._plans else float("inf")

    def late_s(self, now_s: float) -> float:
        """How much longer than it may the next plan has waited."""
        return now_s - self.since_s - self._patience_s

    @property
    def left_out_samples(self) -> int:
        """Speech that is not transcribed, since the program had to end."""
        return self._left_out_samples + self._text_due_samples if self.drain is Drain.OVER else 0

    def put(self, plan: Plan, now_s: float) -> None:
        """Append a plan."""
        self._plans.append((plan, now_s))
        self._queued_samples += plan.new_samples
        self._closings += plan.closes_segment

    def take(self, now_s: float, least_hop_s: float, *, model: bool = True) -> Job | None:
        """As `Overload.take`, where the hop is at least `least_hop_s`."""
        if not self._plans:
            return None
        plan, came_s = self._plans[0]
        over = self.drain is Drain.OVER
        match plan:
            case Hop():
                if not model:
                    return None
                self._drop()
                return self._hop(plan, now_s - came_s, least_hop_s)
            case SegmentClosed():
                if not over and self.schedule.put_off(plan):
                    return Job(self.schedule.catch_up(), text_samples=self._text_paid()) if model else None
                self.schedule.closed()
                undecoded = self._text_paid()
                self._left_out_samples += undecoded if over else 0
            case SegmentOpened():
                self.schedule.opened()
        self._drop()
        return Job(plan)

    def give_up(self, job: Job) -> None:
        """What the model was asked for this job will not come."""
        self._left_out_samples += job.text_samples

    def failed(self, job: Job, error: BaseException) -> tuple[State, str]:
        """The model could not do a window; what people must be told.

        Its text is due again where its utterance ends. Where that failed too, it is given up.
        """
        self.failures += 1
        last = isinstance(job.plan, Hop) and not job.plan.new_samples
        if last:
            self.given_up_samples += job.text_samples
            given_up_s = job.text_samples / SAMPLE_RATE
            return "degraded", f"the model failed on the end of an utterance, {given_up_s:.1f} s are given up: {error}"
        if job.text_samples:
            self._text_due_samples += job.text_samples
            self.schedule.failed()
        return "degraded", f"the model failed on a window, which is left out: {error}"

    def _drop(self) -> None:
        plan, _ = self._plans.popleft()
        self._queued_samples -= plan.new_samples
        self._closings -= plan.closes_segment

    def _hop(self, hop: Hop, waited_s: float, least_hop_s: float) -> Job:
        waited_s -= self._patience_s if self.drain is Drain.NONE else 0.0
        job = self._weighed(hop, waited_s, least_hop_s)
        self.schedule.carried_out(hop, job.text)
        self._text_due_samples += hop.new_samples if hop.text else 0
        return replace(job, text_samples=self._text_paid()) if job.text and hop.text else job

    def _text_paid(self) -> int:
        samples, self._text_due_samples = self._text_due_samples, 0
        return samples

    def _weighed(self, hop: Hop, waited_s: float, least_hop_s: float) -> Job:
        """What of the hop is worth asking the model for."""
        if self.drain is Drain.OVER:
            return Job(hop, text=False, judge=False)
        text = self.schedule.due(hop, least_hop_s)
        if waited_s < 0:
            return Job(hop, text=text)
        in_time = waited_s < FAR_BEHIND_S and self.drain is Drain.NONE
        starves = in_time and self.schedule.starves(hop, least_hop_s)
        text = text and (starves or not self._superseded(least_hop_s))
        behind = sum(isinstance(later, Hop) and later.judge for later, _ in self._plans)
        judge = behind < JUDGEMENTS_BEHIND or (hop.text and text)  # the same encoder pass serves both
        self.skipped_judgements += hop.judge and not judge
        return Job(hop, text, judge, waited_s)

    def _superseded(self, least_hop_s: float) -> bool:
        """Whether a later hop of the same utterance is waiting whose text is due; at the end of the program, two."""
        wanted = 1 if self.drain is Drain.NONE else PASSES_ENDING
        for later, _ in self._plans:
            match later:
                case SegmentClosed():
                    return False
                case Hop(text=True) if self.schedule.due(later, least_hop_s):
                    wanted -= 1
                    if not wanted:
                        return True
        return False


class TextSchedule:
    """Which hops of one stream are decoded. Tags keep their second.

    A hop is due when it reaches or crosses a multiple of the hop in force, so that text comes with the tags of whole
    seconds in one encoder pass.
    """

    def __init__(self, window: WindowSettings) -> None:
        self.own_s = window.hop_s
        self.longest_s = max(window.hop_s, window.hop_max_s)
        self.speaking = False  # a segment is open
        self.end_sample = 0  # of the last hop that was carried out
        self._undecoded = False  # voice of this segment
        self._text_sample = 0  # end of the last hop whose text was decoded, or of which none was due
        self._level_db = 0.0

    def begin_at(self, sample: int) -> None:
        """Before anything else: the audio before this sample was an earlier process's."""
        self.end_sample = self._text_sample = sample

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
            self._undecoded = not text and (self._undecoded or any(hop.voiced))
        if text or not hop.text:
            self._text_sample = hop.end_sample

    def opened(self) -> None:
        """A segment begins: nothing of it was decoded."""
        self._undecoded = self.speaking = True

    def failed(self) -> None:
        """The text of the hop that was carried out last did not come: it is due again where the segment closes."""
        self._undecoded = True

    def put_off(self, plan: SegmentClosed) -> bool:
        """Whether text was put off that must be decoded before the segment closes."""
        return self._undecoded and plan.end_sample >= self.end_sample > 0

    def closed(self) -> None:
        """A segment is over: nothing of it is put off any more."""
        self._undecoded = self.speaking = False

    def catch_up(self) -> Hop:
        """What must be carried out then, before the segment closes: an empty hop with the text that was put off."""
        self._undecoded = False
        nothing = np.zeros(0, np.float32)
        return Hop(self.end_sample, nothing, (), text=True, judge=False, silent=False, level_db=self._level_db)


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
