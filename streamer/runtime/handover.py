"""A sender's session that another process had: what was kept of it, and where it goes on (pure, no threads or clocks).

What a process knows of a session dies with it; what people were told of it does not (`Told`, in a `Book` outside of
the process). The session goes on under its id and its numbers: what was open is ended, the sound whose words nobody
was told of is heard again if the sender still has it, and is a `gap` if it does not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from streamer.events import FRAME_SAMPLES, SAMPLE_RATE, Event
from streamer.runtime.told import Told
from streamer.server.messages import Ack, Flush, SessionInfo
from streamer.server.mirrored import MirroredSessions

MOVED = "the server that heard this session is gone; it goes on here"
NOT_SENT = "the server that heard this session was gone, and this sound was not sent again"
Emit = Callable[[Sequence[Event]], None]
CarryOut = Callable[[Ack | Flush], None]  # does what a reader wants, from any thread


@dataclass(frozen=True, slots=True)
class Kept:
    """What a book has of a session: what people know, its last events, Unix time of its first sample, its source."""

    told: Told
    events: tuple[Event, ...]
    opened_at: float
    source: str | None


@dataclass(frozen=True, slots=True)
class Handover:
    """How a session goes on: its sound from `begin_sample` on, of which the first `lost_samples` are missing.

    `closing`: events that end what was open, to be said first; `told` knows of them. `past`: the last events before.
    """

    told: Told
    begin_sample: int
    lost_samples: int
    closing: tuple[Event, ...]
    past: tuple[Event, ...]
    opened_at: float
    source: str | None

    @classmethod
    def of(cls, kept: Kept, oldest_s: float | None, now_s: float) -> "Handover":
        """Go on for a sender that still has its sound from `oldest_s` on (None: from now on, Unix time `now_s`)."""
        told = kept.told
        wanted = -(-told.resume_sample // FRAME_SAMPLES) * FRAME_SAMPLES  # not into a committed word
        offered_s = now_s - kept.opened_at if oldest_s is None else oldest_s
        lost = max(0, round(offered_s * SAMPLE_RATE) - wanted)
        closing = tuple(told.close(told.audio_sample, "degraded", MOVED))
        for event in closing:
            told.note(event)
        return cls(told, wanted, lost, closing, kept.events, kept.opened_at, kept.source)

    @property
    def begin_s(self) -> float:
        """Where the sender is to go on."""
        return (self.begin_sample + self.lost_samples) / SAMPLE_RATE


class Book(Protocol):
    """Keeps what people are told of the sessions of senders, outside of this process. For several threads."""

    @property
    def place(self) -> str:
        """What the names of this process's sessions have in them: no other one's that has the book."""

    @property
    def run(self) -> str | None:
        """The numbering that all have in common who have the book; None: it does not answer."""

    def open(self, info: SessionInfo, source: str | None) -> None:
        """A session begins here, now; `source`: what its sender named."""

    def take(self, session: str) -> Kept | None:
        """Have a session that was somewhere else; None: it is not known. Whoever had it gets no more in."""

    def emitter(self, session: str, emit: Emit, gone: Callable[[], None]) -> Emit:
        """Write events down, then `emit` them. `gone` is called once another process has the session."""

    def has(self, session: str) -> bool:
        """Whether the session is this process's own and its last event was not passed on yet."""

    async def seek(self, session: str, shown: MirroredSessions) -> None:
        """Have a session of another process shown, as long as somebody wants it; returns when it is or is not there.

        For the event loop of the server. Raises MessageError: too many are shown.
        """

    def pass_on(self, message: Ack | Flush) -> None:
        """Something is wanted of a session that another process has; waits for nothing."""

    def leave(self) -> None:
        """The program ends: nothing more is written down or emitted, whoever takes the sessions goes on from here."""
