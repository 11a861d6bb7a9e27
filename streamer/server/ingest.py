"""Sound that a client sends: `/ingest` takes `start`, binary PCM, `stop`; one open ingest is one session.

`receive` runs in the event loop of the server and only moves bytes; `PcmQueue` hands them to the one thread that reads
the session's sound. It is bounded: when it is full, the socket is not read for `patience_s` (so a sender that is merely
fast is slowed down); after that the newest sound is dropped, counted, and announced by the next piece that is read.
Until there is room again no piece waits longer than it sounds: a sender is never read slower than in real time for
long, so that what stands in line behind its sound (a pong, a `stop`) comes through in time.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from streamer.errors import StreamerError, UsageError
from streamer.server.access import Allowance
from streamer.server.actions import IngestFullError, IngestSink
from streamer.server.messages import IngestStart, MessageError, error, parse_object, parse_start, started

log = logging.getLogger(__name__)

START_TIMEOUT_S = 10.0
MAX_SENDERS = 128  # at a time; what each takes is bounded (docs/design.md)

Close = tuple[int, str]  # close code and reason


@dataclass(frozen=True, slots=True)
class PcmPiece:
    """Whole frames of interleaved little-endian 16-bit samples; `lost_frames` went missing just before them."""

    pcm: bytes
    lost_frames: int = 0


class _State(Enum):
    """OPEN; FINISHED: the sender is done; STOPPED: no more is taken. What came can be read in all of them."""

    OPEN = auto()
    FINISHED = auto()
    STOPPED = auto()


class PcmQueue:
    """An IngestSink between the event loop (`write`, `finish`) and one reading thread (`read`, `stop`).

    Holds at most `capacity_s` seconds of sound, and what a writer had in hand when it was stopped.
    """

    def __init__(
        self,
        start: IngestStart,
        session: str,
        capacity_s: float = 10.0,
        patience_s: float = 2.0,
        begin_s: float | None = None,
    ) -> None:
        self.start, self.session, self.begin_s = start, session, begin_s
        self._capacity = max(1, int(capacity_s * start.sample_rate)) * start.frame_bytes
        self._patience_s = patience_s
        self._pieces: deque[PcmPiece] = deque()
        self._held_bytes = 0
        self._lost_frames = 0
        self._carry = b""
        self._patient = True  # no writer has waited in vain since there was room
        self._in_hand: bytes | None = None  # what waits for room
        self._state = _State.OPEN
        self._changed = threading.Condition()
        self._room: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    async def write(self, pcm: bytes) -> None:
        """Queue sound, waiting up to `patience_s` for room, then dropping it with a count."""
        data = self._carry + pcm
        whole = len(data) - len(data) % self.start.frame_bytes
        self._carry = data[whole:]
        if not whole:
            return
        if self._put(data[:whole]):
            self._patient = True
            return
        sounds_s = whole / self.start.frame_bytes / self.start.sample_rate
        patience_s = self._patience_s if self._patient else min(self._patience_s, sounds_s)
        room = asyncio.Event()
        with self._changed:
            self._room = (asyncio.get_running_loop(), room)
            self._in_hand = data[:whole]
        try:
            async with asyncio.timeout(patience_s):
                while not self._put(data[:whole]):
                    await room.wait()
                    room.clear()
        except TimeoutError:
            self._patient = False
            with self._changed:
                if self._in_hand:
                    self._lost_frames += whole // self.start.frame_bytes
        finally:
            with self._changed:
                self._room = self._in_hand = None

    def finish(self) -> None:
        """The end of the sound: what is queued can still be read."""
        with self._changed:
            if self._state is _State.OPEN:
                self._enter(_State.FINISHED)

    def stop(self) -> None:
        """The program ends: further writes raise StreamerError, but what was received can still be read."""
        with self._changed:
            if self._in_hand:
                self._append(self._in_hand)
            self._in_hand = None
            self._enter(_State.STOPPED)

    @property
    def ended(self) -> bool:
        """Whether nothing is left to read and nothing will come."""
        with self._changed:
            return self._state is not _State.OPEN and not (self._pieces or self._lost_frames)

    @property
    def held_frames(self) -> int:
        """Frames that can be read now."""
        with self._changed:
            return self._held_bytes // self.start.frame_bytes

    def read(self, timeout_s: float) -> PcmPiece | None:
        """The next piece, from the reading thread; None when none came in time or at the end (see `ended`)."""
        with self._changed:
            if not self._pieces and self._state is _State.OPEN:
                self._changed.wait(timeout_s)
            if self._pieces:
                piece = self._pieces.popleft()
                self._held_bytes -= len(piece.pcm)
                self._call_for_more()
                return piece
            if self._state is not _State.OPEN and self._lost_frames:
                piece, self._lost_frames = PcmPiece(b"", self._lost_frames), 0
                return piece
            return None

    def _enter(self, state: _State) -> None:
        """The one place where the state changes: reader and writer are woken; with `_changed` held."""
        log.debug("ingest %s: %s -> %s", self.session, self._state.name, state.name)
        self._state = state
        self._changed.notify_all()
        self._call_for_more()

    def _put(self, pcm: bytes) -> bool:
        with self._changed:
            if self._state is _State.STOPPED:
                raise StreamerError(f"ingest: session {self.session} is over")
            if self._held_bytes and self._held_bytes + len(pcm) > self._capacity:
                return False
            self._append(pcm)
            self._in_hand = None
            self._changed.notify_all()
            return True

    def _append(self, pcm: bytes) -> None:
        self._pieces.append(PcmPiece(pcm, self._lost_frames))
        self._held_bytes += len(pcm)
        self._lost_frames = 0

    def _call_for_more(self) -> None:
        if self._room is not None:
            loop, room = self._room
            loop.call_soon_threadsafe(room.set)


async def receive(
    incoming: AsyncIterator[str | bytes],
    send: Callable[[Mapping[str, Any]], Awaitable[None]],
    open_ingest: Callable[[IngestStart], IngestSink],
    bad_messages: Allowance,
    tell: Callable[[str], Coroutine[Any, Any, None]],
) -> Close:
    """Serve one sender until it stops or goes away; returns how to close. The sink is always finished.

    `tell` sends the events of a session, to the last, to a sender that asked for them: after its `stop` too.
    """
    teller: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            first = await anext(incoming)
        start = parse_start(first)
        sink = open_ingest(start)
    except TimeoutError:
        return 1008, "no start message came"
    except StopAsyncIteration:
        return 1000, "done"
    except IngestFullError as exc:
        return 1013, _short(exc)
    except (MessageError, UsageError) as exc:
        await send(error(str(exc)))
        return 1008, "the start message cannot be used"
    try:
        await send(started(sink.session, sink.begin_s))
        if start.events:
            teller = asyncio.create_task(tell(sink.session))
            teller.add_done_callback(_note)
        close = await _pump(incoming, send, sink, bad_messages)
        sink.finish()
        if teller and close[0] == 1000:
            await teller
        return close
    except StreamerError as exc:
        return 1013, _short(exc)
    except TimeoutError:
        return 1013, "too slow"
    finally:
        sink.finish()
        if teller:
            teller.cancel()


def _note(teller: asyncio.Task[None]) -> None:
    """A sender that is gone or takes nothing is told no more; its sound is heard all the same."""
    if not teller.cancelled() and teller.exception():
        log.debug("a sender gets no more events: %r", teller.exception())


async def _pump(
    incoming: AsyncIterator[str | bytes],
    send: Callable[[Mapping[str, Any]], Awaitable[None]],
    sink: IngestSink,
    bad_messages: Allowance,
) -> Close:
    async for message in incoming:
        if isinstance(message, bytes):
            await sink.write(message)
            continue
        try:
            if parse_object(message).get("type") == "stop":
                break
            raise MessageError("type: after start only binary sound and stop are understood")
        except MessageError as exc:
            if not bad_messages.spend():
                return 1008, "too many messages that cannot be used"
            await send(error(str(exc)))
    return 1000, "done"


def _short(exc: Exception) -> str:
    """A reason that fits a close frame (123 bytes)."""
    return str(exc).encode("ascii", "replace")[:120].decode()
