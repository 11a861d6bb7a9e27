"""Manifests: which recordings there are, what sounds or is said in them, and which part of the data they belong to.

Formats, told apart by their first line:

- ours, CSV with a header or JSONL: `path` (relative to the manifest) and `labels` (indices, machine ids or display
  names, `|` between several; in JSONL also a list), and optionally `split`, `start` and `end` (seconds), `category`,
  `fold`, `kind` (speech, sound), `text`, `speaker`;
- AudioSet's segment CSVs: `# YTID, start_seconds, end_seconds, positive_labels`, with a folder of audio;
- ESC-50's `esc50.csv`: `filename,fold,target,category,...`, with the folder `audio` beside `meta` (K. J. Piczak, "ESC:
  Dataset for Environmental Sound Classification", ACM Multimedia 2015).
"""

import csv
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from streamer.errors import InputError
from streamer.sound import labels

AUDIO_SUFFIXES = (".flac", ".wav", ".ogg", ".opus", ".mp3", ".m4a", ".webm", ".mp4", ".mkv")
# ESC-50's 50 categories: the AudioSet class of the same sound, with its more specific and more general names where
# AudioSet's raters use both. The mapping is ours.
ESC50 = MappingProxyType(
    {
        "airplane": ("Fixed-wing aircraft, airplane",),
        "breathing": ("Breathing",),
        "brushing_teeth": ("Toothbrush",),
        "can_opening": ("Hiss",),
        "car_horn": ("Vehicle horn, car horn, honking",),
        "cat": ("Cat", "Meow"),
        "chainsaw": ("Chainsaw",),
        "chirping_birds": ("Bird", "Chirp, tweet"),
        "church_bells": ("Church bell", "Bell"),
        "clapping": ("Clapping", "Applause"),
        "clock_alarm": ("Alarm clock", "Alarm"),
        "clock_tick": ("Tick-tock", "Clock"),
        "coughing": ("Cough",),
        "cow": ("Moo", "Cattle, bovinae"),
        "crackling_fire": ("Fire", "Crackle"),
        "crickets": ("Cricket", "Insect"),
        "crow": ("Crow",),
        "crying_baby": ("Baby cry, infant cry",),
        "dog": ("Dog", "Bark"),
        "door_wood_creaks": ("Creak",),
        "door_wood_knock": ("Knock",),
        "drinking_sipping": ("Liquid",),
        "engine": ("Engine",),
        "fireworks": ("Fireworks",),
        "footsteps": ("Walk, footsteps",),
        "frog": ("Frog",),
        "glass_breaking": ("Glass", "Shatter"),
        "hand_saw": ("Sawing",),
        "helicopter": ("Helicopter",),
        "hen": ("Chicken, rooster",),
        "insects": ("Insect", "Fly, housefly"),
        "keyboard_typing": ("Typing", "Computer keyboard"),
        "laughing": ("Laughter",),
        "mouse_click": ("Computer keyboard",),
        "pig": ("Pig", "Oink"),
        "pouring_water": ("Pour", "Liquid"),
        "rain": ("Rain",),
        "rooster": ("Crowing, cock-a-doodle-doo", "Chicken, rooster"),
        "sea_waves": ("Waves, surf", "Ocean"),
        "sheep": ("Sheep", "Bleat"),
        "siren": ("Siren", "Alarm"),
        "sneezing": ("Sneeze",),
        "snoring": ("Snoring",),
        "thunderstorm": ("Thunder", "Thunderstorm"),
        "toilet_flush": ("Toilet flush",),
        "train": ("Train",),
        "vacuum_cleaner": ("Vacuum cleaner",),
        "washing_machine": ("Mechanisms",),
        "water_drops": ("Drip",),
        "wind": ("Wind",),
    }
)
ESC50_TEST_FOLD = "5"
_ESC50_NAME = re.compile(r"([1-5])-\d+-[A-Z]-\d+$")
Format = Literal["auto", "streamer", "audioset", "esc50"]


@dataclass(frozen=True, slots=True)
class Clip:
    """One labelled stretch of a recording. `labels`: ascending AudioSet indices; `end_s` None: to the end.

    `category`, `fold`, `kind`, `text` and `speaker` are empty where the manifest does not say.
    """

    path: Path
    labels: tuple[int, ...]
    split: str = "train"
    start_s: float = 0.0
    end_s: float | None = None
    category: str = ""
    fold: str = ""
    kind: str = ""
    text: str = ""
    speaker: str = ""


class ManifestSettings(BaseModel):
    """One manifest. `audio`: the folder of its files (AudioSet, ESC-50); `split`: overrides what it says.

    `trimmed` (AudioSet): a file named by its id alone holds just the segment, not the whole video.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    format: Format = "auto"
    audio: Path | None = None
    split: str | None = None
    trimmed: bool = True


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest gave. `missing`: segments whose audio is not in the folder (AudioSet's videos vanish)."""

    clips: tuple[Clip, ...]
    missing: int = 0


def read_manifest(settings: ManifestSettings | Path) -> Manifest:
    """Read one manifest. Raises InputError that names the file and, where one is to blame, the line."""
    if isinstance(settings, Path):
        settings = ManifestSettings(path=settings)
    text = _read(settings.path)
    kind = _format(text, settings) if settings.format == "auto" else settings.format
    try:
        if kind == "audioset":
            found = _audioset(text, settings)
        elif kind == "esc50":
            found = Manifest(tuple(_esc50(text, settings)))
        else:
            found = Manifest(tuple(_ours(text, settings)))
    except csv.Error as error:
        raise InputError(f"manifest {settings.path}: is no CSV: {error}") from error
    if settings.split is not None:
        found = Manifest(tuple(replace(clip, split=settings.split) for clip in found.clips), found.missing)
    if not found.clips:
        raise InputError(f"manifest {settings.path}: names no recording that is there ({found.missing} are missing)")
    return found


def of_split(clips: Iterable[Clip], *splits: str) -> list[Clip]:
    """The clips of some splits, in their order. Raises InputError, naming the splits that exist, when there is none."""
    every = list(clips)
    found = [clip for clip in every if clip.split in splits]
    if not found:
        known = ", ".join(sorted({clip.split for clip in every})) or "none"
        raise InputError(f"no clip is in the split {' or '.join(splits)}: the manifest has {known}")
    return found


def fold_of(stem: str) -> str:
    """The fold that an ESC-50 file name begins with (`3-132852-A-10` is in fold 3); empty for other names."""
    found = _ESC50_NAME.match(stem)
    return found.group(1) if found else ""


def hold_out(clips: Sequence[Clip], share: float) -> tuple[list[Clip], list[Clip]]:
    """Clips kept and clips held out (about `share` of them), by a hash of each file's name.

    ESC-50 cuts several clips from one source (`3-132852-A-10` and `-B-`): these stay together.
    """
    kept: list[Clip] = []
    held: list[Clip] = []
    for clip in clips:
        source = clip.path.stem
        if fold_of(source):
            source = "-".join(source.split("-")[:2])
        (held if zlib.crc32(source.encode()) % 10_000 < share * 10_000 else kept).append(clip)
    return kept, held


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"manifest {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"manifest {path} is not UTF-8 text") from error


def _format(text: str, settings: ManifestSettings) -> Format:
    first = text.lstrip().partition("\n")[0]
    if first.startswith("#"):
        return "audioset"
    columns = {name.strip() for name in first.split(",")}
    if {"filename", "fold", "category"} <= columns:
        return "esc50"
    if first.startswith("{") or "path" in columns:
        return "streamer"
    raise InputError(
        f"manifest {settings.path}: its first line is of no known format: a CSV header or JSON with `path` and "
        "`labels`, AudioSet's `# ...` or ESC-50's `filename,fold,...` is needed"
    )


def _ours(text: str, settings: ManifestSettings) -> Iterator[Clip]:
    folder = settings.audio or settings.path.parent
    for number, row in _rows(text, settings.path):
        where = f"manifest {settings.path}: line {number}"
        path = folder / _text(row, "path")
        if not _text(row, "path"):
            raise InputError(f"{where}: `path` is empty")
        yield Clip(
            path=path,
            labels=_labels(row.get("labels"), where),
            split=_text(row, "split") or "train",
            start_s=_seconds(row.get("start"), where, "start") or 0.0,
            end_s=_seconds(row.get("end"), where, "end"),
            category=_text(row, "category"),
            fold=_text(row, "fold") or fold_of(path.stem),
            kind=_text(row, "kind"),
            text=_text(row, "text"),
            speaker=_text(row, "speaker"),
        )


def _rows(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Numbered rows of a CSV or JSONL."""
    if not text.lstrip().startswith("{"):
        reader = csv.DictReader(text.splitlines())
        if "labels" not in (reader.fieldnames or ()) and "text" not in (reader.fieldnames or ()):
            raise InputError(f"manifest {path}: the column `labels` (or `text`, for speech) is missing")
        yield from ((reader.line_num, row) for row in reader)
        return
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"manifest {path}: line {number} is not JSON: {error}") from error
        if not isinstance(row, dict) or "path" not in row:
            raise InputError(f"manifest {path}: line {number}: an object with `path` is needed")
        yield number, row


def _audioset(text: str, settings: ManifestSettings) -> Manifest:
    if settings.audio is None:
        raise InputError(f"manifest {settings.path}: AudioSet's segments need `audio`, the folder with their sound")
    files = _files_by_stem(settings.audio)
    split = "test" if "eval" in settings.path.stem else "train"
    clips, missing = [], 0
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip() and line[0] != "#"]
    rows = list(csv.reader([line for _, line in lines], skipinitialspace=True, strict=True))
    if len(rows) != len(lines):
        raise InputError(f"manifest {settings.path}: a quotation mark does not end on its line")
    for (number, _), row in zip(lines, rows, strict=True):
        where = f"manifest {settings.path}: line {number}"
        if len(row) != 4:
            raise InputError(f"{where}: has {len(row)} columns; YTID, start, end and labels are needed")
        start, end = _seconds(row[1], where, "start") or 0.0, _seconds(row[2], where, "end")
        found = _segment_file(files, row[0], start, end)
        if found is None:
            missing += 1
            continue
        path, says_no_times = found
        if settings.trimmed or not says_no_times:
            start, end = 0.0, None
        clips.append(Clip(path, _labels(row[3].split(","), where), split, start, end))
    return Manifest(tuple(clips), missing)


def _files_by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"audio: {folder} is not a folder")
    return {path.stem: path for path in sorted(folder.rglob("*")) if path.suffix.lower() in AUDIO_SUFFIXES}


def _segment_file(files: Mapping[str, Path], video: str, start: float, end: float | None) -> tuple[Path, bool] | None:
    """The file of a segment, and whether its name says nothing of start and end.

    Usual names: the id, perhaps with a `Y` before it (youtube-dl would take a leading `-` for an option), perhaps with
    start (and end) behind it in seconds or milliseconds.
    """
    marks = [f"_{start:g}", f"_{start:.3f}", f"_{start * 1000:.0f}"]
    if end is not None:
        marks += [f"_{start:g}_{end:g}", f"_{start:.3f}_{end:.3f}", f"_{start * 1000:.0f}_{end * 1000:.0f}"]
    for stem in (video, f"Y{video}"):
        for mark in marks:
            if stem + mark in files:
                return files[stem + mark], False
        if stem in files:
            return files[stem], True
    return None


def _esc50(text: str, settings: ManifestSettings) -> Iterator[Clip]:
    folder = settings.audio or settings.path.parent.parent / "audio"
    if not folder.is_dir():
        folder = settings.path.parent
    reader = csv.DictReader(text.splitlines())
    for row in reader:
        where = f"manifest {settings.path}: line {reader.line_num}"
        names = ESC50.get(row["category"])
        if names is None:
            raise InputError(f"{where}: {row['category']!r} is none of ESC-50's 50 categories")
        yield Clip(
            path=folder / row["filename"],
            labels=_labels(names, where),
            split="test" if row["fold"] == ESC50_TEST_FOLD else "train",
            category=row["category"],
            fold=row["fold"],
            kind="sound",
        )


def _labels(value: Any, where: str) -> tuple[int, ...]:
    if value is None or value == "":
        return ()
    keys = value.split("|") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    try:
        return tuple(sorted({labels.find(key).index for key in keys}))
    except (LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{where}: labels: {str(error.args[0]) if error.args else error}") from error


def _seconds(value: Any, where: str, name: str) -> float | None:
    if value in (None, ""):
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise InputError(f"{where}: {name} is {repr(value)[:60]}: seconds from 0 on are needed")
    return seconds


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return "" if value is None else str(value).strip()
