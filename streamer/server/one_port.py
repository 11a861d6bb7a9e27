"""One port for websockets and for requests with a body: which of two libraries gets a connection, by its first line.

websockets answers the handshake and plain GETs, and knows no bodies. What OpenAI's API takes and gives over HTTP is
aiohttp's. Both are protocols of asyncio on the same listening socket, behind the same TLS: a connection is handed over
before either of them has seen a byte of it. aiohttp closes it behind its answer, so that nothing else can come on it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from websockets.asyncio.server import ServerConnection

from streamer.errors import ConfigError
from streamer.server.access import Access
from streamer.server.messages import Actions
from streamer.settings.serving import ServerSettings

FIRST_LINE_S = 5.0  # within which it must come
MAX_FIRST_LINE = 8192  # bytes, as long as websockets takes them

OpenHttp = Callable[[], asyncio.Protocol]


@dataclass(frozen=True, slots=True)
class HttpDoor:
    """The other library's half: the class of connections for `websockets.serve`, and how to end what is open."""

    connection: type[ServerConnection]
    close: Callable[[], Awaitable[None]]


async def openai_door(settings: ServerSettings, access: Access, actions: Actions) -> HttpDoor:
    """OpenAI's API over HTTP. Raises ConfigError where aiohttp is not installed."""
    try:
        from streamer.server.openai_http import open_http
    except ImportError:
        raise ConfigError("server.openai: needs aiohttp: pip install 'streamer[openai]'") from None
    runner = await open_http(settings, access, actions)
    assert runner.server is not None
    return HttpDoor(shared_with(runner.server), runner.cleanup)


def shared_with(http: OpenHttp) -> type[ServerConnection]:
    """The class of connections that `websockets.serve` is to make. `http` opens one for the other library."""

    class SharedConnection(ServerConnection):
        """A websocket connection, unless its first line asks for something of `/v1/` that is none."""

        _first: bytes | None = b""  # what came so far; None: it is a websocket's, or a page's

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._waiting = cast(asyncio.Transport, transport)
            self._impatience = asyncio.get_running_loop().call_later(FIRST_LINE_S, self._waiting.abort)

        def data_received(self, data: bytes) -> None:
            if self._first is None:
                super().data_received(data)
                return
            self._first += data
            if b"\n" not in self._first and len(self._first) < MAX_FIRST_LINE:
                return
            self._impatience.cancel()
            first, self._first = self._first, None
            if is_http(first):
                other = http()
                self._waiting.set_protocol(other)
                other.connection_made(self._waiting)
                other.data_received(first)
            else:
                super().connection_made(self._waiting)
                super().data_received(first)

        def eof_received(self) -> None:
            if self._first is None:
                super().eof_received()

        def connection_lost(self, exc: Exception | None) -> None:
            self._impatience.cancel()
            if self._first is None:
                super().connection_lost(exc)

    return SharedConnection


def is_http(first: bytes) -> bool:
    """Whether a request line is for the API below `/v1/`: all but the Realtime websocket."""
    method, _, rest = first.partition(b" ")
    path = rest.split(b" ", 1)[0].split(b"?", 1)[0]
    return bool(path.startswith(b"/v1/") and not (method == b"GET" and path == b"/v1/realtime"))
