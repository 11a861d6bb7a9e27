"""The material that windows are composed of: recorded and synthesised speech with word times, sounds with labels.

Everything is mono float32 at 16 kHz. Recordings come from a manifest (CSV with the columns path, kind, text, speaker,
split, labels, category) of which only the `train` split is read.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from streamer.errors import InputError
from streamer.events import SAMPLE_RATE
from streamer.measure.recordings import csv_rows

Audio = NDArray[np.float32]
COLUMNS = ("path", "kind", "text", "speaker", "split", "labels", "category")
GRID = SAMPLE_RATE // 10  # samples of one step of the activity grid, 0.1 s
QUIET_DB = -38.0  # a grid step this far below the loudest one counts as silent


@dataclass(frozen=True, slots=True)
class TimedWord:
    """One word and the samples [start, end) that it takes in its clip or window."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Clip:
    """Speech of one voice with the times of its words."""

    audio: Audio
    words: tuple[TimedWord, ...]
    voice: str


@dataclass(frozen=True, slots=True)
class SoundClip:
    """A sound: its AudioSet class indices and, for each 0.1 s, whether it can be heard."""

    audio: Audio
    labels: tuple[int, ...]
    active: NDArray[np.bool_]
    category: str


@dataclass(frozen=True, slots=True)
class Recordings:
    """The part of a manifest that was asked for: digits by speaker, and sounds."""

    digits: dict[str, tuple[Clip, ...]]
    sounds: tuple[SoundClip, ...]


def read_audio(path: Path) -> Audio:
    """A whole audio file as float32 [n], mono, 16 kHz. Raises InputError when it cannot be decoded."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    try:
        with av.open(str(path)) as container:
            frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
            frames += resampler.resample(None)
    except (OSError, av.FFmpegError, IndexError) as error:
        raise InputError(f"{path}: not a readable audio file ({error})") from error
    if not frames:
        raise InputError(f"{path}: holds no audio")
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]).astype(np.float32)


def activity(audio: Audio) -> NDArray[np.bool_]:
    """For each started 0.1 s of `audio` [n], whether it is within 38 dB of the loudest one and not digital silence."""
    steps = max(1, -(-len(audio) // GRID))
    power = np.square(np.pad(audio, (0, steps * GRID - len(audio)))).reshape(steps, GRID).mean(axis=1)
    loudest = float(power.max())
    return np.asarray(power > max(loudest * 10 ** (QUIET_DB / 10), 1e-10))


def is_validation(path: str) -> bool:
    """Whether a recording of the train split is kept out of training, for calibration and model choice (1 in 12)."""
    return zlib.crc32(path.encode()) % 12 == 0


def read_recordings(manifest: Path, labels: dict[str, int], *, part: str, without: str = "") -> Recordings:
    """The recordings of a manifest: `part` is `train`, `validation` (both of the train split) or `test`.

    `labels` maps AudioSet display names to indices; `without` leaves a speaker out (for the unheard-voice experiment).
    Raises InputError when the manifest is missing, lacks a column or names an unknown label.
    """
    digits: dict[str, list[Clip]] = {}
    sounds = []
    for _, row in csv_rows(manifest, COLUMNS, f"data.manifest {manifest}"):
        if not _belongs(row, part):
            continue
        audio = read_audio(manifest.parent / row["path"])
        if row["kind"] == "speech":
            word = TimedWord(row["text"], 0, len(audio))
            if row["speaker"] != without:
                digits.setdefault(row["speaker"], []).append(Clip(audio, (word,), row["speaker"]))
        else:
            sounds.append(_sound(audio, row, labels, manifest))
    return Recordings({name: tuple(clips) for name, clips in digits.items()}, tuple(sounds))


def _belongs(row: dict[str, str], part: str) -> bool:
    if part == "test":
        return row["split"] == "test"
    return row["split"] == "train" and is_validation(row["path"]) == (part == "validation")


def _sound(audio: Audio, row: dict[str, str], labels: dict[str, int], manifest: Path) -> SoundClip:
    unknown = [name for name in row["labels"].split("|") if name not in labels]
    if unknown:
        raise InputError(f"{manifest}: {row['path']}: {unknown[0]!r} is no AudioSet class")
    indices = tuple(labels[name] for name in row["labels"].split("|"))
    return SoundClip(audio, indices, activity(audio), row["category"])
