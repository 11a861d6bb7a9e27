"""What people were told of the sessions of senders, outside of the programs that have them: one actor of the cluster.

The ledger is an actor of the cluster and not another service: a session's events are worth minutes, they are as lost as
the sessions themselves where the whole cluster goes, and there is nothing to install. It knows no Ray: whoever makes an
actor of it runs its methods in one event loop, those that wait beside the others.
"""

import asyncio
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from streamer.cluster.engine_facts import EngineFacts, EngineReport
from streamer.events import Event
from streamer.runtime.handover import Kept
from streamer.runtime.told import Told
from streamer.server.messages import Ack, Flush, SessionInfo

KEPT_EVENTS, KEPT_BYTES = 5_000, 4 * 2**20  # of one session; the oldest go first
KEPT_SESSIONS = 2_000  # the one that was written to longest ago goes first
KEPT_WISHES = 100  # of readers at other programs, of one session; more are not taken
READ_EVENTS = 500  # with one answer
SILENT_S = 15.0  # an engine that has not reported for so long is gone


@dataclass(frozen=True, slots=True)
class Written:
    """What became of events. `taken`: sessions that another program has, `unknown`: that are not known (any more); of
    these nothing was written. `wishes`: of readers at other programs.
    """

    taken: tuple[str, ...]
    unknown: tuple[str, ...]
    wishes: tuple[Ack | Flush, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """A part of what is kept of a session. `oldest_seq`: of all that is kept; `more`: there is more already."""

    owner: str
    info: SessionInfo
    oldest_seq: int
    events: tuple[Event, ...]
    more: bool


@dataclass(slots=True)
class _Page:
    """`whole` False: it begins in the middle, since an earlier ledger was lost; such a session is not handed over."""

    owner: str
    info: SessionInfo
    source: str | None
    told: Told
    whole: bool = True
    events: deque[Event] = field(default_factory=deque)
    held_bytes: int = 0

    @property
    def oldest_seq(self) -> int:
        return self.events[0].seq if self.events else self.told.seq + 1


class Ledger:
    """The pages of all sessions; and what the engines reported last."""

    def __init__(self) -> None:
        self._pages: dict[str, _Page] = {}  # the one that was written to last stands last
        self._changed: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)  # of what somebody waits for
        self._wishes: defaultdict[str, deque[Ack | Flush]] = defaultdict(lambda: deque(maxlen=KEPT_WISHES))
        self._engines: dict[str, tuple[float, EngineFacts]] = {}  # when it came, and what
        self._started: defaultdict[str, set[str]] = defaultdict(set)  # application -> engines that there ever were
        self._run = uuid.uuid4().hex[:16]

    def run(self) -> str:
        """What names the numbering of the events of all sessions that are written down here."""
        return self._run

    def open(self, info: SessionInfo, owner: str, source: str | None, whole: bool = True) -> None:
        """A session begins at `owner`; not `whole`: it began before, and this ledger does not know it."""
        self._pages.pop(info.session, None)
        self._pages[info.session] = _Page(owner, info, source, Told(info.session), whole)
        while len(self._pages) > KEPT_SESSIONS:
            name = next(iter(self._pages))
            del self._pages[name]
            self._wishes.pop(name, None)
        self._wake(info.session)

    def write(self, owner: str, written: Sequence[tuple[str, Sequence[Event]]]) -> Written:
        """Write events down."""
        taken, unknown, wishes = list[str](), list[str](), list[Ack | Flush]()
        for session, events in written:
            page = self._pages.pop(session, None)
            if page is None:
                unknown.append(session)
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
            wishes += self._wishes.pop(session, ())
            self._wake(session)
        return Written(tuple(taken), tuple(unknown), tuple(wishes))

    def take(self, session: str, owner: str) -> tuple[Kept, SessionInfo] | None:
        """From now on the session is this owner's; None: there is none of this name that is known whole."""
        page = self._pages.get(session)
        if page is None or not page.whole:
            return None
        page.owner = owner
        self._wake(session)
        return Kept(page.told, tuple(page.events), page.info.opened_at or 0.0, page.source), page.info

    async def read(self, session: str, reader: str, since_seq: int, patience_s: float) -> Reading | None:
        """What came after `since_seq`; None: no such session. Waits, for so long, until there is something.

        What the `reader` wrote itself is nothing new to it: it waits until another one has the session.
        """
        deadline_s = time.monotonic() + patience_s
        while True:
            page = self._pages.get(session)
            if page is not None and page.owner != reader and page.told.seq > since_seq:
                break
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                break
            try:
                async with asyncio.timeout(left_s):
                    await self._changed[session].wait()
            except TimeoutError:
                self._wake(session)  # others that wait look once more, and nothing stays of a name that nobody has
                break
        if page is None:
            return None
        skipped = max(0, since_seq + 1 - page.oldest_seq)  # numbers have no holes
        events = tuple(islice(page.events, skipped, skipped + READ_EVENTS))
        more = len(page.events) > skipped + READ_EVENTS
        return Reading(page.owner, page.info, page.oldest_seq, events, more)

    def wish(self, message: Ack | Flush) -> None:
        """A reader elsewhere wants something of a session; whoever has that learns it as it writes the next time."""
        if message.session is not None and message.session in self._pages:
            self._wishes[message.session].append(message)

    def report(self, facts: EngineFacts) -> None:
        """An engine says what it did so far."""
        self._started[facts.application].add(facts.engine)
        self._engines[facts.engine] = time.monotonic(), facts

    def engines(self, application: str) -> EngineReport:
        """What the engines of an application said last, of those that did so lately."""
        oldest_s = time.monotonic() - SILENT_S
        self._engines = {name: (at_s, one) for name, (at_s, one) in self._engines.items() if at_s >= oldest_s}
        found = [one for _, one in self._engines.values() if one.application == application]
        return EngineReport(len(self._started[application]), tuple(sorted(found, key=lambda one: one.engine)))

    def sessions(self) -> Mapping[str, str]:
        """Session -> its owner."""
        return {name: page.owner for name, page in self._pages.items()}

    def _wake(self, session: str) -> None:
        if changed := self._changed.pop(session, None):
            changed.set()


def _size(event: Event) -> int:
    return len(event.to_json())
