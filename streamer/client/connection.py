"""A program's connection to a Streamer: events in order, each once, whatever happens to the network in between.

    async with Client("http://localhost:8765", token="…") as client:
        async for event in client.events():
            if isinstance(event, Transcript) and event.final:
                print(event.text)

Everything runs in the caller's event loop; nothing waits but `events`, `messages` and what sends. A connection that
breaks is opened again, after a rest that grows to `RETRY_MAX_S`, with the number of the last event that was handed on:
what the server still has of what came meanwhile comes then, what it has not is told by an `EventsGap`.
"""

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from ssl import SSLContext
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from streamer.client.records import EventsGap, Hello, Message, Unknown, parse
from streamer.errors import StreamerError
from streamer.events import Event

RETRY_S, RETRY_MAX_S = 0.5, 15.0
SILENT_S = 25.0  # a server says something every 5 s: who does not for so long is gone
NOT_ALLOWED, RECONNECT = 1008, 4000  # close codes
MAX_MESSAGE = 16 * 2**20  # bytes of one event

log = logging.getLogger(__name__)


class RefusedError(StreamerError):
    """The server does not let this client in: its token, or what it asked for. To try again would not help."""


class Client:
    """One reader of `/ws`.

    `types`: of events and messages that are wanted, None: all but `level` and `marks`; `session`: whose, None: all.
    `since_seq`: at first, also what is known from behind this number (0: everything); None: from now on. `token`: the
    server's. `reconnect` False: the end of the connection is the end of the events.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        types: Collection[str] | None = None,
        session: str | None = None,
        since_seq: int | None = None,
        reconnect: bool = True,
        ssl: SSLContext | None = None,
    ) -> None:
        """`url`: of the server (`http://…`, `https://…`, `ws://…`), with the path below which it is found, if any.

        `ssl`: which certificates are believed; None: those that the system believes.
        """
        self._ssl = ssl
        # a server of a cluster that does not have the session looks for it, and says so in its `hello`
        query = urlencode({"for": session}) if session else ""
        self._address, self._token, self._reconnect = address(url, "ws", query), token, reconnect
        self._types, self._session, self._first_seq = types, session, since_seq
        self._socket: ClientConnection | None = None
        self._run = ""  # of the server; numbers of another run mean nothing
        self._newest: dict[str, int] = {}  # session -> number of the last event that was handed on
        self.hello: Hello | None = None  # the newest

    async def __aenter__(self) -> Self:
        """Connect. Raises RefusedError, or OSError where nobody answers and `reconnect` is off."""
        failures = 0
        while self._socket is None:
            try:
                self._socket = await self._open()
            except (OSError, TimeoutError, InvalidHandshake) as error:
                if not self._reconnect:
                    raise OSError(f"{self._address}: cannot connect: {error}") from None
                log.info("%s: cannot connect: %s", self._address, error)
                await asyncio.sleep(rest_s(failures))
                failures += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connection; `events` ends."""
        self._reconnect = False
        if self._socket is not None:
            await self._socket.close()

    async def events(self) -> AsyncIterator[Event | EventsGap | Unknown]:
        """Session events, gaps between them, and what this version does not know. Raises RefusedError."""
        async for message in self.messages():
            if isinstance(message, Event | EventsGap | Unknown):
                yield message

    async def messages(self) -> AsyncIterator[Event | Message]:
        """Everything, with `Hello` at the begin of each connection and a `Heartbeat` every five seconds."""
        failures = 0
        while True:
            code = None
            if self._socket is not None:
                try:
                    async for message in self._receive(self._socket):
                        failures = 0
                        yield message
                except ConnectionClosed as closed:
                    code = closed.rcvd.code if closed.rcvd else None
                    if code == NOT_ALLOWED:
                        raise RefusedError(f"{self._address}: {closed.rcvd.reason if closed.rcvd else ''}") from None
                except TimeoutError:
                    log.info("%s: nothing came for %.0f s", self._address, SILENT_S)
                    await self._socket.close()
            if not self._reconnect:
                return
            if code != RECONNECT or failures:
                await asyncio.sleep(rest_s(failures))
            failures += 1
            try:
                self._socket = await self._open() if self._reconnect else None
            except (OSError, TimeoutError, InvalidHandshake) as error:
                self._socket = None
                log.info("%s: cannot connect: %s", self._address, error)
            if self._socket is not None and not self._reconnect:  # left meanwhile, by another task
                await self._socket.close()

    async def acknowledge(self, alert: int, session: str | None = None) -> None:
        """A person has seen this alert. `session` may be left out where there is one source."""
        await self.send({"type": "ack", "id": alert, "session": session})

    async def mark(self, alert: int, session: str | None = None, *, false_alarm: bool = True) -> None:
        """An alert was a false alarm, or was not after all; where `hello.capabilities` has `mark`."""
        await self.send({"type": "mark", "id": alert, "session": session, "false_alarm": false_alarm})

    async def flush(self, session: str | None = None) -> None:
        """The open segment becomes final now."""
        await self.send({"type": "flush", "session": session})

    async def set_language(self, language: str, session: str | None = None) -> None:
        """Which languages come into question, where `hello.capabilities` has `set`; `LanguageSet` or `Error` answer."""
        await self.send({"type": "set", "language": language, "session": session})

    async def ping(self) -> None:
        """Ask for a `Pong`."""
        await self.send({"type": "ping"})

    async def send(self, message: dict[str, Any]) -> None:
        """Say something of docs/protocol.md; fields that are None are left out. Raises OSError: not connected now."""
        if self._socket is None:
            raise OSError(f"{self._address}: not connected")
        try:
            await self._socket.send(_encoded(message))
        except ConnectionClosed:
            raise OSError(f"{self._address}: not connected") from None

    async def _open(self) -> ClientConnection:
        return await open_socket(self._address, self._token, self._ssl)

    async def _receive(self, socket: ClientConnection) -> AsyncIterator[Event | Message]:
        """What comes on one connection, without what came before. Raises ConnectionClosed, TimeoutError."""
        while True:
            async with asyncio.timeout(SILENT_S):
                text = await socket.recv()
            message = parse(text)
            if isinstance(message, Hello):
                await self._greet(socket, message)
            elif isinstance(message, EventsGap):
                had = self._newest.get(message.session, 0)
                if message.to_seq <= had:
                    continue
                self._newest[message.session] = message.to_seq
                message = replace(message, from_seq=max(message.from_seq, had + 1))
            elif (number := number_of(message)) is not None:
                session, seq = number
                if seq <= self._newest.get(session, 0):
                    continue
                self._newest[session] = seq
            yield message

    async def _greet(self, socket: ClientConnection, hello: Hello) -> None:
        """Subscribe. One number stands for all sessions: the lowest that is needed; what comes twice is left out.

        Raises ConnectionClosed.
        """
        if hello.run != self._run:
            self._newest.clear()
        first = self.hello is None
        self._run, self.hello = hello.run, hello
        wanted = [one for one in hello.sessions if self._session in (None, one.session)]
        if first and self._first_seq is None:
            self._newest |= {one.session: one.last_seq for one in wanted}
        start = self._first_seq or 0 if first else 0
        since = [(self._newest.get(one.session, start), one.last_seq) for one in wanted]
        behind = [seq for seq, last in since if seq < last]
        subscribe: dict[str, Any] = {"type": "subscribe", "session": self._session}
        subscribe["types"] = None if self._types is None else sorted(self._types)
        await socket.send(_encoded(subscribe | {"since_seq": min(behind) if behind else None}))


def address(url: str, path: str, query: str = "") -> str:
    """The websocket of a server. Raises ValueError: this is no address of one."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    if scheme is None or not parts.netloc:
        raise ValueError(f"url: must be an address such as http://localhost:8765; is {url!r}")
    return urlunsplit((scheme, parts.netloc, f"{parts.path.rstrip('/')}/{path}", query, ""))


async def open_socket(where: str, token: str | None, ssl: SSLContext | None) -> ClientConnection:
    """A connection. Raises RefusedError for an answer that will not change, else OSError, InvalidHandshake."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        encrypted: dict[str, Any] = {} if ssl is None else {"ssl": ssl}
        return await connect(where, additional_headers=headers, max_size=MAX_MESSAGE, ping_timeout=None, **encrypted)
    except InvalidStatus as error:
        status = error.response.status_code
        if status in (400, 401, 403, 404):
            raise RefusedError(f"{where}: answered {status}: {(error.response.body or b'').decode().strip()}") from None
        raise


def rest_s(failures: int) -> float:
    """How long to wait after so many failures in a row; not all clients of a server come back at once."""
    return min(RETRY_MAX_S, RETRY_S * 2.0 ** min(failures, 10)) * random.uniform(0.75, 1.25)


def _encoded(message: dict[str, Any]) -> str:
    """A message as it is sent: fields that are None are left out."""
    return json.dumps({name: value for name, value in message.items() if value is not None})


def number_of(message: Event | Message) -> tuple[str, int] | None:
    """Session and number of an event, also of one that this version does not know."""
    if isinstance(message, Event):
        return message.session, message.seq
    if isinstance(message, Unknown):
        session, seq = message.fields.get("session"), message.fields.get("seq")
        return (session, seq) if isinstance(session, str) and isinstance(seq, int) else None
    return None
