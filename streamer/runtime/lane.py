"""A lane: the bounded way of one stream's plans from its listener thread to the worker thread.

Full-queue rule: `put` waits, so the listener stops reading and the ring buffer behind it is what overruns, with an
exact `gap`. Before that, the worker catches up: the text of a hop that a later one of the same utterance follows is not
decoded (partials are merged), and the tags of seconds that are far behind are left out, which a `degraded` status says.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streamer.events import SAMPLE_RATE, Event
from streamer.runtime.listener import ListenerPlan
from streamer.runtime.session import Session
from streamer.runtime.stream import Hearing
from streamer.vad.planner import Hop, SegmentClosed

LIMIT_SAMPLES = 10 * SAMPLE_RATE
LIMIT_ACTIONS = 64  # more is refused: somebody sends nonsense
JUDGEMENTS_BEHIND = 3  # so many judgements waiting behind one: it is left out

Emit = Callable[[Sequence[Event]], None]
Action = Callable[[Session], list[Event]]


@dataclass(frozen=True, slots=True)
class Job:
    """One plan to carry out; `text`, `judge`: whether the model is to be asked for them."""

    plan: ListenerPlan
    text: bool = True
    judge: bool = True


class Lane:
    """One stream's plans, and what else is asked of its session. `ready` is shared with the worker and other lanes."""

    def __init__(self, hearing: Hearing, emit: Emit, ready: threading.Condition, patience_s: float = 0.0) -> None:
        """`patience_s`: how long a hop may wait here before a later one makes parts of it superfluous."""
        self.hearing, self.emit = hearing, emit
        self._ready, self._patience_s = ready, patience_s
        self._plans: deque[tuple[ListenerPlan, float]] = deque()  # with the time at which they came
        self._actions: deque[Action] = deque()
        self._queued_samples = 0
        self._finishing = False
        self._hurry = False
        self.done = threading.Event()
        self.degraded = False
        self.skipped_judgements = 0
        self.failures = 0  # steps in a row that the model could not do

    @property
    def lag_s(self) -> float:
        """Seconds of audio that wait for the worker."""
        return self._queued_samples / SAMPLE_RATE

    def put(self, plans: Sequence[ListenerPlan]) -> None:
        """Append plans (listener thread); waits while more than 10 s of audio are queued."""
        with self._ready:
            for plan in plans:
                self._ready.wait_for(lambda: self._queued_samples < LIMIT_SAMPLES or self._hurry or self.done.is_set())
                self._plans.append((plan, time.monotonic()))
                self._queued_samples += _samples(plan)
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

    def hurry(self) -> None:
        """Leave out the model for what is still queued: the program must end."""
        with self._ready:
            self._hurry = True
            self._ready.notify_all()

    # What follows is for the worker thread, which holds `ready`.

    @property
    def waiting(self) -> bool:
        """Whether the worker has something to do here."""
        return bool(self._plans or self._actions or self._finishing) and not self.done.is_set()

    @property
    def empty(self) -> bool:
        """Whether all plans were taken and no more come."""
        return self._finishing and not self._plans and not self._actions

    def take_actions(self) -> list[Action]:
        """What was asked of the session."""
        actions = list(self._actions)
        self._actions.clear()
        return actions

    def take(self) -> Job | None:
        """The next plan, and what of it is still worth asking the model for."""
        with self._ready:
            if not self._plans:
                return None
            plan, came_s = self._plans.popleft()
            self._queued_samples -= _samples(plan)
            self._ready.notify_all()
        if not isinstance(plan, Hop):
            return Job(plan)
        if self._hurry:
            return Job(plan, text=False, judge=False)
        if time.monotonic() - came_s < self._patience_s:
            return Job(plan)
        behind = sum(1 for later, _ in self._plans if isinstance(later, Hop) and later.judge)
        text = not self._superseded()
        judge = behind < JUDGEMENTS_BEHIND or (plan.text and text)  # the same encoder pass serves both
        if plan.judge and not judge:
            self.skipped_judgements += 1
        return Job(plan, text=text, judge=judge)

    def _superseded(self) -> bool:
        """Whether a later hop of the same utterance is waiting."""
        for later, _ in self._plans:
            if isinstance(later, SegmentClosed):
                return False
            if isinstance(later, Hop) and later.text:
                return True
        return False


def _samples(plan: ListenerPlan) -> int:
    return len(plan.samples) if isinstance(plan, Hop) else 0
