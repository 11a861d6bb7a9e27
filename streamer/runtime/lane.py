"""One stream's bounded way from its listener thread to the worker: plans, and what else is asked of its session.

Full-queue rule: `put` waits, so the listener stops reading. `ready` is shared with the worker and other lanes.

A session that fails is closed here, alone, by what people were told of it (`Told`): what was begun is ended, and a
`status` says why. It is started again under the same name after a while that grows with every fall; until then what
comes is left out.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from streamer.errors import Backoff
from streamer.events import Event, State
from streamer.events.plans import Plan, SegmentOpened
from streamer.runtime.overload import Backlog, Drain
from streamer.runtime.session import Session, Subject
from streamer.runtime.stream import Emit, Hearing
from streamer.runtime.told import Told

log = logging.getLogger(__name__)

LIMIT_ACTIONS = 64  # more is refused: somebody sends nonsense

Action = Callable[[Session], list[Event]]
Clock = Callable[[], float]  # seconds that never go back


class Lane:
    """As above. `hearing` is the session's, `done` is set behind its last event."""

    def __init__(
        self,
        hearing: Hearing,
        emit: Emit,
        backlog: Backlog,
        ready: threading.Condition,
        clock: Clock,
        unread_samples: Callable[[], int],
        told: Told | None = None,
    ) -> None:
        """`unread_samples`: the audio that was received and has not come here yet. `told`: what people know already."""
        self.hearing, self.backlog = hearing, backlog
        self.done = threading.Event()
        self.opened_s = clock()
        self._emit, self._ready, self._clock, self._unread_samples = emit, ready, clock, unread_samples
        self._told = told or Told(hearing.session.name, hearing.session.last_seq)
        self.backlog.schedule.begin_at(self._told.audio_sample)
        self._actions: deque[Action] = deque()
        self._finishing = False
        self._backoff = Backoff()
        self.falls = 0  # of the session
        self._rests_until_s: float | None = None  # the session failed, and there is none until then

    @property
    def lag_s(self) -> float:
        """Seconds of audio that wait for the worker."""
        return self.backlog.lag_s

    @property
    def left_out_samples(self) -> int:
        """Audio that is not transcribed, since the program had to end: speech that came here, all that did not."""
        unread = self._unread_samples() if self.backlog.drain is Drain.OVER else 0
        return self.backlog.left_out_samples + unread

    def put(self, plans: Iterable[Plan]) -> None:
        """Append plans as they come (listener thread); waits while more than 10 s of audio are queued."""
        for plan in plans:
            with self._ready:
                self._ready.wait_for(lambda: not self.backlog.full or self.done.is_set())
                if self.done.is_set():
                    return
                self.backlog.put(plan, self._clock())
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

    def drain(self, drain: Drain) -> None:
        """The program ends; less of an end than before changes nothing."""
        with self._ready:
            before = self.backlog.drain
            if drain.value > before.value:
                log.debug("%s: drain %s -> %s", self.hearing.session.name, before.name, drain.name)
                self.backlog.drain = drain
            self._ready.notify_all()

    # What follows is for the worker thread; the next four while it holds `ready`.

    @property
    def over(self) -> bool:
        """Whether nothing more is to be asked of the model, and the session is to end with what there is."""
        return self.backlog.drain is Drain.OVER and not self.done.is_set()

    @property
    def waiting(self) -> bool:
        """Whether the worker has something to do here."""
        return bool(self.backlog or self._actions or self._finishing or self.over) and not self.done.is_set()

    @property
    def empty(self) -> bool:
        """Whether all plans were taken and no more come."""
        return self._finishing and not self.backlog and not self._actions

    def take_actions(self) -> list[Action]:
        """What was asked of the session."""
        actions = list(self._actions)
        self._actions.clear()
        return actions

    def say(self, events: Sequence[Event]) -> None:
        """Hand events on, in the order of their numbers."""
        for event in events:
            self._told.note(event)
        self._emit(events)

    def say_state(self, state: State, detail: str, subject: Subject) -> None:
        """Tell of the state of one subject, where that is news."""
        self.say(self.hearing.session.status(state, detail, subject=subject))

    def fall(self, error: BaseException) -> None:
        """The session failed: end what people know of it, and leave it alone for a while."""
        now_s = self._clock()
        rest_s = self._backoff.rest_s(now_s)
        self._rests_until_s = now_s + rest_s
        self.backlog.failures = 0
        self.falls += 1
        what = f"{type(error).__name__}: {error}".partition("\n")[0]
        log.error("%s failed and is started again in %g s: %s", self.hearing.session.name, rest_s, what)
        log.debug("", exc_info=error)
        self.close_told("degraded", f"this session failed ({what}); it is started again in {rest_s:g} s")

    def close_told(self, state: State, detail: str) -> None:
        """End what people know of the session without asking it."""
        self.say(self._told.close(self.backlog.schedule.end_sample, state, detail))

    @property
    def rests(self) -> bool:
        """Whether the session failed and there is none. One whose time has come is started again by `resume`."""
        return self._rests_until_s is not None

    def resume(self) -> bool:
        """Start the session again where its time has come; whether there is one now."""
        if self._rests_until_s is None:
            return True
        if self._clock() < self._rests_until_s:
            return False
        at = self.backlog.schedule.end_sample
        self.hearing = self.hearing.again(self._told, at)
        self._rests_until_s = None
        if self.backlog.schedule.speaking:  # somebody is in the middle of an utterance
            self.hearing.complete(SegmentOpened(at, at), None)
        self.say_state("listening", "", "model")
        return True
