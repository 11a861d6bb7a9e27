"""The clients on `/ws`: what each may say, and its task that sends what the hub has for it.

Everything runs in the server's event loop; the hub is shared with the threads that publish, under one lock that is held
only for moments: nothing waits for a socket while holding it. A slow reader delays nobody; how far it may fall behind
stands in `streamer.server.hub`.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from streamer.server import messages
from streamer.server.access import Allowance
from streamer.server.actions import Actions, carry_out
from streamer.server.follow import STALL_S
from streamer.server.hub import Connection, Hub
from streamer.server.messages import Ack, ClientMessage, Flush, MessageError, Ping, SetProgram, Subscribe
from streamer.server.sockets import FAILED, NOT_ALLOWED, TOO_LARGE, TRY_LATER, close
from streamer.settings.server import ServerSettings

HOLD_S = 0.5  # a client that subscribes within this time gets its replay before the live events
MAX_MESSAGE = 64 * 2**10  # bytes, from a client on /ws

_log = logging.getLogger(__name__)
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


@dataclass(slots=True, eq=False)
class _Client:
    socket: ServerConnection
    connection: Connection
    wake: asyncio.Event
    messages: Allowance
    bad_messages: Allowance
    closing: tuple[int, str] | None = None  # close so when everything is sent


class Readers:
    """All clients on `/ws` of one server. `lock` is the one around `hub`; `spawn` starts a task of the server."""

    def __init__(
        self, hub: Hub, lock: threading.Lock, settings: ServerSettings, actions: Actions, spawn: Spawn
    ) -> None:
        self._hub, self._lock, self._settings, self._actions, self._spawn = hub, lock, settings, actions, spawn
        self._clients: set[_Client] = set()

    def __len__(self) -> int:
        return len(self._clients)

    @property
    def sockets(self) -> list[ServerConnection]:
        """Their connections."""
        return [client.socket for client in self._clients]

    @property
    def show_levels(self) -> bool:
        """Whether anybody wants to know how loud it is."""
        return any(messages.LEVEL in (client.connection.types or ()) for client in self._clients)

    def wake(self) -> None:
        """There is something new: have all look; close who is too far behind."""
        with self._lock:
            overdue = set(self._hub.overdue())
        for client in self._clients:
            client.wake.set()
            if client.connection in overdue and client.closing is None:
                client.closing = (TRY_LATER, "too slow")
                self._spawn(close(client.socket, *client.closing))

    def close_all(self, code: int, reason: str) -> None:
        """Close each once it was sent what is left for it."""
        for client in self._clients:
            client.closing = (code, reason)
            self._release(client)

    async def serve(self, socket: ServerConnection, query: str) -> None:
        """Serve one client until it goes away or is closed."""
        now = asyncio.get_running_loop().time
        sought = messages.sought_in_query(query)
        if sought:
            with suppress(MessageError):  # the subscription says it
                await self._actions.seek(sought)
        with self._lock:
            client = _Client(
                socket,
                self._hub.connect(held=True, session=sought),
                asyncio.Event(),
                messages=Allowance(200, 50, now),
                bad_messages=Allowance(20, 0.5, now),
            )
        self._clients.add(client)
        sender = self._spawn(self._send(client))
        release = asyncio.get_running_loop().call_later(HOLD_S, self._release, client)
        try:
            try:
                if wish := messages.subscribe_from_query(query):
                    self._subscribe(client, wish)
            except ValueError as exc:
                self._notify(client, messages.error(f"address: {exc}"))
            async for message in socket:
                if not await self._on_message(client, message):
                    break
        except ConnectionClosed:
            pass
        finally:
            release.cancel()
            self._clients.discard(client)
            with self._lock:
                self._hub.disconnect(client.connection)
            sender.cancel()

    async def _on_message(self, client: _Client, message: str | bytes) -> bool:
        """Do what a client asks; False when the connection was closed for it."""
        if len(message) > MAX_MESSAGE:
            await close(client.socket, TOO_LARGE, f"messages are at most {MAX_MESSAGE} bytes")
            return False
        try:
            wish, answer = messages.parse(message), None
            if isinstance(wish, Subscribe) and wish.session:
                await self._actions.seek(wish.session)
            if not self._passed_on(wish):
                answer = carry_out(
                    wish, self._settings, self._actions, lambda wish: self._subscribe(client, wish), self._later(client)
                )
            good = answer is None or self._notify(client, answer)  # it may not fit: then the client does not read
        except MessageError as exc:
            good = client.bad_messages.spend() and self._notify(client, messages.error(str(exc)))
        if not good or not client.messages.spend():
            await close(client.socket, NOT_ALLOWED, "too many messages")
            return False
        return True

    def _subscribe(self, client: _Client, wish: Subscribe) -> None:
        with self._lock:
            self._hub.subscribe(client.connection, wish)
        if wish.unknown:
            known = ", ".join(sorted(messages.EVENT_TYPES))
            self._notify(client, messages.error(f"types: {', '.join(wish.unknown)} unknown; there are {known}"))
        client.wake.set()

    def _passed_on(self, wish: ClientMessage) -> bool:
        """Send on what a client wants of a session that another server has. Raises MessageError: that cannot be."""
        session = None if isinstance(wish, Subscribe | Ping | SetProgram) else wish.session
        with self._lock:
            if session is None or not self._hub.is_mirrored(session):
                return False
        if not isinstance(wish, Ack | Flush):
            raise MessageError(f"session: {session} is heard by another server; from here only ack and flush reach it")
        self._actions.pass_on(wish)
        return True

    def _notify(self, client: _Client, message: Mapping[str, Any]) -> bool:
        with self._lock:
            queued = self._hub.notify(client.connection, message)
        client.wake.set()
        return queued

    def _later(self, client: _Client) -> Callable[[Mapping[str, Any]], None]:
        """What tells a client something from any thread; where it is gone, or the server, nobody is told."""
        loop = asyncio.get_running_loop()

        def tell(message: Mapping[str, Any]) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._notify, client, message)

        return tell

    def _release(self, client: _Client) -> None:
        with self._lock:
            client.connection.held = False
        client.wake.set()

    async def _send(self, client: _Client) -> None:
        """The sending task of one client: the only one that writes events to its socket."""
        try:
            while True:
                client.wake.clear()
                with self._lock:
                    batch = self._hub.drain(client.connection)
                for text in batch:
                    async with asyncio.timeout(STALL_S):
                        await client.socket.send(text)
                if not batch:
                    if client.closing is not None:
                        await close(client.socket, *client.closing)
                        return
                    await client.wake.wait()
        except ConnectionClosed:
            return
        except TimeoutError:
            await close(client.socket, TRY_LATER, "too slow")
        except Exception:  # noqa: BLE001 - the top of a task: one client's failure is only its own
            _log.exception("sending to a client failed")
            await close(client.socket, FAILED, "internal error")
