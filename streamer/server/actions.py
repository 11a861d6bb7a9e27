"""What clients can set going, and what the server asks of the program: functions that the program gives it (`Actions`).

`carry_out` does what a message asks, or says why not.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from streamer.errors import StreamerError
from streamer.events import Event, SceneName
from streamer.server import messages
from streamer.server.messages import (
    CAPABILITIES,
    MARK,
    PROGRAM,
    RESUME,
    SET,
    TEACH,
    Ack,
    ClientMessage,
    Flush,
    IngestStart,
    Mark,
    MessageError,
    Ping,
    SessionHealth,
    SetLanguage,
    SetProgram,
    Subscribe,
    Taught,
    Teach,
)
from streamer.settings.server import ServerSettings

Reply = Callable[[Taught | str], None]  # a string: why not, one line for an `error` message


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


async def _no_metrics() -> str:
    return ""


async def _nowhere_else(session: str) -> None:
    """All sessions that there are, are here."""


def _not_passed_on(message: Ack | Flush) -> None:
    """Nobody else has sessions."""


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

    In a cluster: `seek` has a session that another server has mirrored here (`server/mirrored.py`), and returns when it
    is or is not found, within seconds, MessageError: too many are; `pass_on` sends on what one of its readers wants;
    `resumes`: senders of servers that are gone are heard further here. `metrics`: what else there is to count, in
    Prometheus' text format.
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
    seek: Callable[[str], Awaitable[None]] = _nowhere_else
    pass_on: Callable[[Ack | Flush], None] = _not_passed_on
    resumes: bool = False
    metrics: Callable[[], Awaitable[str]] = _no_metrics


def capabilities(settings: ServerSettings, actions: Actions) -> tuple[str, ...]:
    """What `hello` says that this server can do."""
    marks = () if actions.mark is None else (MARK,)
    sets = () if _set_refusal(settings, SET) else (SET, *(() if actions.teach is None else (TEACH,)))
    programs = (PROGRAM,) if sets and actions.set_program is not None else ()
    resumes = (RESUME,) if actions.resumes else ()
    return (*CAPABILITIES, *marks, *sets, *programs, *resumes)


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
            return messages.language_set(actions.set_language(message))
        case SetProgram():
            if refusal := _set_refusal(settings, SET):
                raise MessageError(refusal)
            if actions.set_program is None:
                raise MessageError("program: there is no hearing aid here; see --monitor")
            actions.set_program(message.program)
            return messages.program_set(message.program)
        case Teach():
            if actions.teach is None:
                raise MessageError(
                    "teach: not allowed here; own_sounds.from_pages: true, beside server.allow_set, does, "
                    "but in a cluster"
                )
            if refusal := _set_refusal(settings, TEACH):
                raise MessageError(refusal)
            actions.teach(message, lambda news: later(messages.taught(news)))
        case Ping():
            return messages.pong()
    return None


def _set_refusal(settings: ServerSettings, what: str) -> str:
    """Why nobody may set anything, "" where those may who hold the token: nobody else is connected then."""
    if not settings.allow_set:
        return f"{what}: not allowed here; with server.allow_set: true, whoever holds the server's token may"
    if settings.token is None:
        return f"{what}: only for those who hold the server's token, and this server has none; it needs --token"
    return ""
