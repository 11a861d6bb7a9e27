"""One port for websockets and for requests with a body: which of two libraries gets a connection, by its first line.

websockets answers the handshake and plain GETs, and knows no bodies. What OpenAI's API takes and gives over HTTP is
aiohttp's. Both are protocols of asyncio on the same listening socket, behind the same TLS and the same door
(`sockets.GuardedConnection`): a connection is handed over before either of them has seen a byte of it. aiohttp closes
it behind its answer, so that nothing else can come on it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from streamer.errors import ConfigError
from streamer.server.actions import Actions
from streamer.server.addresses import Entrance
from streamer.settings.server import ServerSettings

OpenHttp = Callable[[], asyncio.Protocol]


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
