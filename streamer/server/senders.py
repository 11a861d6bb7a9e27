"""The clients that send sound over websockets, each in its protocol: `/ingest`, OpenAI's Realtime, Deepgram's.

Everything runs in the server's event loop; the hub and `sessions` are shared with the threads that publish, under one
lock that is held only for moments. What the protocols do is in their modules.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from streamer.server import messages
from streamer.server.access import Allowance
from streamer.server.actions import Actions, IngestFullError, IngestSink
from streamer.server.deepgram import LISTEN, Listening
from streamer.server.follow import Followers, tell
from streamer.server.hub import Hub
from streamer.server.ingest import receive
from streamer.server.messages import IngestStart
from streamer.server.other_protocols import Client
from streamer.server.realtime import REALTIME, Conversation
from streamer.server.sockets import GuardedConnection, close

SENDING_PATHS: Final = ("/ingest", REALTIME, LISTEN)


class Senders:
    """All clients of one server that send sound, and the sessions that were opened for them.

    `lock` is the one around `hub` and `sessions`; `refused` counts who is not taken. `actions`: those of the program,
    with sessions that are known here, for senders of every protocol.
    """

    def __init__(
        self,
        hub: Hub,
        lock: threading.Lock,
        actions: Actions,
        followers: Followers,
        refused: Callable[[str], None],
    ) -> None:
        self._hub, self._lock, self._open_ingest, self._refused = hub, lock, actions.open_ingest, refused
        self._follow = followers.follow
        self.actions = replace(actions, open_ingest=self._open)
        self.sockets: set[ServerConnection] = set()
        self.sessions: set[str] = set()

    async def serve(self, connection: GuardedConnection, path: str, query: str) -> None:
        """Take the sound of one client until it is done or goes away."""
        self.sockets.add(connection)
        allowance = Allowance(20, 0.5, asyncio.get_running_loop().time)
        client = Client(connection.send, self.actions, self._follow, allowance)
        try:
            if path == LISTEN:
                code, reason = await Listening(client, query).run(connection.taken())
            elif path == REALTIME:
                beta = connection.request is not None and "OpenAI-Beta" in connection.request.headers
                code, reason = await Conversation(client, beta=beta).run(connection.taken())
            else:
                code, reason = await self._ingest(connection, allowance)
            await asyncio.gather(close(connection, code, reason), _discard(connection))
        except ConnectionClosed:
            pass
        finally:
            self.sockets.discard(connection)

    async def _ingest(self, connection: GuardedConnection, allowance: Allowance) -> tuple[int, str]:
        async def send(message: Mapping[str, Any]) -> None:
            await connection.send(messages.encode(message))

        async def tell_events(session: str) -> None:
            await tell(self._follow(session), connection.send)

        with self._lock:
            hello = self._hub.hello()
        await send(hello)
        return await receive(connection.taken(), send, self.actions.open_ingest, allowance, tell_events)

    def _open(self, start: IngestStart) -> IngestSink:
        """A session for a sender, whatever it speaks."""
        try:
            sink = self._open_ingest(start)
        except IngestFullError:
            self._refused("capacity")
            raise
        with self._lock:
            self.sessions.add(sink.session)
        return sink


async def _discard(connection: ServerConnection) -> None:
    """Take what waits of a sender that is being closed: its answer to that stands behind it."""
    with suppress(ConnectionClosed):
        async for _ in connection:
            pass
