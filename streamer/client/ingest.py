"""Sending sound to a Streamer: one sender is one session, whose events come back on the same socket.

    async with Ingest("http://localhost:8765", sample_rate=16_000) as ingest:
        await ingest.send_audio(pcm)
        await ingest.stop()
        async for event in ingest.events():
            …

A session ends with its connection, so nothing is opened again here; what was said stands in its events until then.
"""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from ssl import SSLContext
from types import TracebackType
from typing import Self

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidHandshake

from streamer.client.connection import NOT_ALLOWED, RefusedError, address, open_socket
from streamer.client.records import Error, EventsGap, Message, Started, Unknown, parse
from streamer.errors import StreamerError
from streamer.events import Event

PIECE = 2**19  # bytes of one message; a server takes 1 MiB


class Ingest:
    """One sender: `sample_rate` in Hz, interleaved `channels`; `source`: the entry of the server's `sources:` it is.

    `events` False: nothing but `started` and errors comes back. Read `events` while you send where you send for longer
    than seconds: what nobody reads fills the socket.
    """

    def __init__(
        self,
        url: str,
        *,
        sample_rate: int,
        channels: int = 1,
        token: str | None = None,
        source: str | None = None,
        events: bool = True,
        ssl: SSLContext | None = None,
    ) -> None:
        """`url`, `ssl`: as for `Client`."""
        self._ssl = ssl
        self._address, self._token = address(url, "ingest"), token
        self._start = {"type": "start", "sample_rate": sample_rate, "encoding": "pcm_s16le", "channels": channels}
        self._start |= ({"source": source} if source else {}) | ({"events": True} if events else {})
        self._socket: ClientConnection | None = None
        self.session = ""  # its name, once it is open

    async def __aenter__(self) -> Self:
        """Open the session. Raises RefusedError; OSError: nobody answers, or the machine carries no further sender."""
        try:
            async with AsyncExitStack() as unless_open:
                socket = await unless_open.enter_async_context(await open_socket(self._address, self._token, self._ssl))
                await socket.send(json.dumps(self._start))
                while not self.session:
                    message = parse(await socket.recv())
                    if isinstance(message, Error):
                        raise RefusedError(f"{self._address}: {message.detail}")
                    if isinstance(message, Started):
                        self.session = message.session
                self._socket = socket
                unless_open.pop_all()
        except ConnectionClosed as closed:
            why = f"{self._address}: {closed.rcvd.reason if closed.rcvd else 'closed'}"
            if closed.rcvd and closed.rcvd.code == NOT_ALLOWED:
                raise RefusedError(why) from None
            raise OSError(why) from None
        except InvalidHandshake as error:
            raise OSError(f"{self._address}: cannot connect: {error}") from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Go away: what was sent is heard to its end all the same."""
        if self._socket is not None:
            await self._socket.close()

    async def send_audio(self, pcm: bytes) -> None:
        """Send 16-bit little-endian PCM; waits where the server takes no more. Raises OSError: the session is over."""
        for at in range(0, len(pcm), PIECE):
            await self._send(pcm[at : at + PIECE])

    async def stop(self) -> None:
        """There is no more sound; the last events are still to come."""
        await self._send(json.dumps({"type": "stop"}))

    async def events(self) -> AsyncIterator[Event | EventsGap | Unknown]:
        """The session's events, to its last. Raises StreamerError: it broke off; OSError: the connection did."""
        async for message in self.messages():
            if isinstance(message, Event | EventsGap | Unknown):
                yield message

    async def messages(self) -> AsyncIterator[Event | Message]:
        """Events, and what the server says beside them (`Heartbeat`, `Error`)."""
        assert self._socket is not None, "use it in `async with`"
        try:
            async for text in self._socket:
                yield parse(text)
        except ConnectionClosedError as closed:
            if closed.rcvd is None:
                raise OSError(f"{self._address}: the connection broke off") from None
            raise StreamerError(f"{self._address}: {closed.rcvd.code} {closed.rcvd.reason}") from None

    async def _send(self, message: str | bytes) -> None:
        assert self._socket is not None, "use it in `async with`"
        try:
            await self._socket.send(message)
        except ConnectionClosed as closed:
            raise OSError(f"{self._address}: {closed.rcvd.reason if closed.rcvd else 'closed'}") from None
