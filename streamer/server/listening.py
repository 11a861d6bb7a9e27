"""Where the server listens, whom it works for, and the clear words when it cannot."""

import errno
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from streamer.errors import ConfigError
from streamer.server.ingest import IngestFullError, IngestSink, IngestStart, OpenIngest
from streamer.server.messages import Ack, Flush, Mark, MessageError, SessionHealth, SetLanguage


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
    max_clients: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """What clients can set going, and what the server asks for. All are called in the event loop and must not block.

    `ack`, `flush`, `mark` and `set_language` may raise MessageError, which the client gets as an `error`. `mark` None:
    nobody keeps marks. `set_language` returns what holds now: the session's name, the languages as codes.
    """

    ack: Callable[[Ack], None] = lambda ack: None
    flush: Callable[[Flush], None] = lambda flush: None
    mark: Callable[[Mark], None] | None = None
    set_language: Callable[[SetLanguage], SetLanguage] = _no_language
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
