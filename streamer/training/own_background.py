"""What learning of own sounds starts from, for one encoder: the projection, and the vectors of other sounds.

Each sound recording happens in a few scenes, as clips do when they are learned. Directions are kept in which recordings
differ and the scenes of one do not: linear discriminant analysis on the taps of all layers (Fisher 1936; as for the
vectors of speakers, Dehak et al. 2011). Exact pitches may differ there: the fine spectrum tells those. The rest is cut
into windows of 10 s as they are.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from streamer.audio.files import read_audio
from streamer.audio.fine_spectrum import fine_spectrum
from streamer.errors import InputError
from streamer.model.own_sounds import Background, Vectors, encoder_identity, pack
from streamer.model.whisper import Model
from streamer.training.moments import Audio, moment_of, scenes
from streamer.training.own_sounds import Encode, Tell, encoder_of, scene_windows

DIMENSIONS = 128
RIDGE = 0.1  # of the scatter within recordings, whose mean variance is 1
SCENES = 2  # of each recording of a sound
DRIFT = 0.015  # of the pitch between scenes
LONGEST_S = 60.0  # of one recording among the other sounds


@dataclass(frozen=True, slots=True)
class Recording:
    """A file; `sound`: it holds one kind of sound, so that its scenes teach what stays the same."""

    path: Path
    sound: bool


def read_list(path: Path) -> list[Recording]:
    """The recordings of a CSV with the columns `path` (relative to it) and `sound` (yes or no). InputError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [Recording(path.parent / row["path"], row["sound"] == "yes") for row in csv.DictReader(file)]
    except (OSError, KeyError) as error:
        raise InputError(f"--data: {path}: needs the columns path and sound: {error}") from None


def make(model: Model, recordings: Sequence[Recording], windows: int, tell: Tell) -> Background:
    """The background of a model's encoder, with at most so many windows of 10 s of other sounds."""
    encode, random = encoder_of(model), np.random.default_rng(0)
    kinds, within = list[Vectors](), list[Vectors]()
    for place, recording in enumerate(item for item in recordings if item.sound):
        found = _scene_taps(recording.path, encode, random)
        if len(found) >= SCENES:
            kinds.append(found.mean(0))
            within.append(found - found.mean(0))
        if place % 20 == 0:
            tell(f"scenes of recording {place + 1}")
    cut = _others(recordings, windows, random)
    encoded = []
    for window in cut:
        encoded.append(_rows(encode(window)))
        if len(encoded) % 50 == 0:
            tell(f"window {len(encoded)} of {len(cut)} of other sounds")
    others = np.stack(encoded)
    rows = others.reshape(-1, others.shape[-1])
    mean, spread = rows.mean(0), rows.std(0) + 1e-6
    projection = _discriminants(
        (np.stack(kinds) - mean) / spread, np.concatenate(within) / spread, (rows - mean) / spread
    )
    none = np.zeros((0, 0, 0), np.int8)
    made = Background(encoder_identity(model), model.name, mean, projection / spread[:, None], none, none)
    taps = others.reshape(*others.shape[:2], model.dims.n_audio_layer, model.dims.n_audio_state)
    packed = np.stack([pack(made.directions(window.transpose(1, 0, 2))) for window in taps])
    spectra = np.stack([np.round(fine_spectrum(window)).astype(np.int8) for window in cut])
    return replace(made, others=packed, spectra=spectra)


def _scene_taps(path: Path, encode: Encode, random: np.random.Generator) -> Vectors:
    """Taps of all layers, [n, layers * d], of the steps in which a recording sounds, in SCENES scenes."""
    try:
        moment = moment_of(read_audio(str(path)), str(path))
    except InputError:
        return np.zeros((0, 0), np.float32)
    found = []
    for scene in scenes(moment, SCENES, random, DRIFT):
        taps = encode(scene.samples)
        found.append(_rows(taps)[-len(scene.sounds) :][scene.sounds[-taps.shape[1] :]])
    return np.concatenate(found)


def _others(recordings: Sequence[Recording], windows: int, random: np.random.Generator) -> list[Audio]:
    """Windows of 10 s drawn from all recordings, one behind the other."""
    longest = round(LONGEST_S * 16_000)
    order = random.permutation(len(recordings))
    samples = np.concatenate([read_audio(str(recordings[place].path))[:longest] for place in order])
    cut = list(scene_windows(samples))
    return [cut[place] for place in sorted(random.permutation(len(cut))[:windows])]


def _rows(taps: Vectors) -> Vectors:
    """Taps [layers, steps, d] as [steps, layers * d]."""
    return taps.transpose(1, 0, 2).reshape(taps.shape[1], -1)


def _discriminants(kinds: Vectors, within: Vectors, rows: Vectors) -> NDArray[np.float32]:
    """The DIMENSIONS directions [width, k] with most scatter of kinds and of all, over that within kinds."""
    width = rows.shape[1]
    between = kinds.T @ kinds
    total = rows.T @ rows
    scatter = 0.5 * between / np.trace(between) + 0.5 * total / np.trace(total)
    inner = within.T @ within
    inner = inner / np.trace(inner) * width + RIDGE * np.eye(width)
    _, vectors = eigh(scatter, inner, subset_by_index=(width - DIMENSIONS, width - 1))
    return np.asarray(vectors, np.float32)
