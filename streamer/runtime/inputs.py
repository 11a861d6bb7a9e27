"""What the program listens to: its own sources, one as --device or --input says, or all that stand under `sources:`;
and senders on `/ingest`, each with a pipeline and a session of its own.

A sender that names one of the `sources:` with `input: ingest` has that entry's settings; others have the common ones.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from streamer.audio.block import AudioBlock, Source, empty
from streamer.audio.files import FileSource, demo_path, is_pipe, open_source
from streamer.audio.microphone import Microphone
from streamer.audio.portaudio import SharedAudio, choose_device
from streamer.audio.resample import BlockMaker
from streamer.errors import InputError, UsageError
from streamer.events import SAMPLE_RATE, AlertSource
from streamer.model.names import BUNDLED
from streamer.runtime.admission import LATER_S, SOON_S
from streamer.runtime.handover import Book, Handover
from streamer.runtime.pipeline import Pipeline
from streamer.server.actions import IngestFullError
from streamer.server.ingest import MAX_SENDERS, PcmQueue
from streamer.server.messages import IngestStart
from streamer.settings.config import Settings, SourcePlan

if TYPE_CHECKING:
    from streamer.monitor.aid import HearingAid

SENDER = "ingest"  # as an input: clients send it to `/ingest`
READ_S = 0.2
SENDER_STALL_S = 2.0  # a network pauses longer than a microphone: a sender is not silent before
LOST = "the sender was faster than it can be taken"


@dataclass(frozen=True, slots=True)
class Input:
    """One source: its session's id, what is heard, and the settings in force for it. `path`: as in `SourcePlan`.

    `origin`: what its alerts come from. `waiting_samples`: the audio (16 kHz) that the source received and
    did not hand on yet. `handover`: another process had the session. `start`: what its sender said
    first, None: the source is the program's own.
    """

    name: str
    source: Source
    settings: Settings
    path: str = ""
    origin: AlertSource = "live"
    waiting_samples: Callable[[], int] = lambda: 0
    handover: Handover | None = None
    start: IngestStart | None = None


def open_monitor(settings: Settings) -> "HearingAid | None":
    """The hearing aid of the settings, if there is one. Raises InputError, UsageError."""
    if not settings.monitor.enabled:
        return None
    if settings.sources or settings.audio.input is not None:
        raise UsageError("--monitor: plays one microphone; leave --input and `sources:` out")
    from streamer.monitor.aid import HearingAid

    return HearingAid(settings.monitor, settings.audio.device, stall_s=settings.audio.stall_s)


def open_inputs(
    plans: Sequence[SourcePlan], *, server: bool = True, monitor: "HearingAid | None" = None
) -> tuple[Input, ...]:
    """Open every source but those that senders bring, or none. Raises InputError, UsageError: the option or entry.

    `server`: whether there is one, for senders. `monitor`: the microphone that --device names, and the only source.
    """
    audio = plans[0].settings.audio
    at_once = audio.speed == 0
    if monitor:
        return (Input(session_name("s1"), monitor, plans[0].settings),)
    if not plans[0].path and audio.input == SENDER:
        _check_sender("--input ingest", at_once, server)
        return ()
    if not plans[0].path:
        source: Source = open_source(
            audio.device, audio.input, realtime=not at_once, stall_s=audio.stall_s, track=audio.track
        )
        name = session_name("s1", fixed=at_once)
        return (Input(name, source, plans[0].settings, origin=origin(audio.input, at_once)),)
    opened: list[Input] = []
    microphones = _Microphones()
    with ExitStack() as when_refused:
        for plan in plans:
            if plan.settings.audio.input == SENDER:
                _check_sender(f"{plan.path}.input", at_once, server)
                continue
            given = plan.settings.audio
            if given.input is None:
                source = microphones.open(plan, at_once)
            else:
                label = f"{plan.path}.input:"
                source = open_source(input=given.input, realtime=not at_once, track=given.track, label=label)
            when_refused.callback(source.close)
            opened.append(Input(plan.name, source, plan.settings, plan.path, origin(given.input, at_once)))
        when_refused.pop_all()
    return tuple(opened)


def origin(given: str | None, at_once: bool) -> AlertSource:
    """What the alerts of an input come from. In real time a pipe is live: it may bring a microphone or a camera."""
    if given is None or (not at_once and (given == "-" or (given != "demo" and is_pipe(given)))):
        return "live"
    return "demo" if given == "demo" else "file"


def for_model(item: Input, model: str) -> Input:
    """The input itself, but for `nano` its own demo: it does not understand people."""
    audio = item.settings.audio
    if audio.input != "demo" or model != BUNDLED:
        return item
    item.source.close()
    label = f"{item.path}.input:" if item.path else "--input"
    return replace(item, source=FileSource(demo_path(model), realtime=audio.speed == 1, label=label))


def named_senders(plans: Sequence[SourcePlan]) -> dict[str, Settings]:
    """The settings of the entries that senders on `/ingest` bring, by name."""
    return {plan.name: plan.settings for plan in plans if plan.path and plan.settings.audio.input == SENDER}


def session_name(stem: str, *, fixed: bool = False) -> str:
    """A name that no earlier run had, so that a client that comes back knows a new session from the one it left.

    `fixed`: the stem alone, for output that must be the same in every run.
    """
    return stem if fixed else f"{stem}-{datetime.now():%Y%m%dT%H%M%S}"


class IngestSource:
    """A `Source` over the queue of one sender. `stall_s`: so long without sound is `no_audio`, if it is 2 s or more."""

    def __init__(self, queue: PcmQueue, stall_s: float) -> None:
        self.name = queue.session
        self.live = False  # a sender can be made to wait
        self._queue, self._stall_s = queue, max(stall_s, SENDER_STALL_S)

    def blocks(self) -> Iterator[AudioBlock]:
        """Blocks until the sender stops or goes away."""
        start = self._queue.start
        maker = BlockMaker(start.sample_rate)
        heard_s, silent = time.monotonic(), False
        while not self._queue.ended:
            piece = self._queue.read(READ_S)
            if piece is None:
                if not silent and time.monotonic() - heard_s > self._stall_s:
                    silent = True
                    yield AudioBlock(empty(), state="no_audio", reason="the sender is silent")
                continue
            heard_s, silent = time.monotonic(), False
            if piece.lost_frames:
                yield from maker.lost(piece.lost_frames, LOST)
            yield from maker.mix(np.frombuffer(piece.pcm, "<i2").reshape(-1, start.channels))
        yield from maker.finish()

    def waiting_samples(self) -> int:
        """What the sender sent and nobody has read, as samples of 16 kHz."""
        return self._queue.held_frames * SAMPLE_RATE // self._queue.start.sample_rate

    def close(self) -> None:
        """Take no more; `blocks` ends with what was received."""
        self._queue.stop()


class Ingests:
    """Opens a pipeline for every sender. `open` runs in the server's event loop, `sweep` in the main thread."""

    def __init__(
        self,
        make: Callable[[Input], Pipeline],
        closed: Callable[[str], None],
        settings: Settings,
        named: Mapping[str, Settings],
        refusal: Callable[[], str | None] = lambda: None,
        book: Book | None = None,
    ) -> None:
        """`make` builds a sender's pipeline; `closed` hears of sessions that ended; `named`: settings by source.

        `refusal`: why the machine carries no further stream, None: it does. `book` has the sessions of other processes.
        """
        self._book = book
        self._refusal = refusal
        self._make, self._closed, self._settings, self._named = make, closed, settings, named
        self._open: dict[str, Pipeline] = {}
        self._count = 0

    def open(self, start: IngestStart) -> PcmQueue:
        """A session for one more sender. Raises IngestFullError when there are too many, UsageError for its source."""
        if start.source is not None and start.source not in self._named:
            known = ", ".join(self._named) or "none"
            raise UsageError(f"source: {start.source!r} is no source with `input: ingest` here; there are: {known}")
        if len(self._open) >= MAX_SENDERS:
            raise IngestFullError(f"full: {MAX_SENDERS} senders are heard already; try in {LATER_S} s")
        if refusal := self._refusal():
            raise IngestFullError(refusal)
        handover = self._taken_up(start)
        self._count += 1
        source_name = handover.source if handover else start.source
        settings = self._named.get(source_name, self._settings) if source_name else self._settings
        place = f"-{self._book.place}" if self._book else ""
        new = session_name(f"{start.source or 'in'}{self._count}{place}")
        queue = PcmQueue(start, start.session or new, begin_s=handover.begin_s if handover else None)
        source = IngestSource(queue, settings.audio.stall_s)
        pipeline = self._make(
            Input(
                queue.session,
                source,
                settings,
                waiting_samples=source.waiting_samples,
                handover=handover,
                start=start,
            )
        )
        self._open[pipeline.name] = pipeline
        pipeline.start()
        return queue

    def _taken_up(self, start: IngestStart) -> Handover | None:
        """The session that a sender wants to go on; None: it wants a new one."""
        if start.session is None:
            return None
        if start.session in self._open:
            raise IngestFullError(f"session: {start.session} is heard here still; try in {SOON_S} s")
        kept = self._book.take(start.session) if self._book else None
        if kept is None:
            raise UsageError(f"session: {start.session!r} is not kept here; without it a new one begins")
        return Handover.of(kept, start.audio_t, time.time())

    def sweep(self) -> None:
        """Close the sessions of senders that are done: to the last event, which a book passes on late."""
        for name in [name for name, pipeline in self._open.items() if pipeline.done]:
            if self._book and self._book.has(name):
                continue
            del self._open[name]
            self._closed(name)


class _Microphones:
    """Opens microphones on one audio system, each device once."""

    def __init__(self) -> None:
        self._shared: SharedAudio | None = None
        self._taken: dict[int, SourcePlan] = {}

    def open(self, plan: SourcePlan, at_once: bool) -> Source:
        audio, where = plan.settings.audio, f"{plan.path}.device"
        if at_once:
            raise UsageError(f"{where}: a microphone cannot be heard at --speed 0; leave --speed at 1, or give files")
        try:
            self._shared = self._shared or SharedAudio()
            device = choose_device(self._shared.devices(), audio.device)
            other = self._taken.setdefault(device.index, plan)
            if other is not plan:
                raise InputError(f"{where}: {device.name!r} is the device of {other.path} too; give another")
            return Microphone(audio.device, backend=self._shared, stall_s=audio.stall_s)
        except InputError as error:
            raise InputError(str(error).replace("--device", where, 1)) from None


def _check_sender(where: str, at_once: bool, server: bool) -> None:
    """`where`: the option or entry that asks for senders."""
    if at_once:
        raise UsageError(f"{where}: senders cannot be heard at --speed 0; leave --speed at 1, or give files")
    if not server:
        raise UsageError(f"{where}: senders need the server; leave --no-server out")
