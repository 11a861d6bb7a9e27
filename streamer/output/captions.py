"""Files that are written while the session runs and are valid at every moment: JSONL, SubRip (SRT), WebVTT and text.

Whole lines and whole cues are appended, each in one write, and only when nothing in them can change any more. When the
disk is full, what was begun is taken back and an OutputError names the option. WebVTT: W3C recommendation of 2019.
"""

import os
import stat
import sys
from typing import Protocol

from streamer.errors import StreamerError, UsageError
from streamer.events import UNCLEAR, Event, Sound, Transcript
from streamer.output.cues import Cue, CueMaker
from streamer.output.plain_text import clean


class OutputError(StreamerError):
    """A file that was being written cannot be written any more; the message starts with its option."""


class EventWriter(Protocol):
    """A sink of events. Raises OutputError."""

    def begin(self) -> None:
        """Empty the file; until then its old content stays. The first event does it too."""

    def write(self, event: Event) -> None:
        """Take one event."""

    def close(self) -> None:
        """Write what is left and close; any number of times."""


class JsonlWriter:
    """Every event as one line of JSON; `-` is stdout; when its reader goes away, `broken` turns True."""

    def __init__(self, path: str, option: str = "--jsonl") -> None:
        """Open the file as it is. Raises UsageError."""
        self.broken = False
        self._file = _AppendedFile(path, option)

    def begin(self) -> None:
        """Empty the file."""
        self._file.begin()

    def write(self, event: Event) -> None:
        """Append one event."""
        if self.broken:
            return
        try:
            self._file.append(event.to_json() + "\n")
        except BrokenPipeError:
            self.broken = True
            self._file.detach()

    def close(self) -> None:
        """Close the file; stdout stays open."""
        self._file.close()


class SrtWriter:
    """Captions as SubRip."""

    def __init__(self, path: str, option: str = "--srt") -> None:
        """Open the file as it is. Raises UsageError."""
        self._file = _AppendedFile(path, option)
        self._cues = CueMaker()
        self._count = 0

    def begin(self) -> None:
        """Empty the file."""
        self._file.begin()

    def write(self, event: Event) -> None:
        """Append the cues that became final with this event."""
        for cue in self._cues.step(event):
            self._append(cue)

    def close(self) -> None:
        """Write the last cues and close."""
        for cue in self._cues.finish():
            self._append(cue)
        self._file.close()

    def _append(self, cue: Cue) -> None:
        self._count += 1
        self._file.append(srt_cue(cue, self._count))


class VttWriter:
    """Captions as WebVTT; the header is there from `begin` on."""

    def __init__(self, path: str, option: str = "--vtt") -> None:
        """Open the file as it is. Raises UsageError."""
        self._file = _AppendedFile(path, option)
        self._cues = CueMaker()
        self._begun = False

    def begin(self) -> None:
        """Empty the file and write the header."""
        if not self._begun:
            self._begun = True
            self._file.append("WEBVTT\n\n")

    def write(self, event: Event) -> None:
        """Append the cues that became final with this event."""
        self.begin()
        for cue in self._cues.step(event):
            self._file.append(vtt_cue(cue))

    def close(self) -> None:
        """Write the last cues and close."""
        self.begin()
        for cue in self._cues.finish():
            self._file.append(vtt_cue(cue))
        self._file.close()


class TextWriter:
    """A line for each segment, and one in brackets for each sound; those decided at one time in order of start."""

    def __init__(self, path: str, option: str) -> None:
        """Open the file as it is. Raises UsageError."""
        self._file = _AppendedFile(path, option)
        self._lines: list[tuple[float, int, str]] = []
        self._decided = 0.0

    def begin(self) -> None:
        """Empty the file."""
        self._file.begin()

    def write(self, event: Event) -> None:
        """Take one event; what was decided before it is appended."""
        if event.audio_t != self._decided:
            self._append()
            self._decided = event.audio_t
        if isinstance(event, Transcript) and event.final:
            if event.text:
                self._lines.append((event.start, event.seq, clean(event.text)))
            self._lines += [(span.start, event.seq, UNCLEAR) for span in event.unclear]
        elif isinstance(event, Sound) and event.state == "start":
            self._lines.append((event.start, event.seq, f"[{clean(event.label)}]"))

    def close(self) -> None:
        """Append what is left and close."""
        self._append()
        self._file.close()

    def _append(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            self._file.append("".join(f"{line}\n" for _, _, line in sorted(lines)))


def srt_cue(cue: Cue, number: int) -> str:
    """One SubRip block, counted from 1; an arrow in the text would be taken for a time line."""
    text = "\n".join(line.replace("-->", "→") for line in cue.lines)
    return f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n{text}\n\n"


def vtt_cue(cue: Cue) -> str:
    """One WebVTT block, its text escaped."""
    text = "\n".join(line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for line in cue.lines)
    return f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n{text}\n\n"


def _clock(ms: int, point: str) -> str:
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{point}{ms % 1000:03d}"


def _stdout_descriptor() -> int:
    try:
        return sys.stdout.fileno()
    except OSError:
        raise UsageError("--jsonl -: stdout is no file here; give a path") from None


class _AppendedFile:
    """An unbuffered file that only grows by whole pieces; `-` is stdout, which is flushed first and never closed."""

    def __init__(self, path: str, option: str) -> None:
        self._where = f"{option} {path}"
        self._own = path != "-"
        self._fd: int | None
        if not self._own:
            sys.stdout.flush()
            self._fd = _stdout_descriptor()
        else:
            try:
                self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except (OSError, ValueError) as exc:
                why = exc.strerror if isinstance(exc, OSError) else str(exc)
                raise UsageError(f"{self._where}: cannot be written: {why}; give the path of a file") from None
        self._regular = self._own and stat.S_ISREG(os.fstat(self._fd).st_mode)
        if self._regular:
            self._lock()
        self._size = 0
        self._begun = False

    def begin(self) -> None:
        """Empty the file; what was in it before is kept until then. Later calls do nothing."""
        if not self._begun and self._regular and self._fd is not None:
            os.ftruncate(self._fd, 0)
        self._begun = True

    def append(self, text: str) -> None:
        """Write one whole piece. Raises BrokenPipeError for a pipe without reader, else OutputError."""
        self.begin()
        if self._fd is None:
            return
        data = memoryview(text.encode("utf-8", "replace"))
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError as exc:
            if isinstance(exc, BrokenPipeError) and not self._own:
                raise
            self._take_back(written)
            raise OutputError(f"{self._where}: cannot be written any more: {exc.strerror}") from None
        self._size += written

    def detach(self) -> None:
        """Stop writing to a pipe whose reader is gone, also when Python flushes stdout at its end."""
        if not self._own and self._fd is not None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._fd)
            os.close(nowhere)
        self.close()

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None and self._own:
            os.close(fd)

    def _lock(self) -> None:
        """Two programs must not write one file. Where there are no locks, there are none."""
        assert self._fd is not None
        try:
            import fcntl
        except ImportError:
            return
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise UsageError(f"{self._where}: another program is writing it; give another path") from None
        except OSError:
            return

    def _take_back(self, written: int) -> None:
        if written and self._regular and self._fd is not None:
            os.ftruncate(self._fd, self._size)
            os.lseek(self._fd, self._size, os.SEEK_SET)
