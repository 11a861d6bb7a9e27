"""`streamer transcribe FILE…`: whole files in windows with look-ahead, as openai-whisper reads them.

A result appears under its name only when it is complete: it is written beside its place and then renamed. What the
model found so far is kept there too (`WindowLog`), and the same command goes on from there. Models that were never
trained to go on from earlier text (nano) hear a file as they hear a room: through `Stream`.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from streamer.audio.files import FileSource, demo_path
from streamer.errors import UsageError
from streamer.events import SAMPLE_RATE, Event
from streamer.model.whisper import Model
from streamer.output.captions import Format
from streamer.output.event_file import EventFile
from streamer.runtime.offline import OfflineEngine, WindowRequest, WindowResult
from streamer.runtime.recording import Recording, WindowLog
from streamer.runtime.stream import Stream
from streamer.settings.config import Settings
from streamer.settings.deliveries import make_private

SUFFIXES: dict[Format, str] = {"text": ".txt", "srt": ".srt", "vtt": ".vtt", "jsonl": ".jsonl"}
Progress = Callable[[Path, float, float | None], None]
AT_ONCE = 4  # files whose windows share each reading of the decoder's weights: 40 % less processor time a token


def target_of(file: Path, kind: Format, folder: Path | None) -> Path | None:
    """Where the result of `file` goes: into `folder` under the file's own name; None: stdout."""
    return None if folder is None else folder / (file.stem + SUFFIXES[kind])


def check_targets(files: Sequence[Path], kind: Format, folder: Path | None, *, resume: bool = False) -> None:
    """Raise UsageError when two results would have the same name or the folder cannot take them."""
    if folder is None:
        if resume:
            raise UsageError("--resume: needs --output FOLDER, where it can see what is done")
        return
    seen: dict[Path, Path] = {}
    for file in files:
        target = folder / (file.stem + SUFFIXES[kind])
        if target in seen:
            raise UsageError(f"--output {folder}: {seen[target]} and {file} would both become {target.name}")
        seen[target] = file
    try:
        make_private(folder)
    except OSError as error:
        raise UsageError(f"--output {folder}: must be a folder: {error.strerror}") from None


def sound_of(file: Path, model: Model) -> Path:
    """The file itself; `demo`, where no file is called so, is the bundled one that fits the model."""
    return Path(demo_path(model.name)) if file == Path("demo") and not file.exists() else file


def is_done(file: Path, target: Path | None) -> bool:
    """Whether the result is there and newer than the file."""
    try:
        return target is not None and target.stat().st_mtime_ns >= file.stat().st_mtime_ns
    except OSError:
        return False


def transcribe(
    model: Model,
    settings: Settings,
    files: Sequence[Path],
    kind: Format,
    folder: Path | None,
    *,
    progress: Progress,
    tell: Callable[[str], None],
) -> int:
    """Transcribe all files; how many could not be. The others are done all the same.

    `progress` is told of a file how many seconds are done and how long it is (None: not known yet); `tell` gets a line
    for each file that fails, goes on from an earlier run, or of which there is something to know (its track, damage).
    Raises ConfigError, EngineError, OutputError.
    """
    waiting, failed = deque(files), 0
    if not model.previous_text:
        for file in files:
            try:
                _stream(model, settings, file, kind, target_of(file, kind, folder), progress)
            except UsageError as error:
                failed += 1
                tell(str(error))
        return failed
    engine = OfflineEngine(model)
    active: list[_File] = []
    try:
        while waiting or active:
            while waiting and len(active) < (AT_ONCE if folder else 1):
                file = waiting.popleft()
                progress(file, 0.0, None)
                try:
                    active.append(_File(engine, settings, file, kind, target_of(file, kind, folder), tell))
                except UsageError as error:
                    failed += 1
                    tell(str(error))
            due = [(one, request) for one in active if (request := one.request)]
            for (one, _), result in zip(due, engine.step([request for _, request in due]), strict=True):
                one.take(result)
            for one in active:
                progress(one.path, *one.done_s)
                if one.request is None:
                    one.finish()
            active = [one for one in active if one.request is not None]
    finally:
        for one in active:
            one.leave()
    return failed


class _File:
    """One file on its way to its result."""

    def __init__(
        self,
        engine: OfflineEngine,
        settings: Settings,
        path: Path,
        kind: Format,
        target: Path | None,
        tell: Callable[[str], None],
    ) -> None:
        """Reads all of it, and what an earlier run left. Raises InputError, UsageError, ConfigError."""
        self.path = path
        sound = sound_of(path, engine.model)
        source = FileSource(str(sound), realtime=False, label="file", track=settings.audio.track)
        hears = kind == "jsonl" or engine.model.head is not None
        self._recording = Recording(engine.model, settings, source.blocks(), hears=hears)
        for line in self._recording.remarks:
            tell(f"{path}: {line.removeprefix(f'{path.name}: ')}")
        self._log = None
        if target is not None:
            header = _header(sound, engine.model, settings, hears)
            self._log = WindowLog(target.with_name(f".{target.name}.windows"), header)
        self._result = _Result(target, kind)
        results = self._log.results if self._log else []
        self._result.write(self._recording.replay(results, engine))
        if results:
            at = self._recording.settled_samples // SAMPLE_RATE
            tell(f"{path}: goes on at {at // 60}:{at % 60:02d}, where an earlier run was interrupted")
        self.request: WindowRequest | None = self._recording.request()

    @property
    def done_s(self) -> tuple[float, float]:
        """The seconds that are done, and all of them."""
        return self._recording.settled_samples / SAMPLE_RATE, self._recording.samples / SAMPLE_RATE

    def take(self, result: WindowResult) -> None:
        """What the model found in the window that was asked for; `request` is the next, None at the end."""
        if self._log is not None:
            self._log.append(result)
        self._result.write(self._recording.take(result))
        self.request = self._recording.request()

    def finish(self) -> None:
        """All is done: the result gets its name."""
        self._result.write(self._recording.finish())
        self._result.finish()
        if self._log is not None:
            self._log.close(done=True)

    def leave(self) -> None:
        """Interrupted: what was found stays, for the next run."""
        self._result.leave()
        if self._log is not None:
            self._log.close(done=False)


class _Result:
    """The events of one file, written beside its place until it is complete, or to stdout as they come."""

    def __init__(self, target: Path | None, kind: Format) -> None:
        self._target = target
        self._beside = None if target is None else target.with_name(f".{target.name}.part")
        self._file = EventFile(str(self._beside or "-"), kind, "--output")
        self._file.begin()

    def write(self, events: Sequence[Event]) -> None:
        """Append events."""
        for event in events:
            self._file.write(event)

    def finish(self) -> None:
        """Give the result its name."""
        self._file.close()
        if self._beside is not None and self._target is not None:
            os.replace(self._beside, self._target)

    def leave(self) -> None:
        """Throw away what is not complete."""
        self._file.close()
        if self._beside is not None:
            with suppress(OSError):
                self._beside.unlink()


def _stream(
    model: Model, settings: Settings, path: Path, kind: Format, target: Path | None, progress: Progress
) -> None:
    sound = sound_of(path, model)
    source = FileSource(str(sound), realtime=False, label="file", track=settings.audio.track)
    result, stream = _Result(target, kind), Stream(model, settings, source="file")
    done = 0
    try:
        for block in source.blocks():
            result.write(stream.hear(block))
            done += block.lost_samples + len(block.samples)
            progress(path, done / SAMPLE_RATE, source.duration_s)
        result.write(stream.finish())
        result.finish()
    except BaseException:
        result.leave()
        raise


def _header(path: Path, model: Model, settings: Settings, hears: bool) -> dict[str, Any]:
    """What must be the same for the results of an earlier run to hold."""
    stat = path.stat()
    weights = hashlib.sha256()
    for tensor in (
        model.module.encoder.conv1.weight,
        model.module.decoder.ln.weight,
        model.decoder.token_embedding.weight[::997],
    ):
        weights.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return {
        "version": 1,
        "file": [path.name, stat.st_size, stat.st_mtime_ns],
        "model": [model.name, weights.hexdigest(), model.precision, model.device.type],
        "head": model.head.name if model.head is not None and hears else None,
        "speech": settings.speech.model_dump(mode="json"),
        "spans_s": list(settings.tags.spans_s),
    }
