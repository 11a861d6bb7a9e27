"""The server: pages, `/ws` for events and `/ingest` for sound on one port.

Runs in one event loop, which owns all sockets. The hub is shared with the threads that publish, under one lock that
is held only for moments: nothing waits for a socket while holding it. Every connection has a task of its own that
sends, so a slow reader delays nobody; how far it may fall behind stands in `streamer.server.hub`.
"""

import asyncio
import http
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.server import Server as ListeningServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response

from streamer.events import Event
from streamer.server import messages
from streamer.server.access import Access, Allowance, Request, headers, load_pages
from streamer.server.hub import Connection, Hub, HubLimits
from streamer.server.ingest import MAX_SENDERS, receive
from streamer.server.listening import Actions, ServerOptions, cannot_listen, capabilities, carry_out, tls_context
from streamer.server.messages import MessageError, SessionInfo, Subscribe

DONE, NOT_ALLOWED, TOO_LARGE, FAILED, RESTARTING, TRY_LATER = 1000, 1008, 1009, 1011, 1012, 1013  # RFC 6455, IANA
HEARTBEAT_S = 5.0
LEVEL_S = 0.25
HOLD_S = 0.5  # a client that subscribes within this time gets its replay before the live events
STALL_S = 15.0  # a client that takes no message for so long is too slow
CLOSE_S = 3.0  # how long a closing handshake may take
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


class Server:
    """One server in one event loop. `publish` and the session methods may be called from any thread, at any time.

    Raises ConfigError from the constructor: wrong combination of options; from `start`: the address cannot be used.
    """

    def __init__(self, options: ServerOptions, actions: Actions | None = None, limits: HubLimits | None = None) -> None:
        self._options, self._actions = options, actions or Actions()
        own_name = (socket.gethostname(), f"{socket.gethostname()}.local")
        self._access = Access(options.host, options.token, (*options.hosts, *own_name), options.origins)
        self._tls = tls_context(options)
        self._pages = load_pages()
        able = capabilities(options, self._actions)
        self._hub = Hub(limits, run=secrets.token_hex(8), capabilities=able)
        self._lock = threading.Lock()  # around the hub and the next two
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake_pending = False
        self._listening: ListeningServer | None = None
        self._clients: set[_Client] = set()
        self._ingests: set[ServerConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._began_s = time.monotonic()

    @property
    def port(self) -> int:
        """The port that is listened on, after `start`."""
        assert self._listening is not None
        return int(self._listening.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """Where a person on this machine finds the viewer: no slash at the end, no token."""
        host = "localhost" if self._options.host in ("", "0.0.0.0", "::") else self._options.host
        return f"{'https' if self._tls else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}"

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

    async def start(self) -> None:
        """Listen. Raises ConfigError that names --port or --host."""
        options = self._options
        try:
            self._listening = await serve(
                self._handle,
                options.host or None,
                options.port,
                process_request=self._answer,
                compression=None,
                server_header=None,
                open_timeout=5,
                close_timeout=CLOSE_S,
                max_size=MAX_MESSAGE,
                max_queue=4,
                ssl=self._tls,
            )
        except (OSError, OverflowError) as exc:
            raise cannot_listen(options, exc) from None
        self._began_s = time.monotonic()
        with self._lock:
            self._loop = asyncio.get_running_loop()
        self._spawn(self._every(HEARTBEAT_S, self._beat))
        self._spawn(self._every(LEVEL_S, self._show_levels))

    async def stop(self, code: int = DONE, reason: str = "done", drain_s: float = 1.0) -> None:
        """Stop listening, give every client up to `drain_s` to take what is left, then close it with `code`.

        Returns within `drain_s` + 0.5 s; who has not answered by then is cut off.
        """
        with self._lock:
            self._loop = None
        if self._listening is None:
            return
        self._listening.close(close_connections=False)
        sockets = [client.socket for client in self._clients] + list(self._ingests)
        for client in self._clients:
            client.closing = (code, reason)
            self._release(client)
        for connection in self._ingests:
            self._spawn(_close(connection, code, reason))
        if sockets:
            gone = [asyncio.ensure_future(connection.wait_closed()) for connection in sockets]
            await asyncio.wait(gone, timeout=drain_s)
            for connection, waiting in zip(sockets, gone, strict=True):
                if not waiting.done():
                    connection.transport.abort()
            await asyncio.wait(gone, timeout=0.2)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.wait([asyncio.ensure_future(self._listening.wait_closed())], timeout=0.3)

    # ---- requests

    def _answer(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        path = request.path.partition("?")[0]
        if path in ("/ws", "/ingest"):
            return None  # refused after the handshake, where a browser can read why
        asked = _request(request)
        if not self._access.host_allowed(asked):
            return _text(403, "This server is not known by that name; see the setting server.hosts.\n", "localhost")
        host = asked.hosts[0]
        if path == "/healthz":
            return _response(200, b'{"status":"ok"}\n', "application/json", host)
        page = self._pages.get(path)
        if page is None:
            return _text(404, "There is nothing here. The pages are / and /overlay.\n", host)
        if not page.open and not self._access.token_given(asked):
            return _text(401, "A token is needed: add ?token=... to the address.\n", host)
        return _response(200, page.body, page.content_type, host)

    async def _handle(self, connection: ServerConnection) -> None:
        request = connection.request
        assert request is not None
        path, _, query = request.path.partition("?")
        senders, readers = len(self._ingests), len(self._clients)
        refusal = self._access.refusal(_request(request))
        if refusal is not None:
            await _close(connection, NOT_ALLOWED, refusal)
        elif senders >= MAX_SENDERS if path == "/ingest" else readers >= self._options.max_clients:
            await _close(connection, TRY_LATER, "full: too many clients")
        elif path == "/ingest":
            await self._take_sound(connection)
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
            self._subscribe_from(client, query)
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
            await _close(client.socket, TOO_LARGE, f"messages are at most {MAX_EVENTS_MESSAGE} bytes")
            return False
        try:
            good = self._do(client, messages.parse(message))
        except MessageError as exc:
            good = client.bad_messages.spend() and self._notify(client, messages.error(str(exc)))
        if not good or not client.messages.spend():
            await _close(client.socket, NOT_ALLOWED, "too many messages")
            return False
        return True

    def _do(self, client: _Client, message: messages.ClientMessage) -> bool:
        """Act on a message; False when the answer does not fit because the client does not read."""
        answer = carry_out(message, self._options, self._actions, lambda wish: self._subscribe(client, wish))
        return answer is None or self._notify(client, answer)

    def _subscribe_from(self, client: _Client, query: str) -> None:
        try:
            wish = messages.subscribe_from_query(query)
            if wish is not None:
                self._subscribe(client, wish)
        except ValueError as exc:
            self._notify(client, messages.error(f"address: {exc}"))

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
            self._hub.release(client.connection)
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
                        await _close(client.socket, *client.closing)
                        return
                    await client.wake.wait()
        except ConnectionClosed:
            return
        except TimeoutError:
            await _close(client.socket, TRY_LATER, "too slow")
        except Exception:  # noqa: BLE001 - the top of a task: one client's failure is only its own
            _log.exception("sending to a client failed")
            await _close(client.socket, FAILED, "internal error")

    # ---- /ingest

    async def _take_sound(self, connection: ServerConnection) -> None:
        async def send(message: Mapping[str, Any]) -> None:
            await connection.send(messages.encode(message))

        self._ingests.add(connection)
        allowance = Allowance(20, 0.5, asyncio.get_running_loop().time)
        try:
            with self._lock:
                hello = self._hub.hello()
            await send(hello)
            code, reason = await receive(aiter(connection), send, self._actions.open_ingest, allowance)
            await _close(connection, code, reason)
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
        for client in self._clients:
            client.wake.set()
            if client.connection in overdue and client.closing is None:
                client.closing = (TRY_LATER, "too slow")
                self._spawn(_close(client.socket, TRY_LATER, "too slow"))

    def _beat(self) -> None:
        health = self._actions.health()
        with self._lock:
            self._hub.beat(time.monotonic() - self._began_s, health)
        for client in self._clients:
            client.wake.set()

    def _show_levels(self) -> None:
        listeners = [client for client in self._clients if messages.LEVEL in (client.connection.types or ())]
        if not listeners:
            return
        health = self._actions.health()
        with self._lock:
            self._hub.show_levels(health)
        for client in listeners:
            client.wake.set()

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


async def _close(connection: ServerConnection, code: int, reason: str) -> None:
    """Close, and cut off a client that does not even take the closing frame."""
    try:
        async with asyncio.timeout(CLOSE_S + 1):
            await connection.close(code, reason)
    except TimeoutError:
        connection.transport.abort()


def _request(request: HttpRequest) -> Request:
    given, query = request.headers, request.path.partition("?")[2]
    return Request(given.get_all("Host"), given.get_all("Origin"), given.get_all("Authorization"), query)


def _text(status: int, text: str, host: str) -> Response:
    return _response(status, text.encode(), "text/plain; charset=utf-8", host)


def _response(status: int, body: bytes, content_type: str, host: str) -> Response:
    sent = Headers(headers(content_type, len(body), host))
    return Response(status, http.HTTPStatus(status).phrase, sent, body)
