"""What people are told of the sessions of senders, kept outside of the ingress that has them: the `Book` of a cluster.

    worker ──events──► queue ──► book thread ──► Ledger (a named actor) ──► then hub, files, deliveries

An event is written down before anybody is told of it, so whoever takes a session over knows all that people know. The
ledger is an actor of the cluster and not another service: a session's events are worth minutes, they are as lost as the
sessions themselves where the whole cluster goes, and there is nothing to install.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from streamer.events import Event
from streamer.runtime.handover import Emit, Kept
from streamer.runtime.told import Told

log = logging.getLogger(__name__)

KEPT_EVENTS, KEPT_BYTES = 5_000, 4 * 2**20  # of one session; the oldest go first
KEPT_SESSIONS = 2_000  # the one that was written to longest ago goes first
QUEUED = 10_000  # events that wait to be written down; then the worker waits
WRITE_S = 2.0  # so long an answer of the ledger is waited for; then people are told all the same


@dataclass(slots=True)
class _Page:
    owner: str
    opened_at: float
    source: str | None
    told: Told
    events: deque[Event] = field(default_factory=deque)
    held_bytes: int = 0


class Ledger:
    """The pages of all sessions, in one actor of the cluster (pure)."""

    def __init__(self) -> None:
        self._pages: dict[str, _Page] = {}  # the one that was written to last stands last

    def open(self, session: str, owner: str, opened_at: float, source: str | None) -> None:
        """A session begins at `owner`."""
        self._pages.pop(session, None)
        self._pages[session] = _Page(owner, opened_at, source, Told(session))
        while len(self._pages) > KEPT_SESSIONS:
            del self._pages[next(iter(self._pages))]

    def write(self, owner: str, written: Sequence[tuple[str, Sequence[Event]]]) -> list[str]:
        """Write events down; the sessions that another one has, of which nothing was written."""
        taken = []
        for session, events in written:
            page = self._pages.pop(session, None)
            if page is None:  # a ledger that was lost and is empty again: such a session cannot be handed over
                continue
            self._pages[session] = page
            if page.owner != owner:
                taken.append(session)
                continue
            for event in events:
                page.told.note(event)
                page.events.append(event)
                page.held_bytes += _size(event)
            while len(page.events) > KEPT_EVENTS or (page.held_bytes > KEPT_BYTES and len(page.events) > 1):
                page.held_bytes -= _size(page.events.popleft())
        return taken

    def take(self, session: str, owner: str) -> Kept | None:
        """From now on the session is this owner's; None: there is none of this name."""
        page = self._pages.get(session)
        if page is None:
            return None
        page.owner = owner
        return Kept(page.told, tuple(page.events), page.opened_at, page.source)

    def sessions(self) -> dict[str, str]:
        """Session -> its owner."""
        return {name: page.owner for name, page in self._pages.items()}


class Desk(Protocol):
    """How a ledger is asked from here: each call waits for its answer and may raise whatever the cluster raises."""

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the ledger."""


@dataclass(slots=True, eq=False)
class _Line:
    """The way of one session's events. `taken`: another process has the session."""

    session: str
    emit: Emit
    gone: Callable[[], None]
    taken: bool = False


class ClusterBook:
    """The `Book` of one ingress, `owner`. One thread writes down what came meanwhile, all of it at once, and passes on.

    Full-queue rule: the worker waits. A ledger that does not answer costs the handover, not the captions: people are
    told without it, which is logged once until it answers again.
    """

    def __init__(self, desk: Desk, owner: str, clock: Callable[[], float] = time.time) -> None:
        self._desk, self._owner, self._clock = desk, owner, clock
        self._waiting: queue.Queue[tuple[_Line, Sequence[Event]] | None] = queue.Queue(QUEUED)
        self._leaving = self._silent = False
        self._thread = threading.Thread(target=self._run, name="book", daemon=True)
        self._thread.start()

    def open(self, session: str, source: str | None) -> None:
        """A session begins here, now."""
        self._asked("open", session, self._owner, self._clock(), source)

    def take(self, session: str) -> Kept | None:
        """Have a session that was somewhere else; None: it is not known, or the ledger does not answer."""
        kept: Kept | None = self._asked("take", session, self._owner)
        return kept

    def emitter(self, session: str, emit: Emit, gone: Callable[[], None]) -> Emit:
        """Write events down, then `emit` them. `gone` is called once another process has the session."""
        line = _Line(session, emit, gone)

        def say(events: Sequence[Event]) -> None:
            if events and not self._leaving and not line.taken:
                self._waiting.put((line, events))

        return say

    def leave(self) -> None:
        """The program ends: what was said is written down and passed on; nothing after that is."""
        self._leaving = True
        self._waiting.put(None)
        self._thread.join(WRITE_S)

    def _run(self) -> None:
        over = False
        while not over:
            waiting = [self._waiting.get()]
            while not self._waiting.empty():
                waiting.append(self._waiting.get_nowait())
            over = None in waiting
            said = [one for one in waiting if one is not None and not one[0].taken]
            if not said:
                continue
            written = [(line.session, list(events)) for line, events in said]
            taken = self._asked("write", self._owner, written) or ()
            for line, events in said:
                if line.session not in taken:
                    self._pass_on(line, events)
                elif not line.taken:
                    line.taken = True
                    log.warning("%s goes on at another server", line.session)
                    line.gone()

    def _pass_on(self, line: _Line, events: Sequence[Event]) -> None:
        try:
            line.emit(events)
        except Exception:
            log.exception("%s: events were written down and could not be passed on", line.session)

    def _asked(self, method: str, *arguments: Any) -> Any:
        try:
            answer = self._desk.ask(method, *arguments)
        except Exception as error:  # noqa: BLE001  whatever Ray raises
            if not self._silent:
                log.error("the ledger does not answer (%s): sessions cannot go on elsewhere", type(error).__name__)
            self._silent = True
            return None
        if self._silent:
            log.warning("the ledger answers again")
            self._silent = False
        return answer


def _size(event: Event) -> int:
    return len(event.to_json())
