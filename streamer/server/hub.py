"""The hub: events come in once, every connection takes them at its own pace.

Pure: no threads, no sockets, no clock. The shell (`streamer.server.websocket`) feeds and drains it under one lock.

    publish(event) ──► Replay of the session (bounded, one copy) ◄── positions of the connections ──► drain(connection)

A connection holds no events, only its position in each session's replay and a byte for each event of it that was sent:
a slow one costs next to nothing and delays nobody.
Rules when it falls behind:
- transcripts that a newer one of the same segment superseded are skipped (the newer says everything they said);
- what the bounded replay no longer holds is announced by a `gap` of kind `events`, never skipped in silence: over its
  bounds, what goes is the oldest, after transcripts that were superseded;
- more than `max_behind` events behind: the connection is `overdue` and the shell closes it with 1013.
Its own messages (pong, error) wait in a queue of `max_notices`; `notify` says when that is full. Of heartbeats, levels
and marks only the newest waits.

A session may be `mirrored`: another server of a cluster has it, and its events come here for those who name it.
"""

import json
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from streamer.events import Event, Status, read_event
from streamer.server import messages
from streamer.server.messages import SessionHealth, SessionInfo, Subscribe
from streamer.server.replay import Entry, Replay
from streamer.server.transcripts import MAX_BYTES, Kept


@dataclass(frozen=True, slots=True, kw_only=True)
class HubLimits:
    """The bounds of everything the hub keeps."""

    max_events: int = 20_000  # per session: more than half an hour of a live one
    max_bytes: int = 16 * 2**20  # per session
    max_behind: int = 10_000  # events
    max_notices: int = 32  # per connection
    max_ended_sessions: int = 4  # kept for those who reconnect
    max_transcript_bytes: int = MAX_BYTES  # per session and format


@dataclass(slots=True)
class _Position:
    """Where a connection is in one session: everything up to `seq` is dealt with.

    `since`: up to here only the `complete` types are wanted. `live_from`: the newest number when it subscribed; what is
    older is replay and does not count as being behind. `sent`: a byte for each number from `base` on, 1 where it went
    out, so that a client which goes back gets nothing twice.
    """

    seq: int
    since: int
    live_from: int
    complete: frozenset[str] = frozenset()
    sent: bytearray = field(default_factory=bytearray)
    base: int = 0

    def go_to(self, seq: int, complete: frozenset[str], oldest_seq: int) -> None:
        """Read on after `seq`; of the `complete` types from the oldest event on."""
        self.seq = min(seq, oldest_seq - 1) if complete else seq
        self.since, self.complete = seq, complete

    def wants(self, entry: Entry) -> bool:
        """Whether `entry` is not older than what is wanted of its type, and was never sent."""
        index = entry.seq - self.base
        sent = 0 <= index < len(self.sent) and self.sent[index]
        return not sent and (entry.seq > self.since or entry.type in self.complete)

    def note_sent(self, entry: Entry, oldest_seq: int) -> None:
        """It went out; numbers that the replay no longer holds are forgotten."""
        if self.base < oldest_seq:
            del self.sent[: oldest_seq - self.base]
            self.base = oldest_seq
        index = entry.seq - self.base
        self.sent.extend(bytes(max(0, index + 1 - len(self.sent))))
        self.sent[index] = 1


@dataclass(slots=True, eq=False)
class Connection:
    """One client as the hub sees it. `types` None: all event types; `session` None: all sessions.

    `number` tells it from others in the metrics; `missed` counts the event numbers that `gap`s told it of, `merged` the
    partials that it got only in a newer one.

    `held`: no events yet, so that a client which subscribes right after `hello` gets its replay before the live events.
    """

    types: frozenset[str] | None = None
    session: str | None = None
    held: bool = False
    positions: dict[str, _Position] = field(default_factory=dict)
    notices: deque[str] = field(default_factory=deque)
    newest: dict[str, str] = field(default_factory=dict)  # heartbeat, levels, marks: only the newest waits
    turn: int = 0
    number: int = 0
    missed: int = 0
    merged: int = 0

    def wants_type(self, kind: str) -> bool:
        """Whether events of this type are subscribed."""
        return self.types is None or kind in self.types


@dataclass(frozen=True, slots=True)
class Reader:
    """How one connection does, as `Connection` counts it."""

    number: int
    missed: int
    merged: int


@dataclass(slots=True, eq=False)
class _Session:
    info: SessionInfo
    replay: Replay
    kept: Kept
    active: bool = True
    mirrored: bool = False
    status: Status | None = None  # the newest

    def is_for(self, connection: Connection) -> bool:
        """Whether a connection wants its events; those of a mirrored one only go to who names it."""
        return connection.session == self.info.session or (connection.session is None and not self.mirrored)


class Hub:
    """All sessions and connections. `run` names the numbering of the events; see `messages.hello`."""

    def __init__(
        self, limits: HubLimits | None = None, run: str = "", capabilities: tuple[str, ...] = messages.CAPABILITIES
    ) -> None:
        self._limits = limits or HubLimits()
        self._run, self._capabilities = run, capabilities
        self._marks: dict[str, str] = {}  # session -> its `marks` message
        self._sessions: dict[str, _Session] = {}
        self._connections: set[Connection] = set()
        self._count = 0  # of connections that there ever were
        self.missed = 0  # event numbers that `gap`s told any of them of

    @property
    def run(self) -> str:
        """As in `hello`."""
        return self._run

    @run.setter
    def run(self, run: str) -> None:
        """Another numbering holds from now on: everybody who is connected gets another `hello`."""
        self._run = run
        self._greet_again()

    def open_session(
        self,
        info: SessionInfo,
        kept: Sequence[Entry] = (),
        lost_to: int = 0,
        *,
        again: bool = False,
        mirrored: bool = False,
    ) -> None:
        """Begin a session. `kept`, `lost_to`: as in `Replay.begin`. Raises ValueError when its name was used before,
        unless it goes on `again` here: then everything that is kept takes the place of what was.
        """
        known = self._sessions.get(info.session)
        if known is not None and not (again and (known.mirrored or not known.active)):
            raise ValueError(f"session: {info.session!r} is already open; every session needs a name of its own")
        replay = Replay(self._limits.max_events, self._limits.max_bytes)
        replay.begin(kept, lost_to)
        transcript = Kept(self._limits.max_transcript_bytes)
        for entry in kept:
            if entry.type != "tags":  # nearly all of them, and no transcript has them
                transcript.step(read_event(json.loads(entry.text)))
        self._sessions[info.session] = _Session(info, replay, transcript, mirrored=mirrored)
        if mirrored:  # who names it later wants it from then on, as if it were here
            for connection in self._connections:
                if connection.session != info.session:
                    connection.positions.setdefault(info.session, _live(replay))

    def describe(self, info: SessionInfo) -> None:
        """More is known of an open session now: everybody who is connected gets another `hello`."""
        self._sessions[info.session].info = info
        self._greet_again()

    def close_session(self, session: str) -> None:
        """The session made its last event; its replay stays a while for those who reconnect."""
        self._sessions[session].active = False
        ended = [name for name, item in self._sessions.items() if not item.active]
        for name in ended[: max(0, len(ended) - self._limits.max_ended_sessions)]:
            self._forget(name)

    def publish(self, event: Event) -> None:
        """Take an event in. Raises KeyError for a session that was not opened, ValueError for a number that repeats."""
        session = self._sessions[event.session]
        session.replay.append(Entry.of(event))
        session.kept.step(event)
        if isinstance(event, Status):
            session.status = event

    def mirror(self, session: str, events: Sequence[Event]) -> bool:
        """Take in what another server says of a session; False: it is not mirrored here (any more)."""
        item = self._sessions.get(session)
        if item is None or not item.mirrored:
            return False
        for event in events:
            self.publish(event)
        return True

    def is_mirrored(self, session: str) -> bool:
        """Whether another server has the session, and its events are here."""
        item = self._sessions.get(session)
        return item is not None and item.mirrored

    def is_live(self, session: str) -> bool:
        """Whether the session's events come in here, from wherever."""
        item = self._sessions.get(session)
        return item is not None and item.active

    def is_named(self, session: str) -> bool:
        """Whether anybody wants this very session."""
        return any(connection.session == session for connection in self._connections)

    def drop_mirrored(self, session: str) -> None:
        """Nobody wants it here any more."""
        if self.is_mirrored(session):
            self._forget(session)

    def transcript(self, session: str | None, name: str) -> list[str]:
        """The whole transcript of a session (None: of the only one) in one of `transcripts.FORMATS`, in pieces.

        Raises KeyError, with what is wrong, where there is no such session.
        """
        own = [name for name, item in self._sessions.items() if not item.mirrored]
        known = ", ".join(own) or "none"
        if session is None and len(own) != 1:
            raise KeyError(f"session: say which; there are: {known}")
        item = self._sessions.get(own[0] if session is None else session)
        if item is None:
            raise KeyError(f"session: there is none of this name (any more); there are: {known}")
        return item.kept.pieces(name)

    def connect(self, held: bool = False, session: str | None = None) -> Connection:
        """A new connection: `hello` is its first message, then all events from now on (once it is not `held`).

        `session`: the one that it comes for, as long as it does not subscribe to others.
        """
        self._count += 1
        connection = Connection(session=session, held=held, number=self._count)
        connection.notices.append(messages.encode(self.hello(connection)))
        for name, item in self._sessions.items():
            connection.positions[name] = _live(item.replay)
        self._connections.add(connection)
        return connection

    def follow(self, session: str) -> Connection:
        """A connection for one session's events from its first on, without `hello`: for whoever sends its sound."""
        connection = self.connect()
        connection.notices.clear()
        self.subscribe(connection, Subscribe(session=session, since_seq=0))
        return connection

    def is_over(self, session: str) -> bool:
        """Whether a session makes no more events."""
        item = self._sessions.get(session)
        return item is None or not item.active or (item.status is not None and item.status.state == "stopped")

    def disconnect(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)

    def subscribe(self, connection: Connection, wish: Subscribe) -> None:
        """Change what a connection gets; with `since_seq`, go there first, leaving out what it already had.

        Of the `complete` types everything comes that is still here and that it did not have. A `since_seq` beyond the
        newest event of all sessions belongs to an earlier run of the server: then all there is comes.
        """
        newest_of_all = max((item.replay.last_seq for item in self._sessions.values()), default=0)
        for name, item in self._sessions.items():
            position, newest = connection.positions.setdefault(name, _all(item.replay)), item.replay.last_seq
            if wish.since_seq is not None:
                start = min(wish.since_seq, newest) if wish.since_seq <= newest_of_all else -1
                position.go_to(start, wish.complete, item.replay.oldest_seq)
            elif not item.is_for(connection):
                position.go_to(newest, frozenset(), item.replay.oldest_seq)
            position.live_from = newest
        connection.types, connection.session, connection.held = wish.types, wish.session, False
        for name in self._marks:
            self._give_marks(connection, name)

    def notify(self, connection: Connection, message: Mapping[str, Any]) -> bool:
        """Queue a connection message; False when the queue is full because the client does not read."""
        if len(connection.notices) >= self._limits.max_notices:
            return False
        connection.notices.append(messages.encode(message))
        return True

    def beat(self, uptime_s: float, health: Mapping[str, SessionHealth]) -> None:
        """Give every connection a heartbeat in place of one it has not read yet."""
        text = messages.encode(messages.heartbeat(uptime_s, health))
        for connection in self._connections:
            connection.newest["heartbeat"] = text

    def show_levels(self, health: Mapping[str, SessionHealth]) -> None:
        """Give the levels to the connections that subscribed to them by name."""
        for name, item in health.items():
            if item.level_dbfs is None:
                continue
            text = messages.encode(messages.level(name, item.level_dbfs))
            for connection in self._connections:
                if connection.types is not None and messages.LEVEL in connection.types:
                    connection.newest[f"{messages.LEVEL} {name}"] = text

    def show_marks(self, session: str, false_alarms: Collection[int], true_alerts: Collection[int]) -> None:
        """Give what people said of a session's alerts to the connections that subscribed to `marks` by name."""
        if session in self._sessions:
            self._marks[session] = messages.encode(messages.marks(session, false_alarms, true_alerts))
            for connection in self._connections:
                self._give_marks(connection, session)

    def _give_marks(self, connection: Connection, session: str) -> None:
        wanted = self._sessions[session].is_for(connection)
        if wanted and connection.types is not None and messages.MARKS in connection.types:
            connection.newest[f"{messages.MARKS} {session}"] = self._marks[session]

    def drain(self, connection: Connection, limit: int = 16) -> list[str]:
        """The next messages for a connection, at most about `limit`, as JSON texts; empty: it has everything."""
        out = list(connection.notices) + list(connection.newest.values())
        connection.notices.clear()
        connection.newest.clear()
        names = [] if connection.held else [name for name, item in self._sessions.items() if item.is_for(connection)]
        connection.turn += 1
        for offset in range(len(names)):
            name = names[(connection.turn + offset) % len(names)]
            self._read(connection, name, limit, out)
            if len(out) >= limit:
                break
        return out

    def overdue(self) -> list[Connection]:
        """Connections that are too far behind to be kept."""
        return [connection for connection in self._connections if self._behind(connection) > self._limits.max_behind]

    def statuses(self) -> dict[str, Status | None]:
        """The newest `status` of every session that is not over; None: none came yet."""
        return {name: item.status for name, item in self._sessions.items() if item.active and not item.mirrored}

    def readers(self) -> list[Reader]:
        """All connections, the oldest first."""
        found = [Reader(item.number, item.missed, item.merged) for item in self._connections]
        return sorted(found, key=attrgetter("number"))

    def hello(self, connection: Connection | None = None) -> dict[str, Any]:
        """The `hello` message as of now; for a connection also the mirrored session that it comes for."""
        comes_for = connection.session if connection else None
        told = [item for name, item in self._sessions.items() if not item.mirrored or name == comes_for]
        return messages.hello(map(_describe, told), self._run, self._capabilities)

    def _greet_again(self) -> None:
        for connection in self._connections:
            connection.newest["hello"] = messages.encode(self.hello(connection))

    def _read(self, connection: Connection, name: str, limit: int, out: list[str]) -> None:
        replay = self._sessions[name].replay
        position = connection.positions.setdefault(name, _all(replay))
        lost = replay.lost_after(position.seq, connection.types)
        if lost is not None:
            out.append(messages.encode(messages.events_gap(name, *lost, "no longer in the server's history")))
            self._count_missed(connection, *lost)
            position.seq = lost[1]
        for entry in replay.after(position.seq):
            if len(out) >= limit:
                return
            position.seq = entry.seq
            if not (connection.wants_type(entry.type) and position.wants(entry)):
                continue
            if replay.superseded(entry):
                connection.merged += 1
                continue
            position.note_sent(entry, replay.oldest_seq)
            out.append(entry.text)

    def _count_missed(self, connection: Connection, from_seq: int, to_seq: int) -> None:
        connection.missed += to_seq - from_seq + 1
        self.missed += to_seq - from_seq + 1

    def _behind(self, connection: Connection) -> int:
        behind = 0
        for name, item in self._sessions.items():
            position = connection.positions.get(name)
            if position is not None and item.is_for(connection):
                behind = max(behind, item.replay.last_seq - max(position.seq, position.live_from))
        return behind

    def _forget(self, name: str) -> None:
        item = self._sessions.pop(name)
        replay = item.replay
        self._marks.pop(name, None)
        for connection in self._connections:
            position = connection.positions.pop(name, None)
            seq = position.seq if position is not None else 0
            unread = any(connection.wants_type(entry.type) for entry in replay.after(seq))
            if item.is_for(connection) and unread:
                self._count_missed(connection, seq + 1, replay.last_seq)
                gap = messages.events_gap(name, seq + 1, replay.last_seq, "the session is over")
                connection.notices.append(messages.encode(gap))


def _live(replay: Replay) -> _Position:
    return _Position(replay.last_seq, replay.last_seq, replay.last_seq)


def _all(replay: Replay) -> _Position:
    """A session that opened while the connection was there: nothing of it was before."""
    return _Position(-1, -1, 0)


def _describe(item: _Session) -> dict[str, Any]:
    info, replay = item.info, item.replay
    head = {"session": info.session, "model": info.model, "head": info.head, "sample_rate": info.sample_rate}
    opened = {} if info.opened_at is None else {"opened_at": round(info.opened_at, 3)}
    source = {} if info.source is None else {"source": info.source}
    return (
        head | {"oldest_seq": replay.oldest_seq, "last_seq": replay.last_seq, "active": item.active} | opened | source
    )
