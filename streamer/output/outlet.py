"""The outlet: one thread that writes events to files and to the terminal, so that a slow disk never delays the model.

Full-queue rule: 10,000 events wait; then the worker waits, because files lose nothing. What cannot be written (the disk
is full, the server of the folder is away) is said once, on stderr and to everybody; it is kept, up to 16 MB a file, and
tried again, ever less often, until it can be. The other sinks go on. Where several sources share the view, each one's
name stands in front.
"""

import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from streamer.errors import Backoff, UsageError
from streamer.events import Alert, Event, Gap, Sound, State, Status, Transcript
from streamer.output.captions import Format
from streamer.output.daily import DailyFiles
from streamer.output.event_file import EventFile, OutputError
from streamer.output.plain_text import source_of
from streamer.output.terminal import TerminalView
from streamer.settings.config import OutputSettings

log = logging.getLogger(__name__)

LIMIT_EVENTS = 10_000
RETRY_S = 0.25  # how often the thread looks whether something is to be tried again
STEADY_S = 10.0  # without a further failure: what comes is written again
_GRAVITY: Mapping[State, int] = {"stopped": 0, "listening": 1, "starting": 2, "degraded": 3, "no_audio": 3}
OnTrouble = Callable[[State, str], None]
Target = tuple[Format, str | None, str]  # what, session (None: all), path


def screen(output: OutputSettings) -> TextIO | None:
    """Where the terminal view is shown, if it is."""
    return None if output.quiet else sys.stderr if output.jsonl == "-" else sys.stdout


class Sinks:
    """The files and the terminal view of one run. Not for several threads.

    Captions are those of the program's own sources: several of them have a file each, with the source's name before
    the suffix. What senders on `/ingest` say stands in the JSONL only.
    """

    def __init__(
        self,
        output: OutputSettings,
        sessions: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the files without changing them; UsageError names the option of one that cannot be written.

        `sessions`: the program's own, by name.
        """
        self._clock = clock
        self._troubled: dict[EventFile, _Trouble] = {}
        self._on_trouble: OnTrouble = lambda state, detail: None
        self.view: TerminalView | None = None
        self.failed = False
        self.reader_gone = False  # whoever read our stdout went away
        self._naming = Naming(sessions)
        self._files = [(session, EventFile(path, kind)) for kind, session, path in file_targets(output, sessions)]
        self._daily = DailyFiles(output.transcripts) if output.transcripts else None
        self._late: list[EventFile] = []  # over, but not all of it could be written yet

    def begin(self) -> None:
        """Everything else works: empty the files."""
        for _, file in self._files:
            file.begin()

    def show_on(self, screen: TextIO | None) -> None:
        """Show the terminal view on `screen`."""
        self.view = TerminalView(screen) if screen else None

    def tell_of_trouble(self, on_trouble: OnTrouble) -> None:
        """Have it called with `degraded` when a file cannot be written, and with `listening` when all can be again."""
        self._on_trouble = on_trouble

    @property
    def troubled(self) -> bool:
        """Whether something waits to be tried again."""
        return bool(self._troubled)

    def write(self, event: Event) -> None:
        """Give one event to every sink."""
        for session, file in list(self._files):
            if session in (None, event.session):
                self._attempt(file, lambda file=file: file.write(event))  # type: ignore[misc]
        if self._daily:
            self._write_daily(self._daily, event)
        self.retry()
        if self.view and (shown := self._naming.step(event)):
            try:
                self.view.show(shown)
            except Exception as error:  # the top of the view: the files go on without it
                log.error("the terminal view ends: %s", error, exc_info=log.isEnabledFor(logging.DEBUG))
                self.view = None

    def _write_daily(self, daily: DailyFiles, event: Event) -> None:
        """Give it to its session's file of the day."""
        file, yesterday = daily.file_for(event)
        self._attempt(file, lambda: file.write(event))
        for over in filter(None, (yesterday, daily.ended(event))):
            self._attempt(over, over.retry)
            self._late.append(over)

    def retry(self) -> None:
        """Try what could not be written once more, where its time has come; close what is over and written."""
        for file, trouble in list(self._troubled.items()):
            if self._clock() >= trouble.again_s:
                self._attempt(file, file.retry)
        for file in [file for file in self._late if file not in self._troubled]:
            self._late.remove(file)
            self._end(file)

    def close(self) -> None:
        """Finish the files and leave the terminal."""
        for file in [*(file for _, file in self._files), *self._late, *(self._daily.all() if self._daily else [])]:
            self._end(file)
        if self.view:
            self.view.close()

    def _end(self, file: EventFile) -> None:
        self._attempt(file, file.close)
        self.failed |= file in self._troubled or file.lost > 0
        self._troubled.pop(file, None)  # it is closed: there is nothing to try again

    def _attempt(self, file: EventFile, work: Callable[[], None]) -> None:
        """Write; what fails is said, once, and tried again later. The same for what is well again."""
        try:
            work()
        except BrokenPipeError:
            self.reader_gone = True
            self._files = [(session, other) for session, other in self._files if other is not file]
            self._troubled.pop(file, None)
        except OutputError as error:
            trouble = self._troubled.setdefault(file, _Trouble(Backoff()))
            trouble.again_s = self._clock() + trouble.backoff.rest_s(self._clock())
            if str(error) != trouble.said:
                trouble.said = str(error)
                log.error("%s", error)
                self._on_trouble("degraded", f"{error}; it is kept and tried again")
        else:
            if file in self._troubled and not file.waits:
                del self._troubled[file]
                lost = f"; {file.lost} pieces did not fit into memory and are lost" if file.lost else ""
                log.warning("%s is written again%s", file.where, lost)
                if not self._troubled:
                    self._on_trouble("listening", "")


@dataclass(slots=True)
class _Trouble:
    """A file that cannot be written: what was said of it, and when it is tried again."""

    backoff: Backoff
    said: str = ""
    again_s: float = 0.0


class Naming:
    """Puts `kitchen: ` in front of what people read; of the states of all sources the gravest is shown.

    `sessions`: the program's own. One alone needs no name; senders on `/ingest` have one always.
    """

    def __init__(self, sessions: Iterable[str]) -> None:
        own = list(sessions)
        self._labels = {own[0]: ""} if len(own) == 1 else {name: f"{name}: " for name in own}
        self._states: dict[str, Status] = {}
        self._shown: Status | None = None

    def step(self, event: Event) -> Event | None:
        """The event to show; None: what is shown stays."""
        if isinstance(event, Status):
            return self._status(event)
        label = self._label(event.session)
        match event:
            case Transcript() if event.text:
                return replace(event, text=label + event.text)
            case Transcript() if event.partial:
                return replace(event, partial=label + event.partial)
            case Transcript() if event.unclear:
                return replace(event, text=label)
            case Sound():
                return replace(event, label=label + event.label)
            case Alert():
                return replace(event, rule=label + event.rule)
            case Gap():
                return replace(event, reason=label + event.reason)
        return event

    def _label(self, session: str) -> str:
        return self._labels.setdefault(session, f"{source_of(session)}: ")

    def _status(self, event: Status) -> Status | None:
        self._states[event.session] = event
        gravest = max(_GRAVITY[status.state] for status in self._states.values())
        if _GRAVITY[event.state] == gravest:
            chosen = event
        else:
            others = [status for status in self._states.values() if _GRAVITY[status.state] == gravest]
            chosen = next((status for status in others if status is self._shown), others[0])
        if event.state == "stopped" and event is not chosen:
            del self._states[event.session]
        if chosen is self._shown:
            return None
        self._shown = chosen
        return replace(chosen, detail=self._label(chosen.session) + chosen.detail) if chosen.detail else chosen


class Outlet:
    """The thread that owns `sinks`. `on_trouble`: as `Sinks.tell_of_trouble`, called in that thread."""

    def __init__(self, sinks: Sinks, on_trouble: OnTrouble | None = None) -> None:
        self._sinks = sinks
        self._on_trouble: OnTrouble = on_trouble or (lambda state, detail: None)
        self._failing, self._failed_s = "", 0.0  # what an event failed on lately, and when the last one did
        if on_trouble is not None:
            sinks.tell_of_trouble(on_trouble)
        self._queue: queue.Queue[Event | tuple[float | None, float] | None] = queue.Queue(LIMIT_EVENTS)
        self._thread = threading.Thread(target=self._run, name="outlet", daemon=True)

    def start(self, screen: TextIO | None = None) -> None:
        """Show the terminal view on `screen`, and start the thread."""
        self._sinks.show_on(screen)
        self._thread.start()

    def put(self, events: Sequence[Event]) -> None:
        """Queue events (worker thread); waits while 10,000 wait already."""
        for event in events:
            self._queue.put(event)

    @property
    def reader_gone(self) -> bool:
        """Whether whoever read our JSONL on stdout went away."""
        return self._sinks.reader_gone

    def meter(self, level_dbfs: float | None, lag_s: float) -> None:
        """Show level and lag soon; dropped when the queue is busy."""
        if self._sinks.view and self._queue.empty():
            self._queue.put((level_dbfs, lag_s))

    def stop(self, timeout_s: float | None) -> bool:
        """Write what is queued, close the sinks, end the thread; False when it did not end in time (None: wait)."""
        try:
            self._queue.put(None, timeout=timeout_s)
        except queue.Full:
            return False
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while self._serve():
                pass
        finally:
            self._sinks.close()

    def _serve(self) -> bool:
        """Write what comes next; False: the end. What fails for no reason of the files' costs that one event, which
        people are told of; the next is tried again.
        """
        try:
            try:
                item = self._queue.get(timeout=RETRY_S if self._sinks.troubled else None)
            except queue.Empty:
                self._sinks.retry()
                return True
            if item is None:
                return False
            if isinstance(item, tuple):
                if self._sinks.view:
                    self._sinks.view.show_meter(*item)
            else:
                self._sinks.write(item)
        except Exception as error:  # the top of the thread
            what = f"{type(error).__name__}: {error}".partition("\n")[0]
            if what != self._failing:
                log.error("outlet: %s", what, exc_info=log.isEnabledFor(logging.DEBUG))
                self._on_trouble("degraded", f"not all of it is written ({what})")
            self._failing, self._failed_s, self._sinks.failed = what, time.monotonic(), True
        else:
            if self._failing and time.monotonic() - self._failed_s >= STEADY_S:
                self._failing = ""
                log.warning("outlet: written again")
                self._on_trouble("listening", "")
        return True


def caption_path(path: str, name: str) -> str:
    """Where the captions of one of several sources go: `talk.srt` becomes `talk.kitchen.srt`."""
    given = Path(path)
    return str(given.with_name(f"{given.stem}.{name}{given.suffix}"))


def file_targets(output: OutputSettings, sessions: Sequence[str]) -> list[Target]:
    """The files of a run whose own sessions these are. Raises UsageError for captions that have no file."""
    targets: list[Target] = [("jsonl", None, output.jsonl)] if output.jsonl else []
    return targets + _caption_targets("srt", output.srt, sessions) + _caption_targets("vtt", output.vtt, sessions)


def _caption_targets(kind: Format, path: str | None, sessions: Sequence[str]) -> list[Target]:
    if path is None:
        return []
    if not sessions:
        raise UsageError(f"--{kind} {path}: there are only senders, whose events stand in --jsonl")
    if len(sessions) == 1:
        return [(kind, sessions[0], path)]
    if path == "-" or not Path(path).name:
        raise UsageError(f"--{kind} {path}: there are several sources, each with a file of its own; give a path")
    return [(kind, name, caption_path(path, name)) for name in sessions]
