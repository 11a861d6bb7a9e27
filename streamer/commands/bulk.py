"""`streamer transcribe --cluster`: whole files on the machines of a cluster, one line for each that is done.

Files and --output must be the same for all machines (a shared folder). The results are those of `streamer transcribe`,
and so is what an interrupted run leaves: whoever gets a file that another machine was at goes on where that one was.
"""

import csv
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamer.cluster.bulk import spread
from streamer.commands.transcribe import check_targets, is_done, target_of, transcribe
from streamer.errors import StreamerError, UsageError
from streamer.output.captions import Format
from streamer.settings.config import Settings

SOUND = frozenset(
    ("wav", "flac", "mp3", "m4a", "aac", "ogg", "opus", "oga", "webm", "mp4", "mkv", "mov", "aif", "aiff", "amr", "wma")
)


@dataclass(frozen=True, slots=True)
class FileDone:
    """What became of one file: seconds of audio, seconds of work, what there is to tell."""

    audio_s: float
    took_s: float
    failed: bool
    told: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileWork:
    """Makes what transcribes one file after the other in a process of the cluster."""

    settings: Settings
    kind: Format
    folder: Path

    def __call__(self, cpus: int) -> Callable[[Path], FileDone]:
        """Load the model, once."""
        from streamer.commands.run import load

        threads = self.settings.model.threads or cpus
        given = self.settings.model.model_copy(update={"threads": threads})
        settings = self.settings.model_copy(update={"model": given})
        model = load(settings, tell=lambda step: None, live=False)

        def work(file: Path) -> FileDone:
            began_s, told, seconds = time.monotonic(), list[str](), [0.0]

            def progress(path: Path, done_s: float, total_s: float | None) -> None:
                seconds[0] = max(seconds[0], done_s)

            failed = transcribe(model, settings, [file], self.kind, self.folder, progress=progress, tell=told.append)
            return FileDone(seconds[0], time.monotonic() - began_s, failed > 0, tuple(told))

        return work


def transcribe_spread(
    settings: Settings, given: Sequence[Path], kind: Format, folder: Path | None, *, resume: bool
) -> int:
    """Transcribe files, folders and lists on the cluster of the settings; the exit status: 2 where a file failed."""
    if folder is None:
        raise UsageError("--cluster: needs --output FOLDER, which all machines share")
    files = [file.resolve() for file in listed(given)]
    folder = folder.resolve()
    check_targets(files, kind, folder, resume=resume)
    due = [file for file in files if not (resume and is_done(file, target_of(file, kind, folder)))]
    if not due:
        return 0
    began_s, audio_s, failed = time.monotonic(), 0.0, 0
    for file, done in spread(settings.cluster, FileWork(settings, kind, folder), due):
        if isinstance(done, StreamerError):
            failed += 1
            _say(f"{file}: {done}")
            continue
        failed += done.failed
        audio_s += done.audio_s
        for line in done.told:
            _say(line)
        if not done.failed:
            _say(f"{file}: {done.audio_s:.0f} s of audio in {done.took_s:.1f} s")
    minutes = (time.monotonic() - began_s) / 60
    _say(f"{len(due) - failed} files, {audio_s / 3600:.2f} hours of audio, {audio_s / 3600 / minutes:.2f} each minute")
    return 2 if failed else 0


def listed(given: Iterable[Path]) -> list[Path]:
    """The files themselves: of folders all that sounds, of a .csv its column `path`, from where it lies.

    Raises UsageError: a list that cannot be read, nothing at all.
    """
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            found += sorted(file for file in path.rglob("*") if file.suffix.lower()[1:] in SOUND)
        elif path.suffix.lower() == ".csv":
            found += _of_list(path)
        else:
            found.append(path)
    if not found:
        raise UsageError(f"{', '.join(map(str, given))}: there is no audio or video in it")
    return found


def _of_list(path: Path) -> list[Path]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if "path" not in (rows.fieldnames or ()):
                raise UsageError(f"{path}: a column `path` is needed")
            return [path.parent / row["path"] for row in rows if row["path"]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _say(line: str) -> None:
    sys.stderr.write(f"streamer: {line}\n")
