"""The server: pages, `/ws` for events and `/ingest` for sound on one port, in a thread of its own.

What others speak too, if the settings say so: OpenAI's and Deepgram's APIs below `/v1/` on the same port, Wyoming on
its own.

The thread runs one event loop, which owns all sockets and their tasks. The hub and the metrics are shared with the
threads that publish, under one lock that is held only for moments: nothing waits for a socket while holding it.
"""

import asyncio
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from websockets.asyncio.server import Server as ListeningServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response

from streamer.errors import ConfigError
from streamer.events import Event
from streamer.output.qr_code import below
from streamer.server import deepgram, sockets
from streamer.server.access import Access, Allowance, Credentials, cannot_listen
from streamer.server.actions import Actions, capabilities
from streamer.server.addresses import Addresses, Entrance
from streamer.server.deepgram import LISTEN
from streamer.server.follow import Followers
from streamer.server.hub import Hub, HubLimits
from streamer.server.ingest import MAX_SENDERS
from streamer.server.messages import MessageError, SessionInfo
from streamer.server.metrics import Metrics
from streamer.server.mirrored import MirroredSessions
from streamer.server.pages import (
    PHONE_PAGE,
    Pages,
    Reports,
    asked_by,
    chosen_subprotocol,
    json_answer,
    too_many_tries,
)
from streamer.server.readers import Readers
from streamer.server.readiness import troubles
from streamer.server.realtime import REALTIME
from streamer.server.replay import Entry
from streamer.server.scrub import Scrubber
from streamer.server.senders import SENDING_PATHS, Senders
from streamer.server.sockets import (
    DONE,
    NOT_ALLOWED,
    TRY_LATER,
    Door,
    GuardedConnection,
    close,
    keep_alive,
    openai_door,
)
from streamer.server.tls import open_tls, page_addresses
from streamer.server.wyoming import WyomingDoor
from streamer.settings.server import ServerSettings

HEARTBEAT_S = 5.0
LEVEL_S = 0.25
DRAIN_S = 1.0  # how long clients may take what is left at the end
START_S = 10.0  # within which the server must listen
STOP_S = 2.0  # within which `stop` returns
MAX_MESSAGE = 2**20  # bytes, on /ingest
HALF_OPEN = 64  # sockets of one loopback address beside those that read and send: pages, and what is not yet known
SPARED = 4  # one of so many readers' places is left to others, whichever address asks for the rest
AGAIN_S = 30  # a sender that finds no place is told to wait so long

_log = logging.getLogger(__name__)
_wire_log = logging.getLogger("websockets.server.streamer")  # what travels, with --debug; without secrets
_SCRUBBER = Scrubber()


class ServerThread:
    """One server. Everything public may be called from any thread, at any time; nothing but `start`, `stop` waits.

    Raises ConfigError from the constructor: wrong combination of settings; from `start`: the address cannot be used.
    `on_failure` is told, in the server's thread, when its loop breaks. `run`: as in `Hub`, None: a new one.
    """

    def __init__(
        self,
        settings: ServerSettings,
        actions: Actions | None = None,
        limits: HubLimits | None = None,
        on_failure: Callable[[Exception], None] = lambda error: None,
        run: str | None = None,
    ) -> None:
        self._settings, self._actions, self._on_failure = settings, actions or Actions(), on_failure
        own_name = (socket.gethostname(), f"{socket.gethostname()}.local")
        self._access = Access(settings.host, settings.token, (*settings.hosts, *own_name), settings.origins)
        self.tls = open_tls(settings)
        self._proxies = frozenset(settings.proxies)
        shared = settings.max_clients + MAX_SENDERS + HALF_OPEN
        self._addresses = Addresses(time.monotonic, settings.max_per_address, shared, self._proxies)  # the loop's
        self._metrics = Metrics(time.time())
        self._door = Door(self._addresses, self._metrics.refused, time.monotonic)
        self._entrance = Entrance(self._access, self._addresses, self._proxies, self._metrics.refused)
        reports = Reports(
            troubles=self._troubles,
            metrics=self._render_metrics,
            refused=self._metrics.refused,
            spent=self._offer_link,
            transcript=self._transcript,
            fitting=self._actions.fitting,
        )
        paths = ["/ws", "/ingest", *[REALTIME] * settings.openai, *[LISTEN] * settings.deepgram]
        self._pages = Pages(self._access, reports, self.tls, sockets=paths)
        self._offers = Allowance(1, 1 / 30, time.monotonic)
        able = capabilities(settings, self._actions)
        self._hub = Hub(limits, run=run or secrets.token_hex(8), capabilities=able)
        self._lock = threading.Lock()  # around the hub, the metrics and the next two
        self._loop: asyncio.AbstractEventLoop | None = None  # while it serves
        self._wake_pending = False
        self._readers = Readers(self._hub, self._lock, settings, self._actions, self._spawn)
        self._followers = Followers(self._hub, self._lock)
        self.mirrored = MirroredSessions(self._hub, self._lock, self._wake_soon)
        self._senders = Senders(self._hub, self._lock, self._actions, self._followers, self._metrics.refused)
        self._wyoming = WyomingDoor(self._senders.actions, self._followers.follow, self._door)
        self._tasks: set[asyncio.Task[None]] = set()
        self._began_s = time.monotonic()
        self._started = threading.Event()  # it listens, or cannot
        self._refused: Exception | None = None
        self._ending = asyncio.Event()
        self._how: tuple[int, str] = (DONE, "done")  # to close all clients
        self._thread = threading.Thread(target=self._run, name="streamer-server", daemon=True)
        self.port = self.wyoming_port = 0
        self.url = self.outside_url = ""

    def start(self) -> None:
        """Return once the server listens; then `port`, `wyoming_port`, `url` and `outside_url` (`tls.py`) are known."""
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

    def link(self, path: str = "/", *, outside: bool = False) -> str:
        """The address of a page for a person here (`outside`: elsewhere); with a token it lets in who comes first."""
        keys, address = self._access.keys, f"{(outside and self.outside_url) or self.url}{path}"
        return address + ("" if keys is None else f"{'&' if '?' in path else '?'}code={keys.new_code()}")

    def open_session(
        self, info: SessionInfo, kept: Sequence[Entry] = (), lost_to: int = 0, *, again: bool = False
    ) -> None:
        """As `Hub.open_session`: announce a session before its first event."""
        with self._lock:
            self._hub.open_session(info, kept, lost_to, again=again)

    def describe(self, info: SessionInfo) -> None:
        """Tell more of a session that was announced before it was known. Raises KeyError for one that is not open."""
        with self._lock:
            self._hub.describe(info)
            self._wake_soon()

    def close_session(self, session: str) -> None:
        """The session made its last event, or goes on at another server, where its readers are sent on from here."""
        with self._lock:
            self._hub.close_session(session)
            self._senders.sessions.discard(session)
            if self._loop and self._hub.is_named(session):
                self._loop.call_soon_threadsafe(lambda: self._spawn(self._seek(session)))

    def share_run(self, run: str) -> None:
        """As in `Hub`: the numbering is that of a cluster, which is known now."""
        with self._lock:
            self._hub.run = run
            self._wake_soon()

    def publish(self, event: Event, latency_s: float | None = None) -> None:
        """Hand an event to all clients; never waits for one. Raises KeyError for a session that is not open.

        `latency_s`: how much sound had come since its `audio_t`; None where nobody waits for it.
        """
        with self._lock:
            self._hub.publish(event)
            self._metrics.event(event, latency_s)
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
        _wire_log.addFilter(_SCRUBBER)  # the same one again changes nothing
        asyncio.get_running_loop().set_exception_handler(self._door.on_loop_error)
        http = await openai_door(self._settings, self._entrance, self._actions) if self._settings.openai else None
        connection = partial(GuardedConnection, door=self._door, http=http.open if http else None)
        try:
            listening = await serve(
                self._handle,
                host,
                port,
                process_request=self._answer,
                compression=None,
                server_header=None,
                open_timeout=5,
                close_timeout=sockets.CLOSE_S,
                ping_interval=None,  # `keep_alive` asks, and knows who is merely slow
                max_size=MAX_MESSAGE,
                max_queue=4,
                logger=_wire_log,
                select_subprotocol=chosen_subprotocol,
                create_connection=connection,  # type: ignore[arg-type]
                ssl=self.tls.context if self.tls else None,
            )
            if self._settings.wyoming_port is not None:
                self.wyoming_port = await self._wyoming.open(self._settings)
        except OSError as exc:
            raise cannot_listen(host, port, exc) from None
        self._began_s = time.monotonic()
        self.port = int(listening.sockets[0].getsockname()[1])
        self._access.cookie_name = f"streamer-{self.port}"
        self.url, self.outside_url = page_addresses(host, self.port, secure=self.tls is not None)
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
        open_sockets = self._readers.sockets + list(self._senders.sockets)
        self._readers.close_all(*self._how)
        for connection in self._senders.sockets:
            self._spawn(close(connection, *self._how))
        if open_sockets:
            gone = [asyncio.ensure_future(connection.wait_closed()) for connection in open_sockets]
            await asyncio.wait(gone, timeout=DRAIN_S)
            for connection, waiting in zip(open_sockets, gone, strict=True):
                if not waiting.done():
                    connection.transport.abort()
            await asyncio.wait(gone, timeout=0.2)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.wait([asyncio.ensure_future(listening.wait_closed())], timeout=0.3)

    # ---- connections

    async def _answer(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """What a request gets, None for a websocket. Too many wrong tokens are refused here, before a handshake."""
        assert isinstance(connection, GuardedConnection)
        asked = asked_by(request, connection.peer, self._proxies)
        credentials = self._access.credentials(asked)
        coded = credentials is not Credentials.COOKIE and asked.asked_for("code") is not None
        if wait_s := self._entrance.wait_s(asked, coded=coded):
            return too_many_tries(wait_s)
        response = await self._pages.answer(request, asked, head=connection.head)
        if response is None and request.path.partition("?")[0] == LISTEN:
            refused = deepgram.refusal(asked, self._access, self._senders.actions)
            response = refused and json_answer(*refused, "localhost")
            if refused and refused[0] != 400:
                self._metrics.refused("token" if refused[0] == 401 else "host or origin")
        if credentials is Credentials.WRONG or (coded and response is not None and response.status_code == 401):
            self._addresses.tried(asked.address)
        return response

    async def _seek(self, session: str) -> None:
        """Have a session that another server has shown here, where that can be."""
        with suppress(MessageError):
            await self._actions.seek(session)

    async def _handle(self, connection: ServerConnection) -> None:
        assert isinstance(connection, GuardedConnection)
        request = connection.request
        assert request is not None
        path, _, query = request.path.partition("?")
        asked = asked_by(request, connection.peer, self._proxies)
        refusal = self._access.refusal(asked)
        if refusal is not None:
            self._metrics.refused("token" if "token" in refusal else "host or origin")
            await close(connection, NOT_ALLOWED, refusal)
            return
        sends = path in SENDING_PATHS
        places = MAX_SENDERS if sends else self._settings.max_clients
        taken = len(self._senders.sockets) if sends else len(self._readers)
        kind, most = ("/ingest", places) if sends else (path, places - places // SPARED)
        with self._addresses.place(asked.address, kind, places, most, taken) as full:
            watch = self._spawn(keep_alive(connection))
            try:
                if full:
                    self._metrics.refused("full")
                    await close(connection, TRY_LATER, f"full: {full}; try in {AGAIN_S} s")
                elif sends:
                    await self._senders.serve(connection, path, query)
                else:
                    await self._readers.serve(connection, query)
            finally:
                watch.cancel()

    # ---- what the server says of itself

    def _troubles(self) -> Mapping[str, str]:
        health, takes_senders = self._actions.health(), self._actions.takes_senders()
        with self._lock:
            return troubles(self._hub.statuses(), health, self._senders.sessions, takes_senders=takes_senders)

    async def _render_metrics(self) -> str:
        elsewhere, health = await self._actions.metrics(), self._actions.health()
        with self._lock:
            own = self._metrics.render(self._hub.readers(), self._hub.missed, len(self._senders.sockets), health)
        return own + elsewhere

    async def _transcript(self, session: str | None, name: str) -> list[str]:
        if session:
            await self._seek(session)
        with self._lock:
            return self._hub.transcript(session, name)

    def _offer_link(self, path: str) -> None:
        """Somebody came with a link that is used or too old: whoever runs the program gets a new one to hand on."""
        if self._offers.spend():
            for_phone = path.startswith(PHONE_PAGE)
            link = self.link(path, outside=for_phone)
            _log.warning("a new link, for who opens it first: %s%s", link, below(link) if for_phone else "")

    # ---- in the loop

    def _wake_soon(self) -> None:
        """With the lock held: have the clients' tasks look for what is new."""
        if self._loop is not None and not self._wake_pending:
            self._wake_pending = True
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        with self._lock:
            self._wake_pending = False
        self._readers.wake()
        self._followers.wake()

    def _beat(self) -> None:
        health = self._actions.health()
        with self._lock:
            self._hub.beat(time.monotonic() - self._began_s, health)
            self._wake_soon()

    def _show_levels(self) -> None:
        if self._readers.show_levels:
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
