"""Following one session: its events, for the connection that sends its sound. For the server's event loop."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from streamer.server.hub import Hub

STALL_S = 15.0  # who takes no message for so long is too slow
Follow = Callable[[str], AsyncGenerator[str, None]]


class Followers:
    """All that follow a session. They read the hub at their own pace, as every connection does (`hub.py`)."""

    def __init__(self, hub: Hub, lock: threading.Lock) -> None:
        self._hub, self._lock = hub, lock
        self._wakes: set[asyncio.Event] = set()

    def wake(self) -> None:
        """Have everybody look for what is new."""
        for wake in self._wakes:
            wake.set()

    async def follow(self, session: str) -> AsyncGenerator[str, None]:
        """The session's events from its first to its last, and heartbeats, as JSON texts; then it ends."""
        wake = asyncio.Event()
        with self._lock:
            connection = self._hub.follow(session)
        self._wakes.add(wake)
        try:
            over = False
            while not over:
                wake.clear()
                with self._lock:
                    batch = self._hub.drain(connection)
                    over = not batch and self._hub.is_over(session)
                for text in batch:
                    yield text
                if not batch and not over:
                    await wake.wait()
        finally:
            self._wakes.discard(wake)
            with self._lock:
                self._hub.disconnect(connection)


async def tell(texts: AsyncGenerator[str, None], send: Callable[[str], Awaitable[None]]) -> None:
    """Send all that comes. Raises TimeoutError where nobody takes it for `STALL_S`, and what `send` raises."""
    async with aclosing(texts):
        async for text in texts:
            async with asyncio.timeout(STALL_S):
                await send(text)
