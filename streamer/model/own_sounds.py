"""Sounds of one's own: a logistic layer for each, on the taps of the encoder pass that there is anyway, and on pitches.

    taps [layers, steps, d] ── projection ──► unit vectors [steps, k] ──┐
    samples ── fine spectrum ──► unit vectors [steps, BANDS] ───────────┴─ weight, bias ──► a logit for each 0.4 s

The taps know the sort of a sound; which of its sort it is, its partials tell (`streamer.audio.fine_spectrum`).

The projection comes with Streamer for each encoder (`data/own_sounds/NAME.npz`, made by `streamer train own-sounds`):
directions in which sounds differ and the same sound elsewhere does not (linear discriminant analysis, Fisher 1936).
With it come the vectors of other sounds and speech, which every layer is taught to leave alone. How a layer is
learned: `streamer.training.own_sounds`.

What is kept of a sound (`OwnSoundFiles`) is the layer, no audio. It means something only to the encoder that it was
learned with, which is told by its LayerNorms: neither precision nor file format nor a context adapter changes those.
Layers that were learned before there was a fine spectrum have k weights and go on with the taps alone.
"""

import hashlib
import io
import json
import logging
import os
import zlib
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from streamer.audio.fine_spectrum import Spectrum
from streamer.errors import CheckpointError, InputError, UsageError
from streamer.events import Severity
from streamer.events.plans import OwnScore, StepRequest
from streamer.model.whisper import STEP_SAMPLES, Model
from streamer.settings.own_sounds import stored_name

log = logging.getLogger(__name__)

JUDGED_STEPS = 5  # the last 2 s are judged, every second
SPAN_S = JUDGED_STEPS * 0.4
LENGTH = 127  # of a unit vector as it is stored, in 8-bit integers
CLIPS_NEEDED = 3
CLIPS_TAKEN = 10  # at most
_DAMAGED = (ValueError, KeyError, OSError, EOFError, RuntimeError, BadZipFile, zlib.error)  # what numpy makes of a file

Vectors = NDArray[np.float32]
Packed = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Background:
    """What comes with Streamer for one encoder. `mean` [layers * d], `projection` [layers * d, k].

    `others`: packed unit vectors [windows, steps, k] of consecutive steps of other sounds and speech, and `spectra`
    [windows, steps, BANDS] their fine spectra in whole decibels.
    """

    encoder: str
    model: str
    mean: Vectors
    projection: Vectors
    others: Packed
    spectra: Packed

    @property
    def hours(self) -> float:
        """How much other sound there is."""
        return float(self.others.shape[0] * self.others.shape[1] * STEP_SAMPLES / 16_000 / 3600)

    def vectors(self, taps: Vectors, spectrum: Spectrum) -> Vectors:
        """Two unit vectors side by side [steps, k + BANDS]: of taps [layers, steps, d], of a spectrum [steps, BANDS].

        Both end together; of the longer one the beginning is left out.
        """
        directions, pitches = self.directions(taps), pitch_vectors(spectrum)
        steps = min(len(directions), len(pitches))
        return np.concatenate([directions[len(directions) - steps :], pitches[len(pitches) - steps :]], axis=1)

    def directions(self, taps: Vectors) -> Vectors:
        """Unit vectors [steps, k] of taps [layers, steps, d]."""
        rows = taps.transpose(1, 0, 2).reshape(taps.shape[1], -1)
        found = (rows - self.mean) @ self.projection
        unit: Vectors = found / (np.linalg.norm(found, axis=1, keepdims=True) + 1e-6)
        return unit

    def other_vectors(self) -> Vectors:
        """As `vectors`, of the other sounds: [windows, steps, k + BANDS]."""
        return np.concatenate([unpack(self.others), pitch_vectors(self.spectra.astype(np.float32))], axis=-1)

    def write(self, path: Path) -> None:
        """Write the file that `read_background` reads."""
        facts = json.dumps({"encoder": self.encoder, "model": self.model})
        half = {"mean": self.mean.astype(np.float16), "projection": self.projection.astype(np.float16)}
        path.parent.mkdir(parents=True, exist_ok=True)
        rest = {"others": self.others, "spectra": self.spectra}
        np.savez_compressed(path, facts=np.array(facts), **rest, **half)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class OwnSound:
    """One sound: the layer `weight` [k + BANDS], `bias`, learned from so many `clips` with a model and its encoder.

    A run of `run` steps sounds like it from a mean logit of `threshold` on. `false_hours`, `false_alarms`: so much
    other sound layers were tried on that neither they nor their thresholds were made from, and how often they took
    it for the sound. `recall`: the share of sounding steps of a clip that it takes for the sound without having been
    taught it.
    """

    name: str
    severity: Severity
    encoder: str
    model: str
    clips: int
    weight: Vectors
    bias: float
    threshold: float
    run: int
    false_alarms: int
    false_hours: float
    recall: float

    def logits(self, vectors: Vectors) -> Vectors:
        """Mean logits over each run of steps, [..., steps - run + 1], for vectors [..., steps, k + BANDS]."""
        known = vectors[..., : len(self.weight)]
        return run_means(known @ self.weight + np.float32(self.bias), min(self.run, vectors.shape[-2]))


@dataclass(frozen=True, slots=True)
class OwnLayer:
    """All sounds that one model listens for."""

    background: Background
    sounds: tuple[OwnSound, ...]

    def scores(self, taps: Tensor, spectrum: Spectrum, end_sample: int) -> tuple[OwnScore, ...]:
        """What the last JUDGED_STEPS of taps [layers, steps, d] sound like, which end at a sample.

        `spectrum` [steps, BANDS]: the fine spectrum of as many, or of all there are.
        """
        vectors = self.background.vectors(taps[:, -JUDGED_STEPS:].float().cpu().numpy(), spectrum)
        found = []
        for sound in self.sounds:
            logits = sound.logits(vectors)
            best = int(logits.argmax())
            start = end_sample - (len(vectors) - best) * STEP_SAMPLES
            score = 1 / (1 + float(np.exp(sound.threshold - logits[best])))
            found.append(OwnScore(sound.name, score, max(0, start), start + sound.run * STEP_SAMPLES))
        return tuple(found)


def judged_from(request: StepRequest) -> int:
    """The first sample of what of a window is judged, on the grid of its end."""
    return max(request.start_sample, request.end_sample - JUDGED_STEPS * STEP_SAMPLES)


def encoder_identity(model: Model) -> str:
    """What tells an encoder from others: 16 hexadecimal digits of its sizes and LayerNorms."""
    digest = hashlib.sha256(f"{model.dims.n_audio_layer}x{model.dims.n_audio_state}".encode())
    for name, part in sorted(model.module.encoder.named_modules()):
        if isinstance(part, nn.LayerNorm):
            digest.update(name.encode())
            for value in (part.weight, part.bias):
                digest.update(value.detach().cpu().float().numpy().astype(np.float16).tobytes())
    return digest.hexdigest()[:16]


def bundled_background(model: Model, folder: Path | None = None) -> Background:
    """The background for a model's encoder. UsageError, one line, where none comes with Streamer.

    `folder`: another one to look in.
    """
    identity = encoder_identity(model)
    place = files("streamer") / "data" / "own_sounds" if folder is None else folder
    for item in sorted(place.iterdir(), key=lambda item: item.name) if place.is_dir() else ():
        if item.name.endswith(".npz") and (found := read_background(item.read_bytes(), item.name)).encoder == identity:
            return found
    raise UsageError(
        f"--model: own sounds can be learned with nano, tiny.en and base, not with {model.name}; "
        "from a checkout `streamer train own-sounds` makes what is missing"
    )


def read_background(content: bytes, name: str) -> Background:
    """A background from its file's bytes. Raises CheckpointError."""
    try:
        with np.load(io.BytesIO(content)) as stored:
            facts = json.loads(str(stored["facts"]))
            mean, projection = (stored[key].astype(np.float32) for key in ("mean", "projection"))
            return Background(facts["encoder"], facts["model"], mean, projection, stored["others"], stored["spectra"])
    except _DAMAGED as error:
        raise CheckpointError(f"{name}: is no background of own sounds: {error}") from None


def pitch_vectors(spectra: Spectrum) -> Vectors:
    """Unit vectors [..., BANDS] of fine spectra [..., BANDS]; of what has no pitch, nearly nothing."""
    found = spectra - spectra.mean(-1, keepdims=True)
    unit: Vectors = found / (np.linalg.norm(found, axis=-1, keepdims=True) + np.float32(0.025))
    return unit


def run_means(logits: Vectors, run: int) -> Vectors:
    """Means [..., steps - run + 1] over each run of so many steps of [..., steps]."""
    found: Vectors = np.lib.stride_tricks.sliding_window_view(logits, run, axis=-1).mean(-1, dtype=np.float32)
    return found


def pack(vectors: Vectors) -> Packed:
    """Unit vectors as 8-bit integers."""
    return np.round(vectors * LENGTH).astype(np.int8)


def unpack(packed: Packed) -> Vectors:
    """The unit vectors again, float32."""
    return packed.astype(np.float32) / np.float32(LENGTH)


class OwnSoundFiles:
    """What was learned, one file NAME.npz for each sound. For this user only; written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> tuple[OwnSound, ...]:
        """All sounds, by name. A file that cannot be read is left out, with a line in the log."""
        found = []
        for path in sorted(self.folder.glob("*.npz")) if self.folder.is_dir() else ():
            try:
                found.append(_read(path))
            except (*_DAMAGED, TypeError) as error:
                log.warning("own sounds: %s cannot be read and is left out (learn it again): %s", path, error)
        return tuple(sorted(found, key=lambda sound: sound.name))

    def find(self, name: str) -> OwnSound | None:
        """The sound of this name, whatever its case."""
        return next((sound for sound in self.read() if sound.name.casefold() == name.casefold()), None)

    def write(self, sound: OwnSound) -> None:
        """Keep a sound, in place of what was known of it. Raises InputError."""
        facts = asdict(sound)
        del facts["weight"]
        path = self._path(sound.name)
        fresh = path.with_suffix(".part")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                np.savez_compressed(file, facts=np.array(json.dumps(facts)), weight=sound.weight)
                file.flush()
                os.fsync(file.fileno())  # a power cut behind the renaming would leave half of it
            os.replace(fresh, path)
        except OSError as error:
            raise InputError(f"own_sounds.folder: {path}: cannot be written: {error.strerror}") from None

    def forget(self, name: str) -> OwnSound:
        """Delete what was learned of a sound. UsageError: there is none of this name."""
        sound = self.find(name)
        if sound is None:
            known = ", ".join(item.name for item in self.read()) or "none yet"
            raise UsageError(f"NAME: no sound is called {name!r}; there are: {known}")
        path = self._path(sound.name)
        try:
            path.unlink()
        except OSError as error:
            raise InputError(f"own_sounds.folder: {path}: cannot be deleted: {error.strerror}") from None
        return sound

    def _path(self, name: str) -> Path:
        return self.folder / f"{stored_name(name)}.npz"


def own_layer(model: Model, folder: Path) -> OwnLayer | None:
    """The layer of what was learned with this model, None without; a line in the log for what was with another."""
    known = OwnSoundFiles(folder).read()
    if not known:
        return None
    encoder = encoder_identity(model)
    for sound in known:
        if sound.encoder != encoder:
            log.warning(
                f"streamer: {sound.name!r} was learned with {sound.model} and is not listened for with {model.name}: "
                f"learn it again from its clips with --model {model.name}, or run with --model {sound.model}"
            )
    mine = tuple(sound for sound in known if sound.encoder == encoder)
    return OwnLayer(bundled_background(model), mine) if mine else None


def _read(path: Path) -> OwnSound:
    with np.load(path) as stored:
        sound = OwnSound(**json.loads(str(stored["facts"])), weight=stored["weight"].astype(np.float32))
    if sound.weight.ndim != 1 or not np.isfinite(sound.weight).all():
        raise ValueError("its numbers make no layer")
    return sound
