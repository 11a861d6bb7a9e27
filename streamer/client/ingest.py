"""Sending sound to a Streamer: one sender is one session, whose events come back on the same socket.

    async with Ingest("http://localhost:8765", sample_rate=16_000) as ingest:
        await ingest.send_audio(pcm)
        await ingest.stop()
        async for event in ingest.events():
            …

A session ends with its connection, but for servers of a cluster (`resume` in `hello.capabilities`): there it goes on at
another one, by itself, and what the last seconds held is sent again. What nobody has any more is a `gap` in its events.
"""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from ssl import SSLContext
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from streamer.client.connection import (
    NOT_ALLOWED,
    RECONNECT,
    SILENT_S,
    RefusedError,
    address,
    number_of,
    open_socket,
    rest_s,
)
from streamer.client.records import Error, EventsGap, Hello, Message, Started, Unknown, parse
from streamer.errors import StreamerError
from streamer.events import Event

PIECE = 2**19  # bytes of one message; a server takes 1 MiB
KEPT_S = 60.0  # of sound that was sent: another server may ask for it again
STOP = json.dumps({"type": "stop"})
KEPT_BYTES = 16 * 2**20  # of it, at most
DONE, GOING_AWAY, TOO_LARGE = 1000, 1001, 1009  # close codes

log = logging.getLogger(__name__)


class Ingest:
    """One sender: `sample_rate` in Hz, interleaved `channels`; `source`: the entry of the server's `sources:` it is.

    `events` False: nothing but `started` and errors comes back. Read `events` while you send where you send for longer
    than seconds: what nobody reads fills the socket.

    `resume_s`: for so long it is tried to go on with the session where the server can (0: never); meanwhile
    `send_audio` waits, and the newest `KEPT_S` of what was sent are kept.
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
        resume_s: float = 60.0,
    ) -> None:
        """`url`, `ssl`: as for `Client`."""
        self._ssl, self._resume_s = ssl, resume_s
        self._tells, self._frame_bytes, self._rate = events, 2 * channels, sample_rate
        self._resumes = self._stopped = self._left = False
        self._kept, self._kept_from = bytearray(), 0  # the newest sound, and the place of its first byte
        self._turn = asyncio.Lock()  # of who sends, or opens the connection again
        self._newest = 0  # number of the last event that was handed on
        self._address, self._token = address(url, "ingest"), token
        self._start = {"type": "start", "sample_rate": sample_rate, "encoding": "pcm_s16le", "channels": channels}
        self._start |= ({"source": source} if source else {}) | ({"events": True} if events else {})
        self._socket: ClientConnection | None = None
        self.session = ""  # its name, once it is open

    async def __aenter__(self) -> Self:
        """Open the session. Raises RefusedError; OSError: nobody answers, or the machine carries no further sender."""
        self._socket, started = await self._open(self._start)
        self.session = started.session
        return self

    async def _open(self, start: dict[str, Any]) -> tuple[ClientConnection, Started]:
        """A connection on which the session begins, or goes on. Raises RefusedError, OSError."""
        try:
            async with AsyncExitStack() as unless_open:
                socket = await unless_open.enter_async_context(await open_socket(self._address, self._token, self._ssl))
                await socket.send(json.dumps(start))
                while True:
                    message = parse(await socket.recv())
                    if isinstance(message, Hello):
                        self._resumes = "resume" in message.capabilities and self._resume_s > 0
                    if isinstance(message, Error):
                        raise RefusedError(f"{self._address}: {message.detail}")
                    if isinstance(message, Started):
                        unless_open.pop_all()
                        return socket, message
        except ConnectionClosed as closed:
            why = f"{self._address}: {closed.rcvd.reason if closed.rcvd else 'closed'}"
            if closed.rcvd and closed.rcvd.code == NOT_ALLOWED:
                raise RefusedError(why) from None
            raise OSError(why) from None
        except InvalidHandshake as error:
            raise OSError(f"{self._address}: cannot connect: {error}") from None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Go away: what was sent is heard to its end all the same."""
        self._left = True
        if self._socket is not None:
            await self._socket.close()

    async def send_audio(self, pcm: bytes) -> None:
        """Send 16-bit little-endian PCM; waits where the server takes no more. Raises OSError: the session is over."""
        for at in range(0, len(pcm), PIECE):
            async with self._turn:
                self._keep(pcm[at : at + PIECE])
                await self._send(pcm[at : at + PIECE])

    async def stop(self) -> None:
        """There is no more sound; the last events are still to come."""
        async with self._turn:
            self._stopped = True
            await self._send(STOP)

    async def events(self) -> AsyncIterator[Event | EventsGap | Unknown]:
        """The session's events, to its last. Raises StreamerError: it broke off; OSError: the connection did."""
        async for message in self.messages():
            if isinstance(message, Event | EventsGap | Unknown):
                yield message

    async def messages(self) -> AsyncIterator[Event | Message]:
        """Events, and what the server says beside them (`Heartbeat`, `Error`)."""
        assert self._socket is not None, "use it in `async with`"
        while True:
            socket = self._socket
            try:
                async for message in self._received(socket):
                    yield message
                return
            except ConnectionClosed as closed:
                async with self._turn:
                    if self._socket is socket and not await self._went_on(closed):
                        if closed.rcvd is None:
                            raise OSError(f"{self._address}: the connection broke off") from None
                        raise StreamerError(f"{self._address}: {closed.rcvd.code} {closed.rcvd.reason}") from None

    async def _received(self, socket: ClientConnection) -> AsyncIterator[Event | Message]:
        """What comes on one connection, without the events that came before. Raises ConnectionClosed: not as wished."""
        try:
            while True:
                try:
                    async with asyncio.timeout(SILENT_S if self._resumes and self._tells else None):
                        message = parse(await socket.recv())
                except TimeoutError:  # it looks open and is not: whoever sends on it learns it, too
                    socket.transport.abort()
                    continue
                number = message.to_seq if isinstance(message, EventsGap) else (number_of(message) or ("", None))[1]
                if number is not None:
                    if number <= self._newest:
                        continue
                    self._newest = number
                yield message
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else None
            if not (self._left or code == DONE or (code == GOING_AWAY and not self._resumes)):
                raise

    async def _send(self, message: str | bytes) -> None:
        """Send, with the turn; what goes on elsewhere was sent there. Raises OSError."""
        assert self._socket is not None, "use it in `async with`"
        try:
            await self._socket.send(message)
        except ConnectionClosed as closed:
            if not await self._went_on(closed):
                raise OSError(f"{self._address}: {closed.rcvd.reason if closed.rcvd else 'closed'}") from None

    def _keep(self, pcm: bytes) -> None:
        """Have the newest sound at hand."""
        if not self._resumes:
            return
        self._kept += pcm
        most = min(round(KEPT_S * self._rate) * self._frame_bytes, KEPT_BYTES)
        if len(self._kept) > 2 * most:  # seldom, as it moves all that is kept
            cut = (len(self._kept) - most) // self._frame_bytes * self._frame_bytes
            self._kept_from += cut
            del self._kept[:cut]

    async def _went_on(self, closed: ConnectionClosed) -> bool:
        """Go on with the session at whichever server answers, with the turn; False: it is over."""
        code = closed.rcvd.code if closed.rcvd else None
        if not self._resumes or code in (DONE, NOT_ALLOWED, TOO_LARGE):
            return False
        now = asyncio.get_running_loop().time
        end_s, failures, wait_s = now() + self._resume_s, 0, 0.0 if code == RECONNECT else rest_s(0)
        while now() + wait_s <= end_s:
            await asyncio.sleep(wait_s)
            if self._left:
                break
            oldest_s = self._kept_from / self._frame_bytes / self._rate
            try:
                socket, started = await self._open(self._start | {"session": self.session, "audio_t": oldest_s})
                await self._send_again(socket, started.audio_t or 0.0)
            except RefusedError as error:
                log.info("%s", error)
                break
            except (OSError, ConnectionClosed) as error:
                log.info("%s: session %s cannot go on yet: %s", self._address, self.session, error)
                failures += 1
                asked = re.search(r"try in (\d+) s", str(error))
                wait_s = float(asked[1]) if asked else rest_s(failures)
            else:
                self._socket = socket
                return True
        return False

    async def _send_again(self, socket: ClientConnection, audio_t: float) -> None:
        """Send what is kept from there on. Raises ConnectionClosed."""
        log.info("session %s goes on at %.2f s", self.session, audio_t)
        first = round(audio_t * self._rate) * self._frame_bytes - self._kept_from
        for at in range(max(0, first), len(self._kept), PIECE):
            await socket.send(bytes(self._kept[at : at + PIECE]))
        if self._stopped:
            await socket.send(STOP)
