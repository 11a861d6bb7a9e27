"""One socket below its messages: taken or refused before it costs anything, kept alive, closed.

Runs in the server's event loop. A connection that is refused here gets one short HTTP answer and no task of its own.
What the websocket library does not speak is answered here too: HEAD as GET without a body, other methods with 405, what
is no HTTP with 400.

websockets knows no requests with a body. What OpenAI's API takes and gives over HTTP is aiohttp's: both are protocols
of asyncio on the same listening socket, behind the same TLS and the same door, and a connection is handed over by its
first line, before either of them has seen a byte of it. aiohttp closes it behind its answer, so that nothing else can
come on it.
"""

import asyncio
import errno
import http
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from streamer.errors import ConfigError
from streamer.server.actions import Actions
from streamer.server.addresses import Addresses, Entrance
from streamer.settings.server import ServerSettings

try:
    import resource
except ImportError:  # Windows: no such limit
    resource = None  # type: ignore[assignment]

DONE, NOT_ALLOWED, TOO_LARGE, FAILED, RESTARTING, TRY_LATER = 1000, 1008, 1009, 1011, 1012, 1013  # RFC 6455, IANA
CLOSE_S = 3.0  # how long a closing handshake may take
PING_S = 20.0  # who says nothing for so long is asked
SILENT_S = 40.0  # who says nothing at all for so long is closed
STOPPED_S = 1.0  # who wakes up so late was stopped
FILES_KEPT = 32  # file descriptors that are kept for the rest of the program, at most a quarter of all there may be
TOLD_EVERY_S = 60.0  # the log says at most so often that connections are refused
LINGER_S = 0.5  # how long a refused socket may send, and is answered
LINGERING = 8  # such sockets at a time; more are closed at once
MAX_LINE = 8192  # bytes of a request's first line, as the library's
MAX_HEAD = 32 * 2**10  # bytes of a request's head; this library then refuses itself what is too long
HEAD_S = 5.0  # within which it must come, and the first line of everything where there are two libraries
TAKE_S = 60.0  # how long what waits for a client of the other library may wait
_LINE = re.compile(rb"([!-~]+) [!-~]+ HTTP/1\.[01]\r?\n")
_UPGRADE = re.compile(rb"^upgrade:", re.IGNORECASE | re.MULTILINE)
_BODY = re.compile(rb"^(content-length|transfer-encoding):[^\r\n]*\r\n", re.IGNORECASE | re.MULTILINE)
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_log = logging.getLogger(__name__)
OpenHttp = Callable[[], asyncio.Protocol]


class Door:
    """Which connections are taken. `refused` is told of each that is not, with a word for why."""

    def __init__(self, addresses: Addresses, refused: Callable[[str], None], now: Callable[[], float]) -> None:
        self._addresses, self._refused, self._now = addresses, refused, now
        self._told_s = float("-inf")
        self._lingering = 0

    def refusal(self, address: str, descriptor: int) -> bytes | None:
        """The answer to a connection that is not taken; None: it is, and `gone` is to be called at its end."""
        limit = _file_limit()
        if limit is not None and descriptor >= limit - min(FILES_KEPT, limit // 4):
            self.out_of_files()
            return plain_answer(503, "The server has too many connections; try in 10 s.\n", {"Retry-After": "10"})
        if not self._addresses.connect(address):
            self._refused("address")
            return plain_answer(429, "Too many connections of your address; close some.\n", {"Retry-After": "10"})
        return None

    def gone(self, address: str) -> None:
        """A connection that was taken is closed."""
        self._addresses.disconnect(address)

    def hold(self, transport: asyncio.Transport) -> bool:
        """Whether a refused connection may wait for its answer, at most `LINGER_S`; False: it was closed at once."""
        if self._lingering == LINGERING:
            transport.abort()
            return False

        def close() -> None:
            self._lingering -= 1
            transport.close()

        self._lingering += 1
        asyncio.get_running_loop().call_later(LINGER_S, close)
        return True

    def out_of_files(self) -> None:
        """One more connection was refused for want of file descriptors."""
        self._refused("files")
        if self._now() - self._told_s >= TOLD_EVERY_S:
            self._told_s = self._now()
            _log.warning(
                "the server refuses new connections: nearly all of the %s files that this process may open are open "
                "(ulimit -n); those who are connected are served",
                _file_limit(),
            )

    def on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception handler of the loop: a connection that could not even be accepted is one line, no traceback."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in _OUT_OF_FILES:
            self.out_of_files()
        else:
            loop.default_exception_handler(context)


@dataclass(frozen=True, slots=True)
class HttpDoor:
    """The other library's half: what takes one connection, and how to end what is open."""

    open: OpenHttp
    close: Callable[[], Awaitable[None]]


async def openai_door(settings: ServerSettings, entrance: Entrance, actions: Actions) -> HttpDoor:
    """OpenAI's API over HTTP. Raises ConfigError where aiohttp is not installed."""
    try:
        from streamer.server.openai_http import open_http
    except ImportError:
        raise ConfigError("server.openai: needs aiohttp: pip install '.[openai]' in Streamer's folder") from None
    runner = await open_http(settings, entrance, actions)
    assert runner.server is not None
    return HttpDoor(runner.server, runner.cleanup)


def is_http(first: bytes) -> bool:
    """Whether a request line is for the API below `/v1/`: all but the websockets of Realtime and of Deepgram's API."""
    method, _, rest = first.partition(b" ")
    path = rest.split(b" ", 1)[0].split(b"?", 1)[0]
    return bool(path.startswith(b"/v1/") and not (method == b"GET" and path in (b"/v1/realtime", b"/v1/listen")))


class GuardedConnection(ServerConnection):
    """A connection that went through a `Door`. `heard_s`: when anything came from the other side (the loop's time).

    `http` opens one for the other library; None: all requests are this one's. Where there are two, this one is told of
    the connection only when its first line is known not to be the other's: at the end of what it was told of, it
    closes the socket. The other one's bytes go through here both ways, so that the door is told of their end too.
    """

    def __init__(self, *args: Any, door: Door, http: OpenHttp | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._door, self._http = door, http
        self._admitted = False  # the door counts it
        self._waiting: asyncio.Transport | None = None  # until it is known which library gets it
        self._other: asyncio.Protocol | None = None  # the other library's end
        self._deadline: asyncio.TimerHandle | None = None  # of the present step: then it is cut off
        self._taken = False
        self._refused: tuple[asyncio.Transport, bytes] | None = None  # the answer that waits for the request
        self._line: bytes | None = b""  # the request's first line as far as it came; None: it was read
        self._head: bytes | None = b""  # the same of its head; None: the library has it
        self._answered = False  # the request is no websocket's: nothing behind its head matters
        self.peer = ""
        self.head = False  # the request is a HEAD
        self.heard_s = self.loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take it or refuse it."""
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("socket")
        self.peer = str(peer[0]) if isinstance(peer, tuple) else ""
        answer = self._door.refusal(self.peer, own.fileno())
        assert isinstance(transport, asyncio.Transport)
        if answer is None:
            self._admitted = self._taken = True
            if self._http is None:
                super().connection_made(transport)
            else:
                self._waiting = transport
                self._deadline = self.loop.call_later(HEAD_S, transport.abort)
        else:
            self._refused = (transport, answer) if self._door.hold(transport) else None

    def data_received(self, data: bytes) -> None:
        """Read the first line; the rest is a library's."""
        self.heard_s = self.loop.time()
        if self._other is not None:
            self._other.data_received(data)
            return
        if not self._taken:
            self._send_off()
            return
        if self._line is not None:
            self._line += data
            if b"\n" not in self._line and len(self._line) < MAX_LINE:
                return
            line = _LINE.match(self._line)
            if self._waiting is not None:
                if line and is_http(line[0]):
                    self._hand_over(self._waiting, self._line)
                    return
                self._set_deadline(None)
                transport, self._waiting = self._waiting, None
                super().connection_made(transport)
            data, self._line = self._line, None
            if line is None and len(data) < MAX_LINE:  # what is longer the library refuses
                self._refuse(plain_answer(400, "This is no HTTP/1.1 request.\n"))
                return
            if line and line[1] not in (b"GET", b"HEAD"):
                self._refuse(plain_answer(405, "Only GET and HEAD are understood here.\n", {"Allow": "GET, HEAD"}))
                return
            if line and line[1] == b"HEAD":
                self.head, data = True, b"GET" + data[4:]
        if self._head is not None:
            self._head += data
            head, end, _ = self._head.partition(b"\r\n\r\n")
            if not end and len(self._head) < MAX_HEAD:
                return
            data, self._head = self._head, None
            if end and not _UPGRADE.search(head):  # the body of a GET means nothing (RFC 9110); the library fails on it
                data, self._answered = _BODY.sub(b"", head + end), True
        elif self._answered:
            return
        super().data_received(data)

    async def taken(self) -> AsyncIterator[str | bytes]:
        """The messages. One that is only taken now is a sign of life too: before, nothing behind it was read."""
        async for message in self:
            self.heard_s = self.loop.time()
            yield message

    def eof_received(self) -> None:
        """Nothing more comes."""
        if self._other is not None:
            self._other.eof_received()
        elif self._taken and self._waiting is None:
            super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._set_deadline(None)
        if self._admitted:
            self._admitted = False
            self._door.gone(self.peer)
            if self._other is not None:
                self._other.connection_lost(exc)
            elif self._waiting is None:
                super().connection_lost(exc)

    def pause_writing(self) -> None:
        """More waits for the client than the socket takes."""
        if self._other is None:
            super().pause_writing()
        else:
            self._set_deadline(TAKE_S)
            self._other.pause_writing()

    def resume_writing(self) -> None:
        """It took it."""
        if self._other is None:
            super().resume_writing()
        else:
            self._set_deadline(None)
            self._other.resume_writing()

    def _hand_over(self, transport: asyncio.Transport, head: bytes) -> None:
        """Give a request to the other library, once all of its head is there: that has no deadline for it."""
        if b"\r\n\r\n" not in head:
            if len(head) > MAX_HEAD:
                transport.abort()
            return
        assert self._http is not None
        self._set_deadline(None)
        self._line, self._waiting, self._other = None, None, self._http()
        self.transport = transport
        transport.set_write_buffer_limits(1, 0)  # so that `TAKE_S` counts for the last byte too
        self._other.connection_made(transport)
        self._other.data_received(head)

    def _set_deadline(self, after_s: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if after_s is None else self.loop.call_later(after_s, self.transport.abort)

    def _refuse(self, answer: bytes) -> None:
        self._taken = False
        self._refused = (self.transport, answer) if self._door.hold(self.transport) else None
        self._send_off()

    def _send_off(self) -> None:
        """Answer a refused request, once it began to come: clients are not made for an answer before they asked.

        What comes behind it is thrown away until the door closes: left unread, it would reset the answer.
        """
        if self._refused is not None:
            transport, answer = self._refused
            self._refused = None
            transport.write(answer)
            if transport.can_write_eof():
                transport.write_eof()


async def keep_alive(connection: GuardedConnection) -> None:
    """Ask who is silent for a pong and close who says nothing at all, until the connection is closed.

    Anything that comes is a sign of life: the pong of one who sends much stands in line behind it. Time in which this
    process was stopped (a machine or container that was paused) is no silence of theirs.
    """
    loop = asyncio.get_running_loop()
    with suppress(ConnectionClosed):
        while True:
            silent_s = loop.time() - connection.heard_s
            if silent_s >= SILENT_S:
                await close(connection, TRY_LATER, f"too slow: no sign of life for {SILENT_S:.0f} s")
                return
            if silent_s >= PING_S:
                with suppress(TimeoutError):
                    async with asyncio.timeout(SILENT_S - silent_s):
                        await connection.ping()
            awake_s = loop.time() + max(0.01, PING_S - silent_s if silent_s < PING_S else SILENT_S - silent_s)
            await asyncio.sleep(awake_s - loop.time())
            if (late_s := loop.time() - awake_s) > STOPPED_S:
                connection.heard_s = min(connection.heard_s + late_s, loop.time())


async def close(connection: ServerConnection, code: int, reason: str) -> None:
    """Close, and cut off a client that does not even take the closing frame."""
    try:
        async with asyncio.timeout(CLOSE_S + 1):
            await connection.close(code, reason)
    except TimeoutError:
        connection.transport.abort()


def plain_answer(status: int, text: str, headers: dict[str, str] | None = None) -> bytes:
    """An HTTP answer to what never becomes a request."""
    body = text.encode()
    lines = {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "Connection": "close",
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n{head}\r\n".encode() + body


def _file_limit() -> int | None:
    """How many files this process may have open; None: as many as it likes."""
    if resource is None:
        return None
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else int(soft)
