"""What travels on a connection beside the events: the server's own messages, and what clients may say.

Everything here is plain data; the wire form is JSON text. Protocol version 1: docs/protocol.md.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs

from streamer.events import PROTOCOL_VERSION, SESSION_EVENTS
from streamer.settings.own_sounds import checked_name
from streamer.settings.words import named_languages, shown_languages

EVENT_TYPES: Final = frozenset(event.type for event in SESSION_EVENTS)
LEVEL: Final = "level"  # these connection messages only get those who subscribe to them by name
MARKS: Final = "marks"
SET: Final = "set"  # a capability of servers on which clients may set the language; and its message
LEARN: Final = "learn"  # a capability of servers that learn sounds from what clients point at; and that message
LEARNED: Final = "learned"
ALWAYS_SENT: Final = frozenset({"hello", "heartbeat", "pong", "error", SET, LEARNED})
CAPABILITIES: Final = ("replay", "ack", "flush", "ingest", LEVEL, "complete")
MARK: Final = "mark"  # a capability of servers that keep a history of alerts
MAX_SEQ: Final = 2**53
MIN_MOMENT_S: Final = 0.3
MAX_MOMENT_S: Final = 30.0  # seconds of sound that a client may name at once
MAX_NAME: Final = 200  # characters of a session's name


class MessageError(ValueError):
    """A client said something that cannot be used; the text is one line for its `error` message."""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What a client is told about a session. `head`: the tagging head's name, None without one.

    `opened_at`: Unix time of its first sample, for clients that show the time of day; None where it is not heard as it
    happens.
    """

    session: str
    model: str
    head: str | None
    sample_rate: int
    opened_at: float | None = None


@dataclass(frozen=True, slots=True)
class SessionHealth:
    """How a session is doing: seconds since the last audio came, seconds the worker is behind, level in dBFS."""

    last_audio_age_s: float
    lag_s: float
    level_dbfs: float | None = None


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Which events a client wants. None: all types, all sessions, from now on. `unknown`: types nobody sends.

    `complete`: types of which, with `since_seq`, everything is wanted that the server still has, also from before it.
    """

    types: frozenset[str] | None = None
    session: str | None = None
    since_seq: int | None = None
    unknown: tuple[str, ...] = ()
    complete: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Ack:
    """The person has seen alert `id` (of `session`; None: of the only one)."""

    id: int
    session: str | None = None


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a pong."""


@dataclass(frozen=True, slots=True)
class Flush:
    """Asks to finish the text of the current segment now."""

    session: str | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """Alert `id` (of `session`; None: of the newest) was a false alarm; `false_alarm` False takes that back."""

    id: int
    session: str | None
    false_alarm: bool


@dataclass(frozen=True, slots=True)
class SetLanguage:
    """Which languages come into question in a session (None: in the only one) from now on; empty: any."""

    session: str | None
    languages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Learn:
    """What sounded in a session (None: in the only one) from `start_s` to `end_s` was the sound `name`.

    `start_s` None: the last so many seconds, `end_s`.
    """

    name: str
    session: str | None
    start_s: float | None
    end_s: float


ClientMessage = Subscribe | Ack | Ping | Flush | Mark | SetLanguage | Learn


def encode(message: Mapping[str, Any]) -> str:
    """A connection message as JSON text; ASCII, so that nothing a client sent can break the encoding."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False)


def error(detail: str) -> dict[str, Any]:
    """An `error` message."""
    return {"v": PROTOCOL_VERSION, "type": "error", "detail": detail}


def pong() -> dict[str, Any]:
    """The answer to a `ping`."""
    return {"v": PROTOCOL_VERSION, "type": "pong"}


def language_set(done: SetLanguage) -> dict[str, Any]:
    """The answer to a `set` that was accepted: the session, and its languages as codes."""
    head = {"v": PROTOCOL_VERSION, "type": SET, "session": done.session}
    return head | {"language": shown_languages(done.languages)}


def learned(session: str, name: str, clips: int, needed: int) -> dict[str, Any]:
    """The answer to a `learn` that was accepted: how many clips there will be of the sound, and are needed."""
    head = {"v": PROTOCOL_VERSION, "type": LEARNED, "session": session, "name": name}
    return head | {"clips": clips, "needed": needed}


def events_gap(session: str, from_seq: int, to_seq: int, reason: str) -> dict[str, Any]:
    """Says that events `from_seq` to `to_seq` of a session will not come on this connection."""
    head = {"v": PROTOCOL_VERSION, "type": "gap", "kind": "events", "session": session}
    return head | {"from_seq": from_seq, "to_seq": to_seq, "reason": reason}


def hello(
    sessions: Iterable[Mapping[str, Any]], run: str, capabilities: Iterable[str] = CAPABILITIES
) -> dict[str, Any]:
    """The first message. `run` names this start of the server: sequence numbers of another run mean nothing here."""
    head = {"v": PROTOCOL_VERSION, "type": "hello", "version": PROTOCOL_VERSION, "run": run}
    return head | {"sessions": list(sessions), "capabilities": list(capabilities)}


def heartbeat(uptime_s: float, health: Mapping[str, SessionHealth]) -> dict[str, Any]:
    """The sign of life of every five seconds."""
    sessions = [
        {"session": name, "last_audio_age": round(item.last_audio_age_s, 3), "lag": round(item.lag_s, 3)}
        for name, item in health.items()
    ]
    return {"v": PROTOCOL_VERSION, "type": "heartbeat", "uptime": round(uptime_s, 3), "sessions": sessions}


def level(session: str, dbfs: float) -> dict[str, Any]:
    """How loud it is, in dB below full scale, for a level meter."""
    return {"v": PROTOCOL_VERSION, "type": LEVEL, "session": session, "dbfs": round(dbfs, 1)}


def marks(session: str, false_alarms: Iterable[int], true_alerts: Iterable[int]) -> dict[str, Any]:
    """What people said of a session's alerts, all of it, by the alerts' ids."""
    head = {"v": PROTOCOL_VERSION, "type": MARKS, "session": session}
    return head | {"false_alarms": sorted(false_alarms), "true_alerts": sorted(true_alerts)}


def parse(text: str | bytes) -> ClientMessage:
    """What a client said. Raises MessageError with one line that names the field."""
    message = parse_object(text)
    kind = message.get("type")
    if kind == "subscribe":
        return _subscribe(message)
    if kind == "ack":
        return Ack(_integer(message, "id"), _name(message))
    if kind == "ping":
        return Ping()
    if kind == "flush":
        return Flush(_name(message))
    if kind == "mark":
        return Mark(_integer(message, "id"), _name(message), _boolean(message, "false_alarm"))
    if kind == SET:
        return SetLanguage(_name(message), _languages(message))
    if kind == LEARN:
        return _learn(message)
    raise MessageError("type: must be subscribe, ack, mark, set, learn, ping or flush")


def parse_object(text: str | bytes) -> dict[str, Any]:
    """The JSON object in a text message. Raises MessageError."""
    if isinstance(text, bytes):
        raise MessageError("binary message: only JSON text is understood here")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise MessageError("not a JSON object") from None
    if not isinstance(message, dict):
        raise MessageError("not a JSON object")
    return message


def subscribe_from_query(query: str) -> Subscribe | None:
    """The subscription in `/ws?since_seq=N&types=a,b&session=NAME`; None when the query holds none of these."""
    values = {name: items[-1] for name, items in parse_qs(query, max_num_fields=20).items()}
    message: dict[str, Any] = {}
    if "types" in values:
        message["types"] = [name.strip() for name in values["types"].split(",") if name.strip()]
    if "session" in values:
        message["session"] = values["session"]
    if "since_seq" in values:
        digits = values["since_seq"]
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 16):
            raise MessageError("since_seq: must be a whole number of at least 0")
        message["since_seq"] = int(digits)
    return _subscribe(message) if message else None


def _subscribe(message: Mapping[str, Any]) -> Subscribe:
    names, complete = _types(message, "types"), _types(message, "complete") or []
    since = None if message.get("since_seq") is None else _integer(message, "since_seq")
    whole = frozenset(complete) & EVENT_TYPES
    known = EVENT_TYPES | ALWAYS_SENT | {LEVEL, MARKS}
    unknown = tuple(sorted({name[:40] for name in (*(names or []), *complete) if name not in known}))[:10]
    wanted = None if names is None else frozenset(names) & known
    return Subscribe(wanted, _name(message), since, unknown, whole)


def _types(message: Mapping[str, Any], field: str) -> list[str] | None:
    names = message.get(field)
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise MessageError(f"{field}: must be a list of event types")
    return names


def _languages(message: Mapping[str, Any]) -> tuple[str, ...]:
    try:
        return named_languages(message.get("language", False))
    except ValueError as error:
        raise MessageError(f"language: {error}") from None


def _learn(message: Mapping[str, Any]) -> Learn:
    name = message.get("name")
    try:
        named = checked_name(name if isinstance(name, str) else "")
    except ValueError as error:
        raise MessageError(f"name: {error}") from None
    if "seconds" in message:
        return Learn(named, _name(message), None, _seconds(message, "seconds", MIN_MOMENT_S, MAX_MOMENT_S))
    start = _seconds(message, "start", 0.0, float(MAX_SEQ))
    end = _seconds(message, "end", start + MIN_MOMENT_S, start + MAX_MOMENT_S)
    return Learn(named, _name(message), start, end)


def _seconds(message: Mapping[str, Any], field: str, least: float, most: float) -> float:
    value = message.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise MessageError(f"{field}: must be seconds from {least:g} to {most:g}")
    return float(value)


def _boolean(message: Mapping[str, Any], field: str) -> bool:
    value = message.get(field)
    if not isinstance(value, bool):
        raise MessageError(f"{field}: must be true or false")
    return value


def _integer(message: Mapping[str, Any], field: str) -> int:
    value = message.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SEQ:
        raise MessageError(f"{field}: must be a whole number of at least 0")
    return value


def _name(message: Mapping[str, Any]) -> str | None:
    value = message.get("session")
    if value is not None and not (isinstance(value, str) and 0 < len(value) <= MAX_NAME):
        raise MessageError(f"session: must be a name of 1 to {MAX_NAME} characters")
    return value
