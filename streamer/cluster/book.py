"""The `Book` of one program in a cluster: it writes down what people are told, before they are, in the ledger.

    worker ──events──► queue ──► book thread ──► Ledger (a named actor) ──► then hub, files, deliveries

Whoever takes a session over so knows all that people know; and who reads it at another program is told by `Mirrors`.
"""

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from streamer.cluster.ledger import Written
from streamer.cluster.mirrors import LaterDesk, LedgerSilentError, Mirrors
from streamer.events import Event, Status
from streamer.runtime.handover import CarryOut, Emit, Kept
from streamer.server.messages import Ack, Flush, SessionInfo
from streamer.server.mirrored import MirroredSessions

log = logging.getLogger(__name__)

QUEUED = 10_000  # events that wait to be written down; then the worker waits
LEAVE_S = 2.0  # so long the end waits for what is still to be written down


class Desk(LaterDesk, Protocol):
    """How the ledger is asked from here. Each call raises LedgerSilentError where it does not answer in time."""

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the ledger and wait for its answer."""

    def tell(self, method: str, *arguments: Any) -> None:
        """Call a method of the ledger and wait for nothing."""


@dataclass(slots=True, eq=False)
class _Line:
    """The way of one session's events. `taken`: another process has the session."""

    session: str
    emit: Emit
    gone: Callable[[], None]
    taken: bool = False


class ClusterBook:
    """The book of one program, `owner`. One thread writes down what came meanwhile, all of it at once, and passes on.

    Full-queue rule: the worker waits. A ledger that does not answer costs the handover, not the captions: people are
    told without it, which is logged once until it answers again. `carry_out` does what readers elsewhere want.
    """

    def __init__(self, desk: Desk, owner: str, carry_out: CarryOut = lambda message: None) -> None:
        self._desk, self._owner, self._carry_out = desk, owner, carry_out
        self._opened: dict[str, tuple[SessionInfo, str | None]] = {}  # what is written down here, and its source
        self._waiting: queue.Queue[tuple[_Line, Sequence[Event]] | None] = queue.Queue(QUEUED)
        self._written: deque[tuple[_Line, Sequence[Event]]] = deque()  # and not passed on yet
        self._leaving = self._silent = self._over = False
        self._mirrors = Mirrors(desk, owner)
        self.place = owner[:6]
        self.run: str | None = self._asked("run")
        self._thread = threading.Thread(target=self._run, name="book", daemon=True)
        self._thread.start()

    def open(self, info: SessionInfo, source: str | None) -> None:
        """A session begins here, now."""
        self._opened[info.session] = info, source
        self._asked("open", info, self._owner, source)

    def take(self, session: str) -> Kept | None:
        """Have a session that was somewhere else; None: it is not known, or the ledger does not answer."""
        found: tuple[Kept, SessionInfo] | None = self._asked("take", session, self._owner)
        if found is None:
            return None
        kept, info = found
        self._opened[session] = info, kept.source
        return kept

    async def seek(self, session: str, shown: MirroredSessions) -> None:
        """Have a session of another process shown here. Raises MessageError: too many are."""
        await self._mirrors.seek(session, shown)

    def pass_on(self, message: Ack | Flush) -> None:
        """Something is wanted of a session that another process has."""
        self._desk.tell("wish", message)

    def emitter(self, session: str, emit: Emit, gone: Callable[[], None]) -> Emit:
        """Write events down, then `emit` them. `gone` is called once another process has the session."""
        line = _Line(session, emit, gone)

        def say(events: Sequence[Event]) -> None:
            if events and not self._leaving and not line.taken:
                self._waiting.put((line, events))

        return say

    def has(self, session: str) -> bool:
        """As in `Book`."""
        return session in self._opened

    def leave(self) -> None:
        """The program ends: what was said is written down and passed on; nothing after that is."""
        self._leaving = True
        self._waiting.put(None)
        self._thread.join(LEAVE_S)

    def _run(self) -> None:
        while not (self._over and not self._written):
            try:
                self._turn()
            except Exception:  # the top of the thread: what failed is left out, and the rest goes on
                log.exception("events were written down and could not be passed on")

    def _turn(self) -> None:
        """Pass on what is written down, then write down what came meanwhile."""
        while self._written:
            line, events = self._written.popleft()
            try:
                line.emit(events)
            finally:
                if isinstance(events[-1], Status) and events[-1].state == "stopped":
                    self._opened.pop(line.session, None)
        if self._over:
            return
        waiting = [self._waiting.get()]
        while not self._waiting.empty():
            waiting.append(self._waiting.get_nowait())
        said = [one for one in waiting if one is not None and not one[0].taken]
        self._over = None in waiting
        if said:
            self._write(said)

    def _write(self, said: Sequence[tuple[_Line, Sequence[Event]]]) -> None:
        written: Written | None = self._asked("write", self._owner, [(line.session, list(some)) for line, some in said])
        if written and written.unknown:
            self._begin_again(written.unknown, said)
        taken = written.taken if written else ()
        for line, events in said:
            if line.session not in taken:
                self._written.append((line, events))
            elif not line.taken:
                line.taken = True
                self._opened.pop(line.session, None)
                log.warning("%s goes on at another server", line.session)
                line.gone()
        for wish in written.wishes if written else ():
            self._carry_out(wish)

    def _begin_again(self, unknown: Sequence[str], said: Sequence[tuple[_Line, Sequence[Event]]]) -> None:
        """The ledger was lost and is empty: such a session can be read elsewhere from here on, but not go on there."""
        for session in set(unknown) & self._opened.keys():
            info, source = self._opened[session]
            self._asked("open", info, self._owner, source, False)
        self._asked(
            "write", self._owner, [(line.session, list(some)) for line, some in said if line.session in unknown]
        )

    def _asked(self, method: str, *arguments: Any) -> Any:
        try:
            answer = self._desk.ask(method, *arguments)
        except LedgerSilentError as error:
            if not self._silent:
                log.error("the ledger does not answer (%s): sessions cannot go on elsewhere", error)
            self._silent = True
            return None
        if self._silent:
            log.warning("the ledger answers again")
            self._silent = False
        return answer
