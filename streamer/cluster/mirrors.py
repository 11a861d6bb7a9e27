"""Sessions of other programs, read from the ledger and shown here: a balancer need not keep readers to a server.

Who names a session that this program does not have is shown it as if it had: all that the ledger keeps of it, then what
comes. Everything runs in the event loop of the server, a task for each session that is sought, which ends when
nobody has wanted it for a while.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from streamer.cluster.ledger import Reading
from streamer.errors import StreamerError
from streamer.events import Event
from streamer.server.messages import MessageError
from streamer.server.mirrored import MirroredSessions

log = logging.getLogger(__name__)

SOUGHT = 256  # sessions at a time; more are refused
SEEK_S = 2.0  # so long who asks waits for the ledger
PATIENCE_S = 10.0  # so long the ledger waits for something new before it answers
IDLE_S = 30.0  # so long a session is shown when nobody is there who wants it
AGAIN_S = 1.0  # after which a ledger that did not answer is asked again


class LedgerSilentError(StreamerError):
    """The ledger does not answer."""


class LaterDesk(Protocol):
    """How the ledger is asked from an event loop."""

    def later(self, timeout_s: float, method: str, *arguments: Any) -> Coroutine[Any, Any, Any]:
        """Call a method of the ledger. Raises LedgerSilentError where it does not answer in time."""


@dataclass(slots=True)
class _Sought:
    """A session that is sought. `answered`: the ledger said whether there is one; `since_seq`: what is shown."""

    asked_s: float
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    since_seq: int = 0
    shown: bool = False


class Mirrors:
    """What `owner` shows of the sessions of others."""

    def __init__(self, desk: LaterDesk, owner: str) -> None:
        self._desk, self._owner = desk, owner
        self._sought: dict[str, _Sought] = {}

    async def seek(self, session: str, shown: MirroredSessions) -> None:
        """Return when the session is shown, or is not there (yet). Raises MessageError: too many are."""
        sought = self._sought.get(session)
        if sought is None:
            if shown.has(session):
                return
            if len(self._sought) >= SOUGHT:
                raise MessageError("session: too many of other servers are read here already; try again later")
            sought = self._sought[session] = _Sought(time.monotonic())
            sought.task = asyncio.create_task(self._run(session, sought, shown))
        sought.asked_s = time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(SEEK_S):
                await sought.answered.wait()

    async def _run(self, session: str, sought: _Sought, shown: MirroredSessions) -> None:
        try:
            await self._show(session, sought, shown)
        except Exception:  # the top of a task: one session's failure is only its own
            log.exception("%s can no longer be shown here", session)
            shown.drop(session)
        finally:
            sought.answered.set()
            del self._sought[session]

    async def _show(self, session: str, sought: _Sought, shown: MirroredSessions) -> None:
        """Until it is this program's own, or nobody wants it. One that has stopped may go on: its sender came back."""
        while True:
            patience_s = PATIENCE_S if sought.answered.is_set() else 0.0
            try:
                found = await self._read(session, sought.since_seq, patience_s)
            except LedgerSilentError as error:
                log.debug("%s cannot be read: %s", session, error)
                await asyncio.sleep(AGAIN_S)
                found = []
            if found and found[0].owner == self._owner:
                if shown.is_own(session):
                    return
                found = []  # its sender is gone, and may come back at another server
            events = [event for part in found for event in part.events]
            if found and not await self._tell(found[0], events, sought, shown):
                return
            sought.answered.set()
            if not shown.is_wanted(session) and time.monotonic() - sought.asked_s > IDLE_S:
                shown.drop(session)
                return

    async def _read(self, session: str, since_seq: int, patience_s: float) -> list[Reading]:
        """All that came since, in parts; nothing where there is no such session."""
        found: list[Reading] = []
        while not found or found[-1].more:
            since_seq = found[-1].events[-1].seq if found else since_seq
            timeout_s = SEEK_S + (0.0 if found else patience_s)
            patience = 0.0 if found else patience_s
            part: Reading | None = await self._desk.later(timeout_s, "read", session, self._owner, since_seq, patience)
            if part is None:
                break
            found.append(part)
        return found

    async def _tell(self, first: Reading, events: list[Event], sought: _Sought, shown: MirroredSessions) -> bool:
        """Show what came; False: the session is this program's own by now."""
        hole = first.oldest_seq > sought.since_seq + 1
        if not sought.shown or (hole and events):
            # what was kept of half an hour takes a moment to be written as transcripts
            begun = await asyncio.to_thread(shown.begin, first.info, events, first.oldest_seq - 1)
            sought.shown = True
        else:
            begun = shown.add(first.info.session, events)
        sought.since_seq = events[-1].seq if events else sought.since_seq
        return begun
