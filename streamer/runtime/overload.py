"""What is done where the machine cannot do everything: what runs next, what is merged, what is left out, how long the
hop is, what people are told (pure: no threads, and the clock is the caller's).

`Overload` is one for all streams of a worker; what waits in a stream is its `Backlog`. Plans are carried out once each,
in order, whatever happens; what gives way is what the model is asked for:

1. Text of a hop that a later one of its utterance follows is not decoded: partials are merged.
2. Utterances that wait become one: the end of the first and the beginning of the next, which would each need a window
   of their own, are left out (the only plans that ever are), and one window brings the words of both.
3. Tags of seconds that are far behind are left out, which a `degraded` status says.
4. Where that goes on, the hop of live streams grows, so that nothing has to queue; it shrinks when there is room.
5. What is 3 s late behind a step, or 2 s behind one that does not end, is carried out without the model: alarms are
   recognised by their patterns, tags are left out, text comes with the next window (`Worker.watch`).
6. A full backlog lets the listener wait, so that the ring buffer overruns, with an exact `gap`.

So the lag levels off below 5 s. No final is lost for it: the end of an utterance with voice that no window has covered
waits until one has, however late that is. Where more streams wait than a batch holds, those in which an utterance ends
go first, and nobody is overtaken for ever.
"""

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import NamedTuple

from streamer.events import SAMPLE_RATE, State
from streamer.events.plans import Hop, Plan, SegmentClosed, SegmentOpened, SpeechOver
from streamer.runtime.pace import Pace, TextSchedule
from streamer.settings.config import WindowSettings

log = logging.getLogger(__name__)

LIMIT_SAMPLES = 10 * SAMPLE_RATE  # of a backlog
OVERDUE_S = 2.0  # who has waited so long is not overtaken for ever
OVERDUE_EVERY = 4  # one place in so many is for those
FAR_BEHIND_S = 4.0  # a hop that waited so long: first of all the stream must catch up, whatever its text misses
PASSES_ENDING = 2  # hops of an utterance that are decoded when the program ends: words are believed that two have
JUDGEMENTS_BEHIND = 2  # so many judgements waiting behind one: it is left out; one is enough while people are told
DEGRADED_LAG_S = 3.0  # so far behind, people are told
RECOVERED_LAG_S = 1.0
JOIN_LATE_S = 2.0  # utterances that wait so long, and whose text did not come yet, become one
PASS_OVER_S = 2.0  # so late behind a step that people know of as too long: done without the model
# What people are told of a machine that is too slow.
LATE, SLOW = "captions come late, some tags are left out", "the machine cannot keep up"
ADVICE = "a smaller --model helps"
FAILURES_MAX = 3  # steps in a row that may fail before the session is closed and started again


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
            parts.append(f"{lag_s:.0f} s behind: {LATE}")
        if announced.hop_s:
            parts.append(f"{SLOW}: text comes every {hop_s:g} s instead of {own_s:g} s")
        return ("degraded", "; ".join([*parts, ADVICE])) if parts else ("listening", "")


class _Waiting(NamedTuple):
    """A plan, when it came, and from when on it is late."""

    plan: Plan
    came_s: float
    due_s: float


class Backlog:
    """What waits in one stream."""

    def __init__(self, window: WindowSettings, patience_s: float = 0.0) -> None:
        """`patience_s`: how long a hop that came in a burst may wait before a later one makes parts of it superfluous.

        So long at most, and no longer than it would have been under way if the burst had come as it sounds.
        """
        self.schedule = TextSchedule(window)
        self.announced = Announced()
        self.drain = Drain.NONE
        self.failures = 0  # steps in a row that the model could not do
        self.skipped_judgements = self.told_judgements = 0  # how many were left out, and how many people know of
        self._patience_s = patience_s
        self._plans: deque[_Waiting] = deque()
        self._queued_samples = 0
        self._closings = 0  # ends of utterances, and pauses that may be some, among the plans
        self._joined = False  # some were left out, and the text of what ended there did not come yet
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
        """Whether an utterance ends in what waits, or one that has ended waits for its text."""
        return self._closings > 0 or self._joined

    @property
    def since_s(self) -> float:
        """When the next plan came."""
        return self._plans[0].came_s if self._plans else float("inf")

    def late_s(self, now_s: float) -> float:
        """How much longer than it may the next plan has waited."""
        return now_s - self._plans[0].due_s if self._plans else float("-inf")

    @property
    def left_out_samples(self) -> int:
        """Speech that is not transcribed, since the program had to end."""
        return self._left_out_samples + self._text_due_samples if self.drain is Drain.OVER else 0

    def put(self, plan: Plan, now_s: float) -> None:
        """Append a plan."""
        due_s = now_s
        if self._plans:
            sounds_s = self._plans[-1].due_s + plan.new_samples / SAMPLE_RATE
            due_s = min(max(now_s, sounds_s), now_s + self._patience_s)
        self._plans.append(_Waiting(plan, now_s, due_s))
        self._queued_samples += plan.new_samples
        self._closings += plan.closes_segment

    def take(self, now_s: float, least_hop_s: float, *, model: bool = True) -> Job | None:
        """As `Overload.take`, where the hop is at least `least_hop_s`."""
        if not self._plans:
            return None
        if self.drain is Drain.NONE and self.late_s(now_s) >= JOIN_LATE_S:
            self._join(undecoded=self.schedule.undecoded)
        plan, came_s, due_s = self._plans[0]
        over = self.drain is Drain.OVER
        match plan:
            case Hop():
                if not model:
                    return None
                self._drop()
                return self._hop(plan, now_s - (due_s if self.drain is Drain.NONE else came_s), least_hop_s)
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

    def pass_over(self, now_s: float, late_s: float, *, text_in_hand: bool) -> Job | None:
        """The next plan that is so late, without the model, which does not answer; None: there is none. The end of an
        utterance whose text is not there yet stays and is overtaken: the text comes first.

        `text_in_hand`: the step at hand may still bring some.
        """
        if self.late_s(now_s) < late_s:
            return None
        undecoded = self.schedule.undecoded or text_in_hand
        self._join(undecoded=undecoded)
        place = 0
        if undecoded and self._plans and isinstance(self._plans[0].plan, SegmentClosed):
            ends = (place for place, one in enumerate(self._plans) if not one.plan.closes_segment)
            place = next(ends, len(self._plans))
        if place == len(self._plans) or now_s - self._plans[place].due_s < late_s:
            return None
        plan = self._drop(place)
        match plan:
            case Hop():
                self.schedule.carried_out(plan, text=False)
                self._text_due_samples += plan.new_samples if plan.text else 0
                self.skipped_judgements += plan.judge
            case SegmentClosed():
                self.schedule.closed()
                self._text_paid()
            case SegmentOpened():
                self.schedule.opened()
        return Job(plan, text=False, judge=False)

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

    def _drop(self, place: int = 0) -> Plan:
        plan = self._plans[place].plan
        del self._plans[place]
        self._queued_samples -= plan.new_samples
        self._closings -= plan.closes_segment
        return plan

    def _join(self, *, undecoded: bool) -> None:
        """Make one utterance of those whose text is not decoded yet: one window brings the words of all, none is lost.

        An end goes, with the beginning that waits behind it; all else stays. `undecoded`: what waits goes on with an
        utterance whose text is not all there.
        """
        plans = [waiting.plan for waiting in self._plans]
        dropped: set[int] = set()
        for place, plan in enumerate(plans):
            match plan:
                case Hop(text=True):
                    undecoded |= any(plan.voiced)
                case SegmentOpened():
                    undecoded = True
                case SegmentClosed():
                    behind = range(place + 1, len(plans))
                    opens = next((later for later in behind if isinstance(plans[later], SegmentOpened)), None)
                    if undecoded and opens is not None:
                        between = [later for later in behind[: opens - place] if isinstance(plans[later], SpeechOver)]
                        dropped |= {place, *between, opens}
                    undecoded = opens is not None and undecoded
        if dropped:
            self._joined = True
            self._plans = deque(waiting for place, waiting in enumerate(self._plans) if place not in dropped)
            self._closings = sum(waiting.plan.closes_segment for waiting in self._plans)

    def _hop(self, hop: Hop, waited_s: float, least_hop_s: float) -> Job:
        job = self._weighed(hop, waited_s, least_hop_s)
        self.schedule.carried_out(hop, job.text)
        self._text_due_samples += hop.new_samples if hop.text else 0
        return replace(job, text_samples=self._text_paid()) if job.text and hop.text else job

    def _text_paid(self) -> int:
        samples, self._text_due_samples, self._joined = self._text_due_samples, 0, False
        return samples

    def _weighed(self, hop: Hop, waited_s: float, least_hop_s: float) -> Job:
        """What of the hop is worth asking the model for."""
        if self.drain is Drain.OVER:
            return Job(hop, text=False, judge=False)
        text = self.schedule.due(hop, least_hop_s)
        if waited_s <= 0:
            return Job(hop, text=text)
        in_time = waited_s < FAR_BEHIND_S and self.drain is Drain.NONE
        starves = in_time and self.schedule.starves(hop, least_hop_s)
        text = text and (starves or not self._superseded(least_hop_s))
        behind = sum(isinstance(later, Hop) and later.judge for later, *_ in self._plans)
        allowed = 1 if self.announced.behind else JUDGEMENTS_BEHIND
        judge = behind < allowed or (hop.text and text)  # the same encoder pass serves both
        self.skipped_judgements += hop.judge and not judge
        return Job(hop, text, judge, waited_s)

    def _superseded(self, least_hop_s: float) -> bool:
        """Whether a later hop of the same utterance is waiting whose text is due; at the end of the program, two."""
        wanted = 1 if self.drain is Drain.NONE else PASSES_ENDING
        for later, *_ in self._plans:
            match later:
                case SegmentClosed():
                    return False
                case Hop(text=True) if self.schedule.due(later, least_hop_s):
                    wanted -= 1
                    if not wanted:
                        return True
        return False
