"""What travels on a connection beside the events: what clients may say, what is done about it, what the server says.

Everything here is plain data; the wire form is JSON text. Protocol version 1: docs/protocol.md. What a client says is
validated as it is read: a value that cannot be used is a MessageError that names the field.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Protocol, TypeVar
from urllib.parse import parse_qs

from pydantic import BeforeValidator, ConfigDict, Field, StrictBool, StrictStr, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from streamer.errors import StreamerError
from streamer.events import PROTOCOL_VERSION, SESSION_EVENTS, Event, SceneName
from streamer.server.teaching import TAUGHT, TEACH, Reply, Taught, Teach
from streamer.settings.section import first_fault
from streamer.settings.server import ServerSettings
from streamer.settings.words import named_languages, shown_languages

EVENT_TYPES: Final = frozenset(event.type for event in SESSION_EVENTS)
LEVEL: Final = "level"  # these connection messages only get those who subscribe to them by name
MARKS: Final = "marks"
SET: Final = "set"  # a capability of servers on which clients may set the language; and its message
PROGRAM: Final = "program"  # a capability beside it, where there is a hearing aid whose program may be held
MARK: Final = "mark"  # a capability of servers that keep a history of alerts
CAPABILITIES: Final = ("replay", "ack", "flush", "ingest", LEVEL, "complete")
SUBSCRIBABLE: Final = EVENT_TYPES | {LEVEL, MARKS, SET, TAUGHT, "hello", "heartbeat", "pong", "error"}
MAX_SEQ: Final = 2**53
BYTES_PER_SAMPLE: Final = 2  # pcm_s16le

Count = Annotated[int, Field(strict=True, ge=0, le=MAX_SEQ)]
Name = Annotated[str, Field(strict=True, min_length=1, max_length=200)]
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


def _validated(kind: TypeAdapter[Checked], message: Mapping[str, Any]) -> Checked:
    try:
        return kind.validate_python(message)
    except ValidationError as error:
        raise MessageError(first_fault(error)) from None


class IngestFullError(StreamerError):
    """No further ingest can be opened now; the sender may try later."""


class IngestSink(Protocol):
    """Where one sender's sound goes. Both methods are called in the event loop of the server and must not block it."""

    @property
    def session(self) -> str:
        """The session that was opened for it."""

    @property
    def begin_s(self) -> float | None:
        """Where the sound is to begin, in a session that goes on; None: at the beginning of a new one."""

    async def write(self, pcm: bytes) -> None:
        """Take bytes, not necessarily whole frames. Raises StreamerError when the session is over."""

    def finish(self) -> None:
        """No more will come, whether the sender said so or went away."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A whole recording that a client sent: the file it lies in, what the client calls it, and what is wanted of it.

    `languages`: codes or names that come into question, none: any. `prompt`: text that may have been said before.
    """

    path: Path
    name: str
    task: Literal["transcribe", "translate"] = "transcribe"
    languages: tuple[str, ...] = ()
    prompt: str = ""


class UploadRefusedError(StreamerError):
    """An uploaded recording that cannot be transcribed. `field`: of the request, where one is at fault."""

    def __init__(self, text: str, field: str | None = None) -> None:
        super().__init__(text)
        self.field = field


class BusyError(StreamerError):
    """Not now: there is no model yet, the program ends, or others are served; the client may try again."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The model that hears, for clients that ask: its name, and the languages that it knows, code -> English name."""

    name: str
    languages: Mapping[str, str]


def _no_uploads(upload: Upload) -> Iterator[Sequence[Event]]:
    raise BusyError("this program takes no recordings (yet)")


def _no_language(message: SetLanguage) -> SetLanguage:
    raise MessageError("set: there is no session whose language could be set")


def _no_ingest(start: IngestStart) -> IngestSink:
    raise IngestFullError("ingest: this server takes no sound from clients")


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """What clients can set going, and what the server asks for. All are called in the event loop and must not block.

    `ack`, `flush`, `mark`, `set_language` and `teach` may raise MessageError, which the client gets as an `error`.
    `mark` None: nobody keeps marks. `teach` None: nothing is taught from pages; what comes of it is told later, from
    any thread. `set_language` returns what holds now: the session's name, the languages as codes. `set_program` and
    `fitting` (what `/fitting` shows of it) None: there is no hearing aid. `open_ingest` opens a session for a sender;
    it raises IngestFullError (close 1013) or UsageError (`error`, close 1008). `takes_senders`: whether it would open
    one at all. `transcribe` is for a thread of its own: its iterator waits for the model, and gives the recording's
    events as they are found; it raises UploadRefusedError, BusyError, EngineError. `model` None: it is still being
    loaded.
    """

    ack: Callable[[Ack], None] = lambda ack: None
    flush: Callable[[Flush], None] = lambda flush: None
    mark: Callable[[Mark], None] | None = None
    set_language: Callable[[SetLanguage], SetLanguage] = _no_language
    teach: Callable[[Teach, Reply], None] | None = None
    set_program: Callable[[SceneName | Literal["auto"]], None] | None = None
    fitting: Mapping[str, object] | None = None
    health: Callable[[], Mapping[str, SessionHealth]] = lambda: {}
    open_ingest: Callable[[IngestStart], IngestSink] = _no_ingest
    takes_senders: Callable[[], bool] = lambda: False
    transcribe: Callable[[Upload], Iterator[Sequence[Event]]] = _no_uploads
    model: Callable[[], ModelFacts | None] = lambda: None


def capabilities(settings: ServerSettings, actions: Actions) -> tuple[str, ...]:
    """What `hello` says that this server can do."""
    marks = () if actions.mark is None else (MARK,)
    sets = () if _set_refusal(settings, SET) else (SET, *(() if actions.teach is None else (TEACH,)))
    programs = (PROGRAM,) if sets and actions.set_program is not None else ()
    return (*CAPABILITIES, *marks, *sets, *programs)


def carry_out(
    message: ClientMessage,
    settings: ServerSettings,
    actions: Actions,
    subscribe: Callable[[Subscribe], None],
    later: Callable[[dict[str, Any]], None],
) -> dict[str, Any] | None:
    """Do what a client asks; the answer, if there is one. Raises MessageError: its `error`.

    `later`, from any thread: what the client is told of it afterwards.
    """
    match message:
        case Subscribe():
            subscribe(message)
        case Ack():
            actions.ack(message)
        case Flush():
            actions.flush(message)
        case Mark():
            if actions.mark is None:
                raise MessageError("mark: this server keeps no history of alerts; see delivery.history.record")
            actions.mark(message)
        case SetLanguage():
            if refusal := _set_refusal(settings, SET):
                raise MessageError(refusal)
            done = actions.set_language(message)
            return _message(SET, session=done.session, language=shown_languages(done.language))
        case SetProgram():
            if refusal := _set_refusal(settings, SET):
                raise MessageError(refusal)
            if actions.set_program is None:
                raise MessageError("program: there is no hearing aid here; see --monitor")
            actions.set_program(message.program)
            return _message(SET, program=message.program)
        case Teach():
            if actions.teach is None:
                raise MessageError(
                    "teach: not allowed here; own_sounds.from_pages: true, beside server.allow_set, does"
                )
            if refusal := _set_refusal(settings, TEACH):
                raise MessageError(refusal)
            actions.teach(message, lambda news: later(_taught(news)))
        case Ping():
            return _message("pong")
    return None


def _taught(news: Taught | str) -> dict[str, Any]:
    return error(news) if isinstance(news, str) else _message(TAUGHT, **asdict(news))


def _set_refusal(settings: ServerSettings, what: str) -> str:
    """Why nobody may set anything, "" where those may who hold the token: nobody else is connected then."""
    if not settings.allow_set:
        return f"{what}: not allowed here; with server.allow_set: true, whoever holds the server's token may"
    if settings.token is None:
        return f"{what}: only for those who hold the server's token, and this server has none; it needs --token"
    return ""


def encode(message: Mapping[str, Any]) -> str:
    """A connection message as JSON text; ASCII, so that nothing a client sent can break the encoding."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False)


def _message(of_type: str, **fields: Any) -> dict[str, Any]:
    return {"v": PROTOCOL_VERSION, "type": of_type, **fields}


def error(detail: str) -> dict[str, Any]:
    """An `error` message."""
    return _message("error", detail=detail)


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
