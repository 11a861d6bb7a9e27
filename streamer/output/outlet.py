"""The outlet: one thread that writes events to files and to the terminal, so that a slow disk never delays the model.

Full-queue rule: 10,000 events wait; then the worker waits, because files lose nothing. What cannot be written is said
once, on stderr; the other sinks go on. Where several sources share the view, each one's name stands in front.
"""

import logging
import os
import queue
import stat
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from streamer.errors import StreamerError, UsageError
from streamer.events import Alert, Event, Gap, Sound, State, Status, Transcript
from streamer.output.captions import Format, layout_of
from streamer.output.terminal import TerminalView
from streamer.settings.config import OutputSettings

log = logging.getLogger(__name__)

LIMIT_EVENTS = 10_000
_GRAVITY: Mapping[State, int] = {"stopped": 0, "listening": 1, "starting": 2, "degraded": 3, "no_audio": 3}
_Target = tuple[Format, str | None, str]  # what, session (None: all), path


class OutputError(StreamerError):
    """A file that was being written cannot be written any more; the message starts with its option."""


class EventFile:
    """Events in one file, valid at every moment: it only grows, by whole pieces. `-` is stdout, which is not closed.

    When the disk is full, what was begun is taken back. `write` and `close` raise OutputError, which names the option,
    and BrokenPipeError where whoever read our stdout went away; then nothing more is written.
    """

    def __init__(self, path: str, kind: Format, option: str = "") -> None:
        """Open the file as it is: what is in it stays until `begin`. `option`: "" for `--KIND`. Raises UsageError."""
        self._where = f"{option or f'--{kind}'} {path}"
        self._layout = layout_of(kind)
        self._own = path != "-"
        self._fd: int | None = self._open(path)
        self._regular = self._own and stat.S_ISREG(os.fstat(self._fd).st_mode)
        self._size = 0
        self._begun = False
        if self._regular:
            self._lock()

    def begin(self) -> None:
        """Empty the file. The first event does it too; later calls do nothing."""
        if self._begun:
            return
        self._begun = True
        if self._regular and self._fd is not None:
            os.ftruncate(self._fd, 0)
        self._append(self._layout.header)

    def write(self, event: Event) -> None:
        """Append what is settled with this event."""
        self.begin()
        self._append(self._layout.step(event))

    def close(self) -> None:
        """Append what is left and close; any number of times."""
        if self._begun:
            self._append(self._layout.finish())
        fd, self._fd = self._fd, None
        if fd is not None and self._own:
            os.close(fd)

    def _open(self, path: str) -> int:
        if not self._own:
            sys.stdout.flush()
            try:
                return sys.stdout.fileno()
            except OSError:
                raise UsageError(f"{self._where}: stdout is no file here; give a path") from None
        try:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)  # what people said
        except (OSError, ValueError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else str(exc)
            raise UsageError(f"{self._where}: cannot be written: {why}; give the path of a file") from None

    def _append(self, text: str) -> None:
        """Write one whole piece."""
        if self._fd is None or not text:
            return
        data = memoryview(text.encode("utf-8", "replace"))
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError as exc:
            if isinstance(exc, BrokenPipeError) and not self._own:
                self._detach(self._fd)
                raise
            if written and self._regular:
                os.ftruncate(self._fd, self._size)
                os.lseek(self._fd, self._size, os.SEEK_SET)
            raise OutputError(f"{self._where}: cannot be written any more: {exc.strerror}") from None
        self._size += written

    def _detach(self, fd: int) -> None:
        """Stop writing to a pipe whose reader is gone, also when Python flushes stdout at its end."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, fd)
        os.close(nowhere)
        self._fd = None

    def _lock(self) -> None:
        """Two programs must not write one file. Where there are no locks, there are none."""
        assert self._fd is not None
        try:
            import fcntl

            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise UsageError(f"{self._where}: another program is writing it; give another path") from None
        except (ImportError, OSError):
            return


def screen(output: OutputSettings) -> TextIO | None:
    """Where the terminal view is shown, if it is."""
    return None if output.quiet else sys.stderr if output.jsonl == "-" else sys.stdout


class Sinks:
    """The files and the terminal view of one run. Not for several threads.

    Captions are those of the program's own sources: several of them have a file each, with the source's name before
    the suffix. What senders on `/ingest` say stands in the JSONL only.
    """

    def __init__(self, output: OutputSettings, sessions: Sequence[str], inputs: Iterable[str | None] = ()) -> None:
        """Open the files without changing them; UsageError names the option of one that cannot be written.

        `sessions`: the program's own, by name. `inputs`: the input files, which must not be written over.
        """
        self.view: TerminalView | None = None
        self.failed = False
        self.reader_gone = False  # whoever read our stdout went away
        self._naming = Naming(sessions)
        targets: list[_Target] = [("jsonl", None, output.jsonl)] if output.jsonl else []
        targets += _caption_targets("srt", output.srt, sessions) + _caption_targets("vtt", output.vtt, sessions)
        self._files = [(session, EventFile(path, kind)) for kind, session, path in targets]
        _check_distinct(targets, inputs)

    def begin(self) -> None:
        """Everything else works: empty the files."""
        for _, file in self._files:
            file.begin()

    def show_on(self, screen: TextIO | None) -> None:
        """Show the terminal view on `screen`."""
        self.view = TerminalView(screen) if screen else None

    def write(self, event: Event) -> None:
        """Give one event to every sink."""
        for session, file in list(self._files):
            if session not in (None, event.session):
                continue
            try:
                file.write(event)
            except BrokenPipeError:
                self.reader_gone = True
                self._files.remove((session, file))
            except OutputError as error:
                log.error("%s", error)
                self.failed = True
                self._files.remove((session, file))
        if self.view and (shown := self._naming.step(event)):
            self.view.show(shown)

    def close(self) -> None:
        """Finish the files and leave the terminal."""
        for _, file in self._files:
            try:
                file.close()
            except BrokenPipeError:
                self.reader_gone = True
            except OutputError as error:
                log.error("%s", error)
                self.failed = True
        if self.view:
            self.view.close()


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
        return self._labels.setdefault(session, f"{session.rsplit('-', 1)[0]}: ")

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
    """The thread that owns `sinks`."""

    def __init__(self, sinks: Sinks) -> None:
        self._sinks = sinks
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
            while (item := self._queue.get()) is not None:
                if isinstance(item, tuple):
                    if self._sinks.view:
                        self._sinks.view.show_meter(*item)
                else:
                    self._sinks.write(item)
        except Exception as error:  # the top of the thread
            log.error("outlet: %s", error, exc_info=log.isEnabledFor(logging.DEBUG))
            self._sinks.failed = True
            self._drain()
        finally:
            self._sinks.close()

    def _drain(self) -> None:
        """Nothing can be written any more: keep taking events, so that the worker does not wait for ever."""
        while self._queue.get() is not None:
            pass


def caption_path(path: str, name: str) -> str:
    """Where the captions of one of several sources go: `talk.srt` becomes `talk.kitchen.srt`."""
    given = Path(path)
    return str(given.with_name(f"{given.stem}.{name}{given.suffix}"))


def _caption_targets(kind: Format, path: str | None, sessions: Sequence[str]) -> list[_Target]:
    if path is None:
        return []
    if not sessions:
        raise UsageError(f"--{kind} {path}: there are only senders, whose events stand in --jsonl")
    if len(sessions) == 1:
        return [(kind, sessions[0], path)]
    if path == "-" or not Path(path).name:
        raise UsageError(f"--{kind} {path}: there are several sources, each with a file of its own; give a path")
    return [(kind, name, caption_path(path, name)) for name in sessions]


def _check_distinct(targets: Sequence[_Target], inputs: Iterable[str | None]) -> None:
    """Refuse to write two things into one file, or captions over the recording."""
    taken = {Path(source).resolve(): "--input" for source in inputs if source and Path(source).is_file()}
    for kind, _, path in targets:
        if path != "-" and Path(path).is_file():
            if (other := taken.get(Path(path).resolve())) is not None:
                raise UsageError(f"--{kind} {path}: is what {other} names too; give each a file of its own")
            taken[Path(path).resolve()] = f"--{kind}"
