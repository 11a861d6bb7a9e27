"""What travels on a connection beside the events: what clients may say, and what the server says.

Everything here is plain data; the wire form is JSON text. Protocol version 1: docs/protocol.md. What a client says is
validated as it is read: a value that cannot be used is a MessageError that names the field. What is done about it is
in `actions.py`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import parse_qs

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass as checked

from streamer.events import PROTOCOL_VERSION, SESSION_EVENTS, SceneName
from streamer.settings.own_sounds import checked_name
from streamer.settings.section import first_fault
from streamer.settings.words import named_languages, shown_languages

EVENT_TYPES: Final = frozenset(event.type for event in SESSION_EVENTS)
LEVEL: Final = "level"  # these connection messages only get those who subscribe to them by name
MARKS: Final = "marks"
SET: Final = "set"  # a capability of servers on which clients may set the language; and its message
PROGRAM: Final = "program"  # a capability beside it, where there is a hearing aid whose program may be held
TEACH: Final = "teach"  # a capability of servers on which clients may teach sounds of their own; and its message
TAUGHT: Final = "taught"  # what comes of it
MARK: Final = "mark"  # a capability of servers that keep a history of alerts
RESUME: Final = "resume"  # a capability of servers that go on with the sessions of others
CAPABILITIES: Final = ("replay", "ack", "flush", "ingest", LEVEL, "complete")
SUBSCRIBABLE: Final = EVENT_TYPES | {LEVEL, MARKS, SET, TAUGHT, "hello", "heartbeat", "pong", "error"}
MAX_SEQ: Final = 2**53
BYTES_PER_SAMPLE: Final = 2  # pcm_s16le

Count = Annotated[int, Field(strict=True, ge=0, le=MAX_SEQ)]
MAX_NAME: Final = 200
Name = Annotated[str, Field(strict=True, min_length=1, max_length=MAX_NAME)]
Seconds = Annotated[float, Field(strict=True, ge=0, le=1e9, allow_inf_nan=False)]
_FROM_CLIENT = ConfigDict(extra="ignore")  # unknown fields are for later versions


Origin = Literal["microphone", "input", "sender"]  # input: a file, a pipe or the demo


class MessageError(ValueError):
    """A client said something that cannot be used; the text is one line for its `error` message."""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What a client is told about a session. `head`: the tagging head's name, None without one.

    `opened_at`: Unix time of its first sample, for clients that show the time of day; None where it is not heard as it
    happens. `source`: what is listened to; None where that is not known.
    """

    session: str
    model: str
    head: str | None
    sample_rate: int
    opened_at: float | None = None
    source: Origin | None = None


@dataclass(frozen=True, slots=True)
class SessionHealth:
    """How a session is doing: seconds since the last audio came, seconds the worker is behind, level in dBFS."""

    last_audio_age_s: float
    lag_s: float
    level_dbfs: float | None = None


@dataclass(frozen=True, slots=True)
class Taught:
    """How far a sound is: so many `clips` are kept, so many are `needed` before it is learned (again).

    `learned`: it is listened for. `learning`: it is being learned (anew); another `taught` will follow. `trouble`: why
    it could not be, one line; `unlike`: the number of the clip that is not like the others. `recall`: the share of a
    clip that is recognised without having been taught, once it is learned.
    """

    name: str
    clips: int
    needed: int
    learned: bool
    learning: bool = False
    trouble: str = ""
    unlike: int | None = None
    recall: float | None = None


@checked(frozen=True, slots=True, config=_FROM_CLIENT)
class Subscribe:
    """Which events a client wants. None: all types, all sessions, from now on.

    `complete`: types of which, with `since_seq`, everything is wanted that the server still has, also from before it.
    """

    types: frozenset[StrictStr] | None = None
    session: Name | None = None
    since_seq: Count | None = None
    complete: frozenset[StrictStr] = frozenset()

    @property
    def unknown(self) -> tuple[str, ...]:
        """Types that nobody sends, the first ten, cut to a length that can be shown."""
        return tuple(sorted({name[:40] for name in (self.types or frozenset()) | self.complete} - SUBSCRIBABLE))[:10]


@checked(frozen=True, slots=True, config=_FROM_CLIENT)
class Ack:
    """The person has seen alert `id` (of `session`; None: of the only one)."""

    id: Count
    session: Name | None = None


@checked(frozen=True, slots=True, config=_FROM_CLIENT)
class Ping:
    """Asks for a pong."""


@checked(frozen=True, slots=True, config=_FROM_CLIENT)
class Flush:
    """Asks to finish the text of the current segment now."""

    session: Name | None = None


@checked(frozen=True, slots=True, config=_FROM_CLIENT)
class Mark:
    """Alert `id` (of `session`; None: of the newest) was a false alarm; `false_alarm` False takes that back."""

    id: Count
    false_alarm: StrictBool
    session: Name | None = None


@checked(frozen=True, slots=True, config=_FROM_CLIENT)
class SetLanguage:
    """Which languages come into question in a session (None: in the only one) from now on; empty: any."""

    language: Annotated[tuple[str, ...], BeforeValidator(named_languages)]
    session: Name | None = None


@checked(frozen=True, slots=True, config=_FROM_CLIENT)
class SetProgram:
    """Hold this program of the hearing aid from now on; `auto`: the scene chooses."""

    program: SceneName | Literal["auto"]


@checked(frozen=True, slots=True, config=_FROM_CLIENT)
class Teach:
    """The sound of a moment (of `session`; None: of the only one) is `name`: keep it.

    The moment: the seconds around `start`, in seconds of the session, when it began; without, the last ones as they
    were `ago` seconds ago. `undo`: take a clip of it back instead, the newest one or number `clip` (1: the oldest).
    """

    name: Annotated[StrictStr, AfterValidator(checked_name)]
    session: Name | None = None
    start: Seconds | None = None
    ago: Seconds = 0.0
    undo: StrictBool = False
    clip: Annotated[int, Field(strict=True, ge=1, le=100)] | None = None


@checked(frozen=True, slots=True, config=_FROM_CLIENT)
class IngestStart:
    """What a sender says first: `sample_rate` in Hz, interleaved `channels`, which entry of the settings it is.

    `events`: the sender wants its session's events on the same socket. `session`: it was heard in this one, at a server
    that is gone; `audio_t`: it can send its sound again from there on (s), None: it has none but what comes.
    """

    sample_rate: Annotated[int, Field(strict=True, ge=8_000, le=192_000)]
    channels: Annotated[int, Field(strict=True, ge=1, le=8)] = 1
    source: StrictStr | None = None
    encoding: Literal["pcm_s16le"] = "pcm_s16le"
    events: StrictBool = False
    session: Name | None = None
    audio_t: Annotated[float, Field(strict=True, ge=0, le=MAX_SEQ, allow_inf_nan=False)] | None = None

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return self.channels * BYTES_PER_SAMPLE


ClientMessage = Subscribe | Ack | Ping | Flush | Mark | SetLanguage | SetProgram | Teach
_KINDS: Final[Mapping[str, TypeAdapter[ClientMessage]]] = {
    "subscribe": TypeAdapter(Subscribe),
    "ack": TypeAdapter(Ack),
    MARK: TypeAdapter(Mark),
    SET: TypeAdapter(SetLanguage),
    TEACH: TypeAdapter(Teach),
    "ping": TypeAdapter(Ping),
    "flush": TypeAdapter(Flush),
}
_SET_PROGRAM: Final[TypeAdapter[ClientMessage]] = TypeAdapter(SetProgram)
_START: Final = TypeAdapter(IngestStart)
Checked = TypeVar("Checked")


def parse(text: str | bytes) -> ClientMessage:
    """What a client said. Raises MessageError with one line that names the field."""
    message = parse_object(text)
    kind = message.get("type")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise MessageError("type: must be subscribe, ack, mark, set, teach, ping or flush")
    if kind == SET and "program" in message:
        return _validated(_SET_PROGRAM, message)
    return _validated(_KINDS[kind], message)


def parse_start(text: str | bytes) -> IngestStart:
    """What a sender says first. Raises MessageError that names the field."""
    message = parse_object(text)
    if message.get("type") != "start":
        raise MessageError("type: the first message must be start")
    return _validated(_START, message)


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
    message: dict[str, Any] = {name: values[name] for name in ("session", "since_seq") if name in values}
    if "types" in values:
        message["types"] = [name.strip() for name in values["types"].split(",") if name.strip()]
    if "since_seq" in message:
        digits = message["since_seq"]
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 16):
            raise MessageError("since_seq: must be a whole number of at least 0")
        message["since_seq"] = int(digits)
    return _validated(TypeAdapter(Subscribe), message) if message else None


def sought_in_query(query: str) -> str | None:
    """The session that a client comes for: `/ws?for=NAME`, or the one that it subscribes to there."""
    try:
        values = parse_qs(query, max_num_fields=20)
    except ValueError:  # more fields than anybody needs
        return None
    name = next((values[field][-1] for field in ("for", "session") if field in values), "")
    return name if 0 < len(name) <= MAX_NAME else None


def _validated(kind: TypeAdapter[Checked], message: Mapping[str, Any]) -> Checked:
    try:
        return kind.validate_python(message)
    except ValidationError as error:
        raise MessageError(first_fault(error)) from None


def encode(message: Mapping[str, Any]) -> str:
    """A connection message as JSON text; ASCII, so that nothing a client sent can break the encoding."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False)


def _message(of_type: str, **fields: Any) -> dict[str, Any]:
    return {"v": PROTOCOL_VERSION, "type": of_type, **fields}


def error(detail: str) -> dict[str, Any]:
    """An `error` message."""
    return _message("error", detail=detail)


def pong() -> dict[str, Any]:
    """The answer to a `ping`."""
    return _message("pong")


def language_set(now: SetLanguage) -> dict[str, Any]:
    """The answer to a `set` of languages: what holds now."""
    return _message(SET, session=now.session, language=shown_languages(now.language))


def program_set(program: str) -> dict[str, Any]:
    """The answer to a `set` of the hearing aid's program."""
    return _message(SET, program=program)


def taught(news: Taught | str) -> dict[str, Any]:
    """What a client is told of a sound that it taught; a string: why it could not be."""
    return error(news) if isinstance(news, str) else _message(TAUGHT, **asdict(news))


def started(session: str, begin_s: float | None = None) -> dict[str, Any]:
    """The answer to a sender's `start`: the session that was opened for it, or goes on with its sound from there."""
    goes_on = {} if begin_s is None else {"audio_t": round(begin_s, 6)}
    return _message("started", session=session, **goes_on)


def events_gap(session: str, from_seq: int, to_seq: int, reason: str) -> dict[str, Any]:
    """Says that events `from_seq` to `to_seq` of a session will not come on this connection."""
    return _message("gap", kind="events", session=session, from_seq=from_seq, to_seq=to_seq, reason=reason)


def hello(
    sessions: Iterable[Mapping[str, Any]], run: str, capabilities: Iterable[str] = CAPABILITIES
) -> dict[str, Any]:
    """The first message. `run` names this start of the server, or all that share a history: other numbers are void."""
    told = {"version": PROTOCOL_VERSION, "run": run, "sessions": list(sessions), "capabilities": list(capabilities)}
    return _message("hello", **told)


def heartbeat(uptime_s: float, health: Mapping[str, SessionHealth]) -> dict[str, Any]:
    """The sign of life of every five seconds."""
    sessions = [
        {"session": name, "last_audio_age": round(item.last_audio_age_s, 3), "lag": round(item.lag_s, 3)}
        for name, item in health.items()
    ]
    return _message("heartbeat", uptime=round(uptime_s, 3), sessions=sessions)


def level(session: str, dbfs: float) -> dict[str, Any]:
    """How loud it is, in dB below full scale, for a level meter."""
    return _message(LEVEL, session=session, dbfs=round(dbfs, 1))


def marks(session: str, false_alarms: Iterable[int], true_alerts: Iterable[int]) -> dict[str, Any]:
    """What people said of a session's alerts, all of it, by the alerts' ids."""
    return _message(MARKS, session=session, false_alarms=sorted(false_alarms), true_alerts=sorted(true_alerts))
