"""The recordings that a bench listens to: a manifest, or a folder of composed scenes.

A manifest is a CSV file with a header and these columns; others are ignored:

- `path`: the recording, any audio or video file; relative to the manifest's folder.
- `text`: what is said; empty where nothing is, or nobody wrote it down (outside `sounds/` such rows are left out).
- `set` (else `split`, else all are `all`): the group that it is reported in. `sounds/…`: recordings without speech, on
  which every word is invented.
- `language`: a code such as `en` or `pt-BR`; empty or missing: the model has to find out.
- `alert`: ids of alert rules, spaces between: the one that ought to be raised (`-`: none), and those that may be.
- `ref`: `S?` where what it is said to be is in doubt.
- `seconds`: how long it is; for people.

A scene is `NAME.flac` with `NAME.json` beside it: {"words": [{"word", "start", "end"}]}, exact to the sample. Its set
is its name without the last number; without words it is `sounds/…`.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.audio.files import read_audio
from streamer.errors import InputError
from streamer.events import SAMPLE_RATE

SOUNDS = "sounds/"
NO_RULE = "-"
DOUBTFUL = "S?"
NEEDED = ("path", "text")
BEFORE_S, AFTER_S, HISS = 3.0, 6.0, 1e-4  # around a recording: what begins and ends in a quiet room
_NUMBER = re.compile(r"_\d+$")
_EXTENSIONS = re.compile(r"(\.(mp3|ogg|m4a|wav|flac|3gp|opus|webm|aac|mp4))+$")


@dataclass(frozen=True, slots=True)
class TrueWord:
    """A word as it was said, and where it ended (s)."""

    text: str
    end_s: float


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording. `name`: its path as the manifest has it. `text` empty: nothing is said. `words`: where each word
    ends, if that is known exactly. `alert`: see above; empty where the manifest does not say. `doubtful`: whether it is
    what its set says.
    """

    name: str
    path: Path
    set: str
    language: str | None
    text: str
    words: tuple[TrueWord, ...] = ()
    alert: tuple[str, ...] = ()
    doubtful: bool = False

    @property
    def untold(self) -> bool:
        """Somebody speaks, but nobody wrote down what."""
        return not self.text and not self.set.startswith(SOUNDS)

    def samples(self) -> NDArray[np.float32]:
        """float32 [n], 16 kHz mono. Raises InputError."""
        return read_audio(str(self.path))


def read_recordings(source: Path, *, untold: bool = False, option: str = "--data") -> list[Recording]:
    """The recordings of a manifest or of a folder of scenes, in their order. Raises InputError, one line.

    `untold`: also those of a manifest of which nobody wrote down what is said. `option`: what complaints begin with.
    """
    found = [
        item
        for item in (_scenes(source, option) if source.is_dir() else _rows(source, option))
        if untold or not item.untold
    ]
    if not found:
        raise InputError(f"{option} {source}: no row has a text, and no set begins with {SOUNDS}")
    return found


def chosen(
    recordings: Iterable[Recording], sets: Sequence[str] | None = None, limit: int | None = None
) -> list[Recording]:
    """Those of some sets (`sounds` means all `sounds/…` too), at most `limit` of each.

    Raises InputError that names the sets that there are.
    """
    recordings = list(recordings)
    for name in sets or ():
        if not any(_within(recording.set, name) for recording in recordings):
            known = ", ".join(sorted({recording.set for recording in recordings}))
            raise InputError(f"--sets {name}: there is no such set; there are {known}")
    taken: dict[str, int] = {}
    found = []
    for recording in recordings:
        if sets and not any(_within(recording.set, name) for name in sets):
            continue
        taken[recording.set] = taken.get(recording.set, 0) + 1
        if limit is None or taken[recording.set] <= limit:
            found.append(recording)
    return found


def in_a_quiet_room(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """With BEFORE_S of faint noise before and AFTER_S behind, float32 [n]."""
    before = np.random.default_rng(0).normal(0.0, HISS, round(BEFORE_S * SAMPLE_RATE))
    after = np.random.default_rng(1).normal(0.0, HISS, round(AFTER_S * SAMPLE_RATE))
    return np.concatenate([before.astype(np.float32), samples, after.astype(np.float32)])


def without_extensions(name: str) -> str:
    """A recording's name without what says its format: the same for all formats of one."""
    return _EXTENSIONS.sub("", name)


def _within(name: str, wanted: str) -> bool:
    return name == wanted or name.startswith(f"{wanted.rstrip('/')}/")


def csv_rows(path: Path, needed: Sequence[str], where: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Line numbers and rows of a CSV file in UTF-8 with a header. `where` begins what InputError says."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{where}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{where}: must be a CSV file in UTF-8") from None
    reader = csv.DictReader(io.StringIO(content, newline=""))
    try:
        missing = [name for name in needed if name not in (reader.fieldnames or ())]
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise InputError(f"{where}: line {reader.line_num + 1}: is no CSV: {error}") from None
    if missing:
        raise InputError(f"{where}: must be a CSV with a header, `{','.join(needed)}`: lacks `{missing[0]}`")
    for line, row in rows:
        yield line, {name: value.strip() for name, value in row.items() if isinstance(value, str)}


def _rows(path: Path, option: str) -> Iterator[Recording]:
    from whisper.tokenizer import LANGUAGES

    for line, given in csv_rows(path, NEEDED, f"{option} {path}"):
        where = f"{option} {path}, line {line}"
        name = given.get("set") or given.get("split") or "all"
        language = given.get("language", "").lower().replace("_", "-").split("-")[0]
        if not given.get("path"):
            raise InputError(f"{where}: `path` is empty")
        if language and language not in LANGUAGES:
            raise InputError(f"{where}: `language` must be a code that Whisper knows, such as en, is {language!r}")
        file = path.parent / given["path"]
        if not file.is_file():
            raise InputError(f"{where}: {file} is missing")
        alert = tuple(given.get("alert", "").split())
        yield Recording(
            given["path"], file, name, language or None, given.get("text", ""), (), alert, given.get("ref") == DOUBTFUL
        )


def _scenes(folder: Path, option: str) -> Iterator[Recording]:
    files = sorted(path for path in folder.glob("*.flac") if path.with_suffix(".json").is_file())
    if not files:
        raise InputError(f"{option} {folder}: must be a manifest, or a folder with NAME.flac and NAME.json files")
    for path in files:
        words = _scene_words(path.with_suffix(".json"))
        kind = _NUMBER.sub("", path.stem)
        yield Recording(
            name=path.stem,
            path=path,
            set=kind if words else f"{SOUNDS}{kind}",
            language="en",
            text=" ".join(word.text for word in words),
            words=words,
        )


def _scene_words(path: Path) -> tuple[TrueWord, ...]:
    try:
        words: Sequence[Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["words"]
        return tuple(TrueWord(str(word["word"]), float(word["end"])) for word in words)
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path}: must hold the scene's `words`, each with `word` and `end`") from None
