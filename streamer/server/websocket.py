"""The server: pages, `/ws` for events and `/ingest` for sound on one port, in a thread of its own.

What others speak too, if the settings say so: OpenAI's API below `/v1/` on the same port, Wyoming on its own.

The thread runs one event loop, which owns all sockets and their tasks. The hub is shared with the threads that publish,
under one lock that is held only for moments: nothing waits for a socket while holding it. Every connection has a task
of its own that sends, so a slow reader delays nobody; how far it may fall behind stands in `streamer.server.hub`.
"""

import asyncio
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.server import Server as ListeningServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from streamer.errors import ConfigError
from streamer.events import Event
from streamer.server import messages
from streamer.server.access import Access, Allowance, cannot_listen, tls_context
from streamer.server.closing import CLOSE_S, DONE, FAILED, NOT_ALLOWED, TOO_LARGE, TRY_LATER, close, see_off
from streamer.server.follow import STALL_S, Followers, tell
from streamer.server.hub import Connection, Hub, HubLimits
from streamer.server.ingest import MAX_SENDERS, receive
from streamer.server.messages import Actions, MessageError, SessionInfo, Subscribe, capabilities, carry_out
from streamer.server.one_port import openai_door
from streamer.server.pages import Pages, asked_by
from streamer.server.realtime import Conversation
from streamer.server.wyoming import WyomingDoor
from streamer.settings.serving import ServerSettings

HEARTBEAT_S = 5.0
LEVEL_S = 0.25
HOLD_S = 0.5  # a client that subscribes within this time gets its replay before the live events
DRAIN_S = 1.0  # how long clients may take what is left at the end
START_S = 10.0  # within which the server must listen
STOP_S = 2.0  # within which `stop` returns
REALTIME = "/v1/realtime"
SENDING = ("/ingest", REALTIME)  # where clients send sound
MAX_EVENTS_MESSAGE = 64 * 2**10  # bytes, from a client on /ws
MAX_MESSAGE = 2**20  # bytes, on /ingest

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Client:
    socket: ServerConnection
    connection: Connection
    wake: asyncio.Event
    messages: Allowance
    bad_messages: Allowance
    closing: tuple[int, str] | None = None  # close so when everything is sent


class ServerThread:
    """One server. Everything public may be called from any thread, at any time; nothing but `start`, `stop` waits.

    Raises ConfigError from the constructor: wrong combination of settings; from `start`: the address cannot be used.
    `on_failure` is told, in the server's thread, when its loop breaks.
    """

    def __init__(
        self,
        settings: ServerSettings,
        actions: Actions | None = None,
        limits: HubLimits | None = None,
        on_failure: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self._settings, self._actions, self._on_failure = settings, actions or Actions(), on_failure
        own_name = (socket.gethostname(), f"{socket.gethostname()}.local")
        self._access = Access(settings.host, settings.token, (*settings.hosts, *own_name), settings.origins)
        self._tls = tls_context(settings)
        self._pages = Pages(self._access, realtime=settings.openai)
        able = capabilities(settings, self._actions)
        self._hub = Hub(limits, run=secrets.token_hex(8), capabilities=able)
        self._lock = threading.Lock()  # around the hub and the next two
        self._loop: asyncio.AbstractEventLoop | None = None  # while it serves
        self._wake_pending = False
        self._clients: set[_Client] = set()
        self._followers = Followers(self._hub, self._lock)
        self._wyoming = WyomingDoor(self._actions, self._followers.follow)
        self._ingests: set[ServerConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._began_s = time.monotonic()
        self._started = threading.Event()  # it listens, or cannot
        self._refused: Exception | None = None
        self._ending = asyncio.Event()
        self._how: tuple[int, str] = (DONE, "done")  # to close all clients
        self._thread = threading.Thread(target=self._run, name="streamer-server", daemon=True)
        self.port = self.wyoming_port = 0
        self.url = ""

    def start(self) -> None:
        """Start the thread and return once the server listens. Then `port` is known, `wyoming_port` and `url`.

        The URL is where a person on this machine finds the viewer: no slash at the end, no token.
        """
        self._thread.start()
        if not self._started.wait(START_S):
            raise ConfigError(f"--host: {self._settings.host!r} gives no answer; try 127.0.0.1")
        if self._refused is not None:
            self._thread.join()
            raise self._refused

    def stop(self, code: int = DONE, reason: str = "done", *, timeout_s: float = STOP_S) -> None:
        """Send what is left, close all clients with `code`, end the thread; within `timeout_s`. Any number of times."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            self._how = (code, reason)
            with suppress(RuntimeError):  # the loop ended by itself just now
                loop.call_soon_threadsafe(self._ending.set)
            self._thread.join(timeout_s)

    def open_session(self, info: SessionInfo) -> None:
        """Announce a session before its first event. Raises ValueError for a name that was used before."""
        with self._lock:
            self._hub.open_session(info)

    def describe(self, info: SessionInfo) -> None:
        """Tell more of a session that was announced before it was known. Raises KeyError for one that is not open."""
        with self._lock:
            self._hub.describe(info)
            self._wake_soon()

    def close_session(self, session: str) -> None:
        """The session made its last event."""
        with self._lock:
            self._hub.close_session(session)

    def publish(self, event: Event) -> None:
        """Hand an event to all clients; never waits for one. Raises KeyError for a session that is not open."""
        with self._lock:
            self._hub.publish(event)
            self._wake_soon()

    def show_marks(self, session: str, false_alarms: Collection[int], true_alerts: Collection[int]) -> None:
        """Tell the clients that want to know what people said of a session's alerts; from any thread, never waits."""
        with self._lock:
            self._hub.show_marks(session, false_alarms, true_alerts)
            self._wake_soon()

    # ---- the thread

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as exc:  # noqa: BLE001 - the top of the thread
            if self._started.is_set():
                _log.exception("the server broke down")
                self._on_failure(exc)
            else:
                self._refused = exc
        finally:
            with self._lock:
                self._loop = None  # whoever publishes now wakes nobody
            self._started.set()

    async def _serve(self) -> None:
        """Listen until somebody calls `stop`. Raises ConfigError that names --port or --host."""
        host, port = self._settings.host, self._settings.port
        http = await openai_door(self._settings, self._access, self._actions) if self._settings.openai else None
        try:
            listening = await serve(
                self._handle,
                host,
                port,
                process_request=lambda connection, request: self._pages.answer(request),
                compression=None,
                server_header=None,
                open_timeout=5,
                close_timeout=CLOSE_S,
                max_size=MAX_MESSAGE,
                max_queue=4,
                ssl=self._tls,
                create_connection=http.connection if http else None,
            )
            if self._settings.wyoming_port is not None:
                self.wyoming_port = await self._wyoming.open(self._settings)
        except OSError as exc:
            raise cannot_listen(host, port, exc) from None
        self._began_s = time.monotonic()
        self.port = int(listening.sockets[0].getsockname()[1])
        name = "localhost" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        self.url = f"{'https' if self._tls else 'http'}://{name}:{self.port}"
        with self._lock:
            self._loop = asyncio.get_running_loop()
        self._spawn(self._every(HEARTBEAT_S, self._beat))
        self._spawn(self._every(LEVEL_S, self._show_levels))
        self._started.set()
        await self._ending.wait()
        self._wyoming.close()
        await self._end(listening)
        if http:
            await http.close()

    async def _end(self, listening: ListeningServer) -> None:
        """Give every client up to `DRAIN_S` to take what is left, then close it; who has not answered is cut off."""
        listening.close(close_connections=False)
        sockets = [client.socket for client in self._clients] + list(self._ingests)
        for client in self._clients:
            client.closing = self._how
            self._release(client)
        for connection in self._ingests:
            self._spawn(close(connection, *self._how))
        await see_off(sockets, DRAIN_S)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.wait([asyncio.ensure_future(listening.wait_closed())], timeout=0.3)

    # ---- connections

    async def _handle(self, connection: ServerConnection) -> None:
        request = connection.request
        assert request is not None
        path, _, query = request.path.partition("?")
        senders, readers = len(self._ingests), len(self._clients)
        refusal = self._access.refusal(asked_by(request))
        if refusal is not None:
            await close(connection, NOT_ALLOWED, refusal)
        elif senders >= MAX_SENDERS if path in SENDING else readers >= self._settings.max_clients:
            await close(connection, TRY_LATER, "full: too many clients")
        elif path in SENDING:
            await self._take_sound(connection, realtime=path == REALTIME)
        else:
            await self._serve_events(connection, query)

    # ---- /ws

    async def _serve_events(self, connection: ServerConnection, query: str) -> None:
        now = asyncio.get_running_loop().time
        with self._lock:
            client = _Client(
                connection,
                self._hub.connect(held=True),
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
            async for message in connection:
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
        if len(message) > MAX_EVENTS_MESSAGE:
            await close(client.socket, TOO_LARGE, f"messages are at most {MAX_EVENTS_MESSAGE} bytes")
            return False
        try:
            wish = messages.parse(message)
            answer = carry_out(wish, self._settings, self._actions, lambda wish: self._subscribe(client, wish))
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

    def _notify(self, client: _Client, message: Mapping[str, Any]) -> bool:
        with self._lock:
            queued = self._hub.notify(client.connection, message)
        client.wake.set()
        return queued

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

    # ---- /ingest, /v1/realtime

    async def _take_sound(self, connection: ServerConnection, *, realtime: bool) -> None:
        async def send(message: Mapping[str, Any]) -> None:
            await connection.send(messages.encode(message))

        async def tell_events(session: str) -> None:
            await tell(self._followers.follow(session), connection.send)

        self._ingests.add(connection)
        allowance = Allowance(20, 0.5, asyncio.get_running_loop().time)
        try:
            if realtime:
                beta = connection.request is not None and "OpenAI-Beta" in connection.request.headers
                talk = Conversation(connection.send, self._actions, self._followers.follow, allowance, beta=beta)
                code, reason = await talk.run(aiter(connection))
            else:
                with self._lock:
                    hello = self._hub.hello()
                await send(hello)
                code, reason = await receive(aiter(connection), send, self._actions.open_ingest, allowance, tell_events)
            await close(connection, code, reason)
        except ConnectionClosed:
            pass
        finally:
            self._ingests.discard(connection)

    # ---- in the loop

    def _wake_soon(self) -> None:
        """With the lock held: have the clients' tasks look for what is new."""
        if self._loop is not None and not self._wake_pending:
            self._wake_pending = True
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        with self._lock:
            self._wake_pending = False
            overdue = set(self._hub.overdue())
        self._followers.wake()
        for client in self._clients:
            client.wake.set()
            if client.connection in overdue and client.closing is None:
                client.closing = (TRY_LATER, "too slow")
                self._spawn(close(client.socket, TRY_LATER, "too slow"))

    def _beat(self) -> None:
        health = self._actions.health()
        with self._lock:
            self._hub.beat(time.monotonic() - self._began_s, health)
            self._wake_soon()

    def _show_levels(self) -> None:
        if any(messages.LEVEL in (client.connection.types or ()) for client in self._clients):
            health = self._actions.health()
            with self._lock:
                self._hub.show_levels(health)
                self._wake_soon()

    async def _every(self, period_s: float, act: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(period_s)
            try:
                act()
            except Exception:  # noqa: BLE001 - the top of a task: the next beat must come
                _log.exception("the server's periodic work failed")

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
