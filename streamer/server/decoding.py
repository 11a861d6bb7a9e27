"""Coded sound from a connection, as PCM: messages that are a packet each, or pieces of a container.

`write`, `settle` and `finish` run in the server's event loop; `deliver` is called there with 16-bit little-endian PCM
and waits while the session takes no more. A container is decoded in a thread of its own (`decoder`), which asks the
loop for bytes and hands it what they hold; at most `WAITING` messages wait for it, then the socket is not read.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

from streamer.audio.containers import LinkReader, container_of, wants
from streamer.audio.files import track_blocks
from streamer.audio.packets import PacketDecoder
from streamer.audio.track import AudioTrack
from streamer.errors import InputError

WAITING = 2  # messages of at most 1 MiB
Deliver = Callable[[bytes], Awaitable[None]]
log = logging.getLogger(__name__)


class Sound(Protocol):
    """What a client sends. Both may raise InputError: it cannot be decoded."""

    async def write(self, data: bytes) -> None:
        """One message."""

    async def settle(self) -> None:
        """Return when all that can be decoded by now was delivered."""

    async def finish(self) -> None:
        """No more comes: return when everything was delivered."""

    def close(self) -> None:
        """The connection is gone; what waits is not wanted."""


class PacketSound:
    """PCM as it is (`decoder` None), or one packet a message."""

    def __init__(self, deliver: Deliver, decoder: PacketDecoder | None = None) -> None:
        self._deliver, self._decoder = deliver, decoder

    async def write(self, data: bytes) -> None:
        """Deliver it."""
        await self._deliver(self._decoder.decode(data) if self._decoder else data)

    async def settle(self) -> None:
        """Nothing is kept."""

    async def finish(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is kept."""


class ContainedSound:
    """A container (Ogg, WebM, WAV, FLAC, MP3 …) as mono at 16 kHz. What is lost or broken inside is silence."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._coming: asyncio.Queue[bytes] = asyncio.Queue(WAITING)  # b"": the end
        self._rest, self._ended = b"", False  # the thread's: of the last message; whether the end came
        self._hungry, self._over = asyncio.Event(), asyncio.Event()
        self._fault: Exception | None = None
        self._closed = False
        self._thread: threading.Thread | None = None  # from the first message on

    async def write(self, data: bytes) -> None:
        """Hand it to the thread, which may have to make room first."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._decode, name="decoder", daemon=True)
            self._thread.start()
        self._hungry.clear()
        putting = asyncio.ensure_future(self._coming.put(data))
        await self._until(putting)

    async def settle(self) -> None:
        """The thread asks for more and there is none. A demuxer keeps what is no whole packet yet."""
        if self._thread is not None:
            await self._until(asyncio.ensure_future(self._hungry.wait()))

    async def finish(self) -> None:
        """The end of the container."""
        if self._thread is not None:
            await self._until(asyncio.ensure_future(self._coming.put(b"")))
            await self._until(asyncio.ensure_future(self._over.wait()))

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._over.set()
        while not self._coming.empty():
            self._coming.get_nowait()
        self._coming.put_nowait(b"")

    async def _until(self, done: "asyncio.Future[Any]") -> None:
        """Wait for something, or for the end of the thread. Raises what ended it."""
        over = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait((done, over), return_when=asyncio.FIRST_COMPLETED)
        finally:
            done.cancel()
            over.cancel()
        if self._fault is not None:
            raise self._fault

    # ---- the thread

    def _decode(self) -> None:
        try:
            head, ended = b"", False
            while (missing := wants(head, ended=ended) - len(head)) > 0:
                data = self._read(missing)
                head, ended = head + data, not data
            kind = container_of(head)
            if kind is None:
                raise InputError("encoding: is missing, and what came is no container; give linear16 and a sample_rate")
            track = AudioTrack("that was sent", "the sound", None, LinkReader(self._read, kind, head))
            try:
                for block in track_blocks(track):
                    silence = np.zeros(block.lost_samples, np.float32)
                    samples = np.concatenate((silence, block.samples))
                    if len(samples) and not self._closed:
                        self._ask(self._deliver_now(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()))
            finally:
                track.close()
        except CancelledError:
            log.debug("the server ended before what a client sent")
        except Exception as error:  # noqa: BLE001 - the top of a thread: whoever writes is told
            log.debug("what a client sent is not decoded any more: %r", error)
            self._fault = error
        finally:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._over.set)

    def _read(self, size: int) -> bytes:
        """At most `size` next bytes, none at the end."""
        if not self._rest and not self._ended and not self._closed:
            self._rest = self._ask(self._next())
            self._ended = not self._rest
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    async def _next(self) -> bytes:
        if self._coming.empty():
            self._hungry.set()
        return await self._coming.get()

    async def _deliver_now(self, pcm: bytes) -> None:
        await self._deliver(pcm)

    def _ask(self, what: "Coroutine[Any, Any, Any]") -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result()
