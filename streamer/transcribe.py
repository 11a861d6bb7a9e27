"""`streamer transcribe FILE…`: whole files through the same engine as the live program, as fast as it goes.

A result appears only when it is complete: it is written beside its place and then renamed.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from streamer.audio.files import FileSource
from streamer.config import Settings
from streamer.errors import UsageError
from streamer.events import SAMPLE_RATE, UNCLEAR, Event, Sound, Transcript
from streamer.model.whisper import Model
from streamer.runtime.stream import Stream
from streamer.sinks.captions import EventWriter, JsonlWriter, SrtWriter, VttWriter
from streamer.sinks.plain_text import clean

Format = Literal["text", "srt", "vtt", "jsonl"]
SUFFIXES: dict[Format, str] = {"text": ".txt", "srt": ".srt", "vtt": ".vtt", "jsonl": ".jsonl"}
Progress = Callable[[float, float | None], None]


class TextWriter:
    """One line per utterance; sounds and what was unclear in brackets on lines of their own, as they began."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lines: list[tuple[float, int, str]] = []

    def begin(self) -> None:
        """Nothing is written before the end."""

    def write(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, Transcript) and event.final:
            if event.text:
                self._lines.append((event.start, event.seq, clean(event.text)))
            self._lines += [(span.start, event.seq, UNCLEAR) for span in event.unclear]
        elif isinstance(event, Sound) and event.state == "start":
            self._lines.append((event.start, event.seq, f"[{clean(event.label)}]"))

    def close(self) -> None:
        """Write all lines."""
        text = "".join(line + "\n" for _, _, line in sorted(self._lines))
        Path(self._path).write_text(text, encoding="utf-8")


WRITERS: dict[Format, Callable[[str], EventWriter]] = {
    "text": TextWriter,
    "srt": SrtWriter,
    "vtt": VttWriter,
    "jsonl": JsonlWriter,
}


def target_of(file: Path, kind: Format, folder: Path | None) -> Path | None:
    """Where the result of `file` goes: into `folder` under the file's own name; None: stdout."""
    return None if folder is None else folder / (file.stem + SUFFIXES[kind])


def check_targets(files: Sequence[Path], kind: Format, folder: Path | None) -> None:
    """Raise UsageError when two results would have the same name or the folder cannot take them."""
    if folder is None:
        return
    seen: dict[Path, Path] = {}
    for file in files:
        target = folder / (file.stem + SUFFIXES[kind])
        if target in seen:
            raise UsageError(f"--output {folder}: {seen[target]} and {file} would both become {target.name}")
        seen[target] = file
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output {folder}: must be a folder: {error.strerror}") from None


def transcribe(
    model: Model, settings: Settings, file: Path, kind: Format, target: Path | None, progress: Progress
) -> None:
    """Transcribe one file. Raises InputError, UsageError.

    `progress` is told how many seconds of the file are done and how long it says it is (None: it does not say).
    """
    source = FileSource(str(file), realtime=False, label="file", track=settings.audio.track)
    with _whole_file(target, file, kind) as path:
        writer = WRITERS[kind](path)
        writer.begin()
        stream = Stream(model, settings)
        done = 0
        for block in source.blocks():
            events = stream.lost(block.lost_samples, block.reason) if block.lost_samples else []
            for event in events + stream.push(block.samples):
                writer.write(event)
            done += block.lost_samples + len(block.samples)
            progress(done / SAMPLE_RATE, source.duration_s)
        for event in stream.finish():
            writer.write(event)
        writer.close()


@contextmanager
def _whole_file(target: Path | None, file: Path, kind: Format) -> Iterator[str]:
    """A path to write to; afterwards its content is at `target` (None: on stdout), or nowhere after an error."""
    made, name = tempfile.mkstemp(SUFFIXES[kind], f".{file.stem}.", target.parent if target else None)
    os.close(made)
    temporary = Path(name)
    try:
        yield str(temporary)
        if target:
            temporary.chmod(0o666 & ~_umask())
            os.replace(temporary, target)
        else:
            sys.stdout.write(temporary.read_text(encoding="utf-8"))
            sys.stdout.flush()
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
