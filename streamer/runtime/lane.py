"""A lane: the bounded way of one stream's plans from its listener thread to the worker thread.

Full-queue rule: `put` waits, so the listener stops reading and the ring buffer behind it is what overruns, with an
exact `gap`. Before that, the worker catches up: the text of a hop that a later one of the same utterance follows is not
decoded (partials are merged), and the tags of seconds that are far behind are left out, which a `degraded` status says.
Where that happens for long, `streamer.runtime.pace` makes the hop longer, so that nothing has to queue.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from streamer.events import SAMPLE_RATE, Event, State
from streamer.plans import Hop, Plan, SegmentClosed, SegmentOpened, StateChanged
from streamer.runtime.order import Waiting
from streamer.runtime.pace import TextTurns
from streamer.runtime.session import Session
from streamer.runtime.stream import Hearing
from streamer.settings.config import WindowSettings

log = logging.getLogger(__name__)

LIMIT_SAMPLES = 10 * SAMPLE_RATE
LIMIT_ACTIONS = 64  # more is refused: somebody sends nonsense
FAR_BEHIND_S = 4.0  # a hop that waited so long: first of all the lane must catch up, whatever its text misses
PASSES_ENDING = 2  # hops of an utterance that are decoded when the program ends: words are believed that two have
JUDGEMENTS_BEHIND = 3  # so many judgements waiting behind one: it is left out

Emit = Callable[[Sequence[Event]], None]
Action = Callable[[Session], list[Event]]
Clock = Callable[[], float]  # seconds that never go back


class Haste(Enum):
    """NONE; ENDING: only the last words of each utterance that waits count; OVER: the model is asked no more."""

    NONE = auto()
    ENDING = auto()
    OVER = auto()


@dataclass(frozen=True, slots=True)
class Job:
    """One plan to carry out; `text`, `judge`: whether the model is to be asked for them.

    `waited_s`: how much longer than it may it has waited for the worker. `owed_samples`: audio whose text it brings.
    """

    plan: Plan
    text: bool = True
    judge: bool = True
    waited_s: float = 0.0
    owed_samples: int = 0


@dataclass(frozen=True, slots=True)
class Trouble:
    """What people were told: far behind, text only every `hop_s` seconds (None: as often as set), the model failed."""

    behind: bool = False
    hop_s: float | None = None
    failed: bool = False


class Lane:
    """One stream's plans, and what else is asked of its session. `ready` is shared with the worker and other lanes."""

    def __init__(
        self,
        hearing: Hearing,
        emit: Emit,
        ready: threading.Condition,
        patience_s: float = 0.0,
        window: WindowSettings | None = None,
        clock: Clock = time.monotonic,
        unread_samples: Callable[[], int] = lambda: 0,
    ) -> None:
        """`patience_s`: how long a hop may wait here before a later one makes parts of it superfluous.

        `unread_samples`: the audio that was received and has not come here yet.
        """
        self.hearing, self.emit = hearing, emit
        self.turns = TextTurns(window or WindowSettings())
        self._ready, self._patience_s, self._clock = ready, patience_s, clock
        self._plans: deque[tuple[Plan, float]] = deque()  # with the time at which they came
        self._actions: deque[Action] = deque()
        self._queued_samples = 0
        self._closings = 0  # ends of utterances, and pauses that may be some, among the plans
        self._unread_samples = unread_samples
        self._owed_samples = 0  # speech of this segment that no window was decoded for yet
        self._left_out_samples = 0
        self._finishing = False
        self._haste = Haste.NONE
        self.done = threading.Event()
        self.told = Trouble()
        self.state: State = "starting"  # of the source, as far as the session knows
        self.skipped_judgements = 0
        self.failures = 0  # steps in a row that the model could not do

    @property
    def lag_s(self) -> float:
        """Seconds of audio that wait for the worker."""
        return self._queued_samples / SAMPLE_RATE

    @property
    def left_out_samples(self) -> int:
        """Audio that is not transcribed, since the program had to end: speech that came here, all that did not."""
        if self._haste is not Haste.OVER:
            return 0
        return self._left_out_samples + self._owed_samples + self._unread_samples()

    def put(self, plans: Sequence[Plan]) -> None:
        """Append plans (listener thread); waits while more than 10 s of audio are queued."""
        with self._ready:
            for plan in plans:
                self._ready.wait_for(lambda: not self._full or self.done.is_set())
                self._plans.append((plan, self._clock()))
                self._queued_samples += plan.new_samples
                self._closings += plan.closes_segment
                self._ready.notify_all()

    def ask(self, action: Action) -> bool:
        """Have the worker thread call `action` with the session and emit what it returns; False: it is too late."""
        with self._ready:
            if self.done.is_set() or len(self._actions) >= LIMIT_ACTIONS:
                return False
            self._actions.append(action)
            self._ready.notify_all()
            return True

    def finish(self) -> None:
        """No more plans come; the worker empties the lane, finishes the session and sets `done`."""
        with self._ready:
            self._finishing = True
            self._ready.notify_all()

    def hasten(self, haste: Haste) -> None:
        """The program ends; less haste than before changes nothing."""
        with self._ready:
            if haste.value > self._haste.value:
                log.debug("%s: haste %s -> %s", self.hearing.session.name, self._haste.name, haste.name)
                self._haste = haste
            self._ready.notify_all()

    @property
    def _full(self) -> bool:
        return self._queued_samples >= LIMIT_SAMPLES and self._haste is not Haste.OVER

    # What follows is for the worker thread, which holds `ready`.

    @property
    def waiting(self) -> bool:
        """Whether the worker has something to do here."""
        return bool(self._plans or self._actions or self._finishing) and not self.done.is_set()

    @property
    def empty(self) -> bool:
        """Whether all plans were taken and no more come."""
        return self._finishing and not self._plans and not self._actions

    @property
    def turn(self) -> Waiting:
        """What decides when this lane is served."""
        since_s = self._plans[0][1] if self._plans else float("inf")
        return Waiting(self._closings > 0, since_s)

    @property
    def free(self) -> bool:
        """Whether the next plan needs nothing of the model, whatever it says."""
        if not self._plans:
            return False
        plan = self._plans[0][0]
        owed = isinstance(plan, SegmentClosed) and self._haste is not Haste.OVER and self.turns.owes(plan)
        return not isinstance(plan, Hop) and not owed

    def take_actions(self) -> list[Action]:
        """What was asked of the session."""
        actions = list(self._actions)
        self._actions.clear()
        return actions

    def take(self, least_hop_s: float = 0.0) -> Job | None:
        """The next plan, and what of it is still worth asking the model for; see `Pace` for `least_hop_s`."""
        with self._ready:
            if not self._plans:
                return None
            plan, came_s = self._plans[0]
            over = self._haste is Haste.OVER
            if isinstance(plan, SegmentClosed) and not over and (late := self.turns.before(plan)):
                return Job(late, owed_samples=self._paid())
            self._plans.popleft()
            self._queued_samples -= plan.new_samples
            self._closings -= plan.closes_segment
            self._ready.notify_all()
        if isinstance(plan, SegmentOpened):
            self.turns.opened(plan)
        elif isinstance(plan, SegmentClosed):
            owed = self._paid()
            self._left_out_samples += owed if over else 0
        elif isinstance(plan, StateChanged):
            self.state, self.told = plan.state, Trouble()
        if not isinstance(plan, Hop):
            return Job(plan)
        patience_s = self._patience_s if self._haste is Haste.NONE else 0.0
        job = self._job(plan, self._clock() - came_s - patience_s, least_hop_s)
        self.turns.took(plan, job.text)
        self._owed_samples += len(plan.samples) if plan.text else 0
        return replace(job, owed_samples=self._paid()) if job.text and plan.text else job

    def give_up(self, job: Job) -> None:
        """What was asked of the model for this job will not come."""
        self._left_out_samples += job.owed_samples

    def _paid(self) -> int:
        owed, self._owed_samples = self._owed_samples, 0
        return owed

    def _job(self, hop: Hop, waited_s: float, least_hop_s: float) -> Job:
        if self._haste is Haste.OVER:
            return Job(hop, text=False, judge=False)
        text = self.turns.due(hop, least_hop_s)
        if waited_s < 0:
            return Job(hop, text=text)
        behind = sum(1 for later, _ in self._plans if isinstance(later, Hop) and later.judge)
        waits = waited_s < FAR_BEHIND_S and self._haste is Haste.NONE
        starves = waits and self.turns.starves(hop, least_hop_s)
        text = text and (starves or not self._superseded(least_hop_s))
        judge = behind < JUDGEMENTS_BEHIND or (hop.text and text)  # the same encoder pass serves both
        if hop.judge and not judge:
            self.skipped_judgements += 1
        return Job(hop, text, judge, waited_s)

    def _superseded(self, least_hop_s: float) -> bool:
        """Whether a later hop of the same utterance is waiting whose text is due; at the end of the program, two."""
        wanted = 1 if self._haste is Haste.NONE else PASSES_ENDING
        for later, _ in self._plans:
            if isinstance(later, SegmentClosed):
                return False
            wanted -= isinstance(later, Hop) and later.text and self.turns.due(later, least_hop_s)
            if not wanted:
                return True
        return False
