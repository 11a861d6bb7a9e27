"""Whose turn it is at one engine: batches that hold the end of an utterance first, then those that came first.

Owned by one event loop; starts nothing. Nobody is overtaken for ever: every `FAIR`th turn goes to who waits longest.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

FAIR = 4


class Turns:
    """At most one has its turn."""

    def __init__(self) -> None:
        self._waiting: list[tuple[bool, asyncio.Future[None]]] = []  # in the order in which they came
        self._taken = False
        self._given = 0

    @asynccontextmanager
    async def turn(self, *, urgent: bool) -> AsyncIterator[None]:
        """Wait for a turn and hold it."""
        if self._taken:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((urgent, future))
            try:
                await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled():
                    self._pass_on()
                raise
        self._taken = True
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        self._waiting = [(urgent, future) for urgent, future in self._waiting if not future.done()]
        if not self._waiting:
            self._taken = False
            return
        self._given += 1
        fair = self._given % FAIR == 0
        place = next((at for at, (urgent, _) in enumerate(self._waiting) if urgent and not fair), 0)
        self._waiting.pop(place)[1].set_result(None)
