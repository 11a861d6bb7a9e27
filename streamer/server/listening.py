"""Where the server listens and the clear words when it cannot; whom it works for, and what clients on `/ws` may ask.

Who may connect: `streamer.server.access`.
"""

import errno
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from streamer.errors import ConfigError
from streamer.server import messages
from streamer.server.ingest import IngestFullError, IngestSink, IngestStart, OpenIngest
from streamer.server.messages import (
    Ack,
    ClientMessage,
    Flush,
    Learn,
    Mark,
    MessageError,
    SessionHealth,
    SetLanguage,
    Subscribe,
)


def _no_health() -> Mapping[str, SessionHealth]:
    return {}


def _no_ingest(start: IngestStart) -> IngestSink:
    raise IngestFullError("ingest: this server takes no sound from clients")


def _no_language(message: SetLanguage) -> SetLanguage:
    raise MessageError("set: there is no session whose language could be set")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Where to listen and who may come; the names are those of the `server` settings. `port` 0: any free one."""

    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = field(default=None, repr=False)
    tls_cert: str | None = None
    tls_key: str | None = None
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    allow_set: bool = False
    allow_learn: bool = False
    max_clients: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """What clients can set going, and what the server asks for. All are called in the event loop and must not block.

    `ack`, `flush`, `mark`, `set_language` and `learn` may raise MessageError, which the client gets as an `error`.
    `mark` None: nobody keeps marks. `set_language` returns what holds now: the session's name, the languages as codes.
    `learn` returns the answer; None: nobody learns sounds.
    """

    ack: Callable[[Ack], None] = lambda ack: None
    flush: Callable[[Flush], None] = lambda flush: None
    mark: Callable[[Mark], None] | None = None
    set_language: Callable[[SetLanguage], SetLanguage] = _no_language
    learn: Callable[[Learn], dict[str, Any]] | None = None
    health: Callable[[], Mapping[str, SessionHealth]] = _no_health
    open_ingest: OpenIngest = _no_ingest


def tls_context(options: ServerOptions) -> ssl.SSLContext | None:
    """The TLS context of the options, None without a certificate. Raises ConfigError that names the option."""
    if options.tls_cert is None and options.tls_key is None:
        return None
    if options.tls_cert is None or options.tls_key is None:
        raise ConfigError("--tls-cert and --tls-key belong together: give both or neither")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for option, path in (("--tls-cert", options.tls_cert), ("--tls-key", options.tls_key)):
        try:
            with open(path, "rb"):
                pass
        except OSError as exc:
            raise ConfigError(f"{option}: cannot read {path!r}: {exc.strerror}; give a PEM file") from None
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key, password=lambda: b"")
    except (ssl.SSLError, OSError):
        raise ConfigError(
            f"--tls-cert: {options.tls_cert!r} and --tls-key {options.tls_key!r} are not a PEM certificate and its key"
        ) from None
    return context


def cannot_listen(options: ServerOptions, exc: OSError | OverflowError) -> ConfigError:
    """The one line that says why the address cannot be listened on."""
    if isinstance(exc, OverflowError):
        return ConfigError(f"--port: must be from 0 to 65535; is {options.port}")
    if isinstance(exc, socket.gaierror) or exc.errno == errno.EADDRNOTAVAIL:
        return ConfigError(f"--host: {options.host!r} is no address of this machine; try 127.0.0.1")
    if exc.errno == errno.EADDRINUSE:
        return ConfigError(f"--port: {options.port} is in use by another program; choose another one, or --no-server")
    if exc.errno == errno.EACCES:
        return ConfigError(f"--port: {options.port} needs more rights; choose one above 1023")
    return ConfigError(f"--port: cannot listen on {options.host}:{options.port}: {exc.strerror or exc}")


def capabilities(options: ServerOptions, actions: Actions) -> tuple[str, ...]:
    """What `hello` says that this server can do."""
    marks = () if actions.mark is None else (messages.MARK,)
    sets = () if _set_refusal(options) else (messages.SET,)
    learns = () if actions.learn is None or _learn_refusal(options) else (messages.LEARN,)
    return (*messages.CAPABILITIES, *marks, *sets, *learns)


def carry_out(
    message: ClientMessage, options: ServerOptions, actions: Actions, subscribe: Callable[[Subscribe], None]
) -> dict[str, Any] | None:
    """Do what a client asks; the answer, if there is one. Raises MessageError: its `error`."""
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
            if refusal := _set_refusal(options):
                raise MessageError(refusal)
            return messages.language_set(actions.set_language(message))
        case Learn():
            if refusal := _learn_refusal(options):
                raise MessageError(refusal)
            if actions.learn is None:
                raise MessageError("learn: this program does not learn sounds: it runs as fast as it goes")
            return actions.learn(message)
        case _:
            return messages.pong()
    return None


def _set_refusal(options: ServerOptions) -> str:
    """Why nobody may set anything, "" where those may who hold the token: nobody else is connected then."""
    return _token_refusal(options, options.allow_set, "set")


def _learn_refusal(options: ServerOptions) -> str:
    """As `_set_refusal`, for teaching sounds."""
    return _token_refusal(options, options.allow_learn, "learn")


def _token_refusal(options: ServerOptions, allowed: bool, what: str) -> str:
    if not allowed:
        return f"{what}: not allowed here; with server.allow_{what}: true, whoever holds the server's token may"
    if options.token is None:
        return f"{what}: only for those who hold the server's token, and this server has none; it needs --token"
    return ""
