"""What comes on a connection, as frozen records: the events of `streamer.events`, and the server's own messages.

Times and the meaning of every field: docs/protocol.md. `parse` is forgiving, as the protocol asks of clients: fields
that it does not know are left out, and what it does not know at all, or cannot read, is an `Unknown`.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, ClassVar, Final, Literal, Union, get_args, get_origin, get_type_hints

from streamer.events import SESSION_EVENTS, Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What the server says of itself or of the connection; it has no number."""

    type: ClassVar[str] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """One session, in `Hello`. `head` None: it names no sounds. `active` False: it is over, its events are still there.

    `oldest_seq`, `last_seq`: the events that the server has. `opened_at`: Unix time of its first sample; None where it
    is not heard as it happens. `source`: what is listened to, `microphone`, `input` or `sender`; None: not known.
    """

    session: str
    model: str
    head: str | None
    sample_rate: int
    oldest_seq: int
    last_seq: int
    active: bool = True
    opened_at: float | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(Message):
    """The first message. `run` names this start of the server: numbers of another run mean nothing here."""

    type: ClassVar[str] = "hello"
    version: int
    run: str
    sessions: tuple[SessionInfo, ...]
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a session is doing: seconds since the last sound came, seconds that the worker is behind."""

    session: str
    last_audio_age: float
    lag: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat(Message):
    """The sign of life of every five seconds. `uptime`: of the server, in seconds."""

    type: ClassVar[str] = "heartbeat"
    uptime: float
    sessions: tuple[Health, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level(Message):
    """How loud it is, in dB below full scale; for those who subscribe to `level` by name."""

    type: ClassVar[str] = "level"
    session: str
    dbfs: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks(Message):
    """What people said of a session's alerts, by their ids; for those who subscribe to `marks` by name."""

    type: ClassVar[str] = "marks"
    session: str
    false_alarms: tuple[int, ...]
    true_alerts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageSet(Message):
    """The answer to `set`: the languages that come into question now, as codes, or `auto`."""

    type: ClassVar[str] = "set"
    session: str
    language: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramSet(Message):
    """The answer to `set` with `program`: what the hearing aid holds now, a scene's name or `auto`."""

    type: ClassVar[str] = "set"
    program: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught(Message):
    """How far a sound is that this client teaches: so many `clips` are kept, so many `needed` before it is learned.

    `learned`: it is listened for. `learning`: another one follows. `trouble`: why it could not be learned, `unlike`:
    the number of the clip at fault. `recall`: the share of a clip that is recognised without having been taught.
    """

    type: ClassVar[str] = "taught"
    name: str
    clips: int
    needed: int
    learned: bool
    learning: bool = False
    trouble: str = ""
    unlike: int | None = None
    recall: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Message):
    """The answer to a sender's `start`: its session. `audio_t`: where its sound goes on, in one that did elsewhere."""

    type: ClassVar[str] = "started"
    session: str
    audio_t: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong(Message):
    """The answer to a ping."""

    type: ClassVar[str] = "pong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Error(Message):
    """Something that this client said cannot be used; one line that names the field."""

    type: ClassVar[str] = "error"
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsGap(Message):
    """Events `from_seq` to `to_seq` of a session will not come: the server no longer has them."""

    type: ClassVar[str] = "gap"
    kind: Literal["events"] = "events"
    session: str
    from_seq: int
    to_seq: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown(Message):
    """A message of a later version. `fields`: all of it."""

    type: ClassVar[str] = "unknown"
    fields: Mapping[str, Any] = field(default_factory=dict)


MESSAGES: Final = (Hello, Heartbeat, Level, Marks, LanguageSet, ProgramSet, Taught, Started, Pong, Error, EventsGap)
_EVENTS: Final[Mapping[str, type[Event]]] = {kind.type: kind for kind in SESSION_EVENTS}
_MESSAGES: Final[Mapping[str, type[Message]]] = {kind.type: kind for kind in MESSAGES}


def parse(text: str | bytes) -> Event | Message:
    """The record of a message. Raises ValueError for what is no JSON object."""
    given = json.loads(text)
    if not isinstance(given, dict):
        raise ValueError("not a JSON object")
    name = str(given.get("type"))
    kind: type[Event | Message] | None = _EVENTS.get(name) if "seq" in given else _MESSAGES.get(name)
    if kind is ProgramSet and "program" not in given:
        kind = LanguageSet
    if kind is None:
        return Unknown(fields=given)
    try:
        record = _record(kind, given)
    except (KeyError, TypeError, ValueError):
        return Unknown(fields=given)
    assert isinstance(record, Event | Message)
    return record


def _record(kind: Any, given: Mapping[str, Any]) -> Any:
    """KeyError: a field is missing. TypeError: one is of another type."""
    values = {}
    for name, hint, optional in _fields(kind):
        if name in given:
            values[name] = _value(hint, given[name])
        elif not optional:
            raise KeyError(name)
    return kind(**values)


@cache
def _fields(kind: Any) -> tuple[tuple[str, Any, bool], ...]:
    """Of a record's type: name and type of each field, and whether it may be left out."""
    hints = get_type_hints(kind)
    return tuple(
        (one.name, hints[one.name], one.default is not MISSING or one.default_factory is not MISSING)
        for one in fields(kind)
    )


def _value(hint: Any, given: Any) -> Any:
    """What JSON holds as the type of a field; a word that a later version added is let through."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        if given is None and type(None) in get_args(hint):
            return None
        hint = next(one for one in get_args(hint) if one is not type(None))
        origin = get_origin(hint)
    if origin is tuple:
        if not isinstance(given, list):
            raise TypeError("no list")
        return tuple(_value(get_args(hint)[0], one) for one in given)
    if isinstance(hint, type) and is_dataclass(hint):
        if not isinstance(given, dict):
            raise TypeError("no object")
        return _record(hint, given)
    kinds = {float: (int, float), int: (int,), bool: (bool,), str: (str,)}.get(hint, (str,))
    if not isinstance(given, kinds) or (isinstance(given, bool) and hint is not bool):
        raise TypeError(f"no {hint}")
    return float(given) if hint is float else given
