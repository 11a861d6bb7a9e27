"""Sounds of one's own: a logistic layer for each, on the taps of the encoder pass that there is anyway.

    taps [layers, steps, d] ── projection ──► unit vectors [steps, k] ── weight, bias ──► a logit for each 0.4 s

The projection comes with Streamer for each encoder (`data/own_sounds/NAME.npz`, made by `streamer train own-sounds`):
directions in which sounds differ and the same sound elsewhere does not (linear discriminant analysis, Fisher 1936).
With it come the vectors of other sounds and speech, which every layer is taught to leave alone. How a layer is
learned: `streamer.training.own_sounds`.

What is kept of a sound (`OwnSoundFiles`): vectors of its clips, no audio, and the layer that they led to. Both mean
something to the encoder that they were made with only, which is told by its LayerNorms: neither precision nor file
format nor a context adapter changes those.
"""

import hashlib
import io
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from streamer.errors import CheckpointError, InputError, UsageError
from streamer.events import Severity
from streamer.model.whisper import STEP_SAMPLES, Model
from streamer.plans import OwnScore

log = logging.getLogger(__name__)

JUDGED_STEPS = 5  # the last 2 s are judged, every second
SPAN_S = JUDGED_STEPS * 0.4
LENGTH = 127  # of a unit vector as it is stored, in 8-bit integers
CLIPS_NEEDED = 3
CLIPS_KEPT = 10  # of one sound; the oldest go

Vectors = NDArray[np.float32]
Packed = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Background:
    """What comes with Streamer for one encoder. `mean` [layers * d], `projection` [layers * d, k].

    `others`: packed unit vectors [windows, steps, k] of consecutive steps of other sounds and speech.
    """

    encoder: str
    model: str
    mean: Vectors
    projection: Vectors
    others: Packed

    @property
    def hours(self) -> float:
        """How much other sound there is."""
        return float(self.others.shape[0] * self.others.shape[1] * STEP_SAMPLES / 16_000 / 3600)

    def vectors(self, taps: Vectors) -> Vectors:
        """Unit vectors [steps, k] of taps [layers, steps, d]."""
        rows = taps.transpose(1, 0, 2).reshape(taps.shape[1], -1)
        found = (rows - self.mean) @ self.projection
        unit: Vectors = found / (np.linalg.norm(found, axis=1, keepdims=True) + 1e-6)
        return unit

    def write(self, path: Path) -> None:
        """Write the file that `read_background` reads."""
        facts = json.dumps({"encoder": self.encoder, "model": self.model})
        half = {"mean": self.mean.astype(np.float16), "projection": self.projection.astype(np.float16)}
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, facts=np.array(facts), others=self.others, **half)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class OwnSound:
    """One sound: what was learned of it, with `model`, whose encoder is `encoder`.

    `clips`: packed vectors [n, k] of each clip, of steps in which it sounds. With fewer than CLIPS_NEEDED clips there
    is no layer yet: `weight` is empty. A run of `run` steps sounds like it from a mean logit of `threshold` on.
    `false_hours`, `false_alarms`: so much other sound the layer was tried on without having been taught it, and how
    often it would have taken that for the sound.
    """

    name: str
    severity: Severity
    encoder: str
    model: str
    clips: tuple[Packed, ...]
    weight: Vectors
    bias: float = 0.0
    threshold: float = 0.0
    run: int = 1
    false_alarms: int = 0
    false_hours: float = 0.0
    heard_again: float = 0.0  # the share of windows with the sound in which the layer takes it for the sound

    @property
    def learned(self) -> bool:
        """Whether there are clips enough."""
        return self.weight.size > 0

    def logits(self, vectors: Vectors) -> Vectors:
        """Mean logits over each run of steps, [..., steps - run + 1], for vectors [..., steps, k]."""
        return run_means(vectors @ self.weight + np.float32(self.bias), min(self.run, vectors.shape[-2]))


@dataclass(frozen=True, slots=True)
class OwnLayer:
    """All sounds that one model listens for. Immutable: learning replaces it as a whole."""

    background: Background
    sounds: tuple[OwnSound, ...]

    def scores(self, taps: Tensor, end_sample: int) -> tuple[OwnScore, ...]:
        """What the last JUDGED_STEPS of taps [layers, steps, d], which end at a sample, sound like."""
        vectors = self.background.vectors(taps[:, -JUDGED_STEPS:].float().cpu().numpy())
        found = []
        for sound in self.sounds:
            logits = sound.logits(vectors)
            best = int(logits.argmax())
            start = end_sample - (len(vectors) - best) * STEP_SAMPLES
            score = 1 / (1 + float(np.exp(sound.threshold - logits[best])))
            found.append(OwnScore(sound.name, score, max(0, start), start + sound.run * STEP_SAMPLES))
        return tuple(found)


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
        f"--model: own sounds can be learned with nano and tiny.en, not with {model.name}; "
        "from a checkout `streamer train own-sounds` makes what is missing"
    )


def read_background(content: bytes, name: str) -> Background:
    """A background from its file's bytes. Raises CheckpointError."""
    try:
        with np.load(io.BytesIO(content)) as stored:
            facts = json.loads(str(stored["facts"]))
            mean, projection = (stored[key].astype(np.float32) for key in ("mean", "projection"))
            return Background(facts["encoder"], facts["model"], mean, projection, stored["others"])
    except (ValueError, KeyError, OSError, EOFError) as error:
        raise CheckpointError(f"{name}: is no background of own sounds: {error}") from None


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
            except (ValueError, KeyError, OSError, EOFError, TypeError) as error:
                log.warning("own sounds: %s cannot be read and is left out: %s", path, error)
        return tuple(sorted(found, key=lambda sound: sound.name))

    def find(self, name: str) -> OwnSound | None:
        """The sound of this name, whatever its case."""
        return next((sound for sound in self.read() if sound.name.casefold() == name.casefold()), None)

    def write(self, sound: OwnSound) -> None:
        """Keep a sound, in place of what was known of it. Raises InputError."""
        facts = {key: value for key, value in asdict(sound).items() if key not in ("clips", "weight")}
        arrays: dict[str, Any] = {f"clip{index}": clip for index, clip in enumerate(sound.clips)}
        path = self._path(sound.name)
        fresh = path.with_suffix(".part")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                np.savez_compressed(file, facts=np.array(json.dumps(facts)), weight=sound.weight, **arrays)
            os.replace(fresh, path)
        except OSError as error:
            raise InputError(f"own_sounds.folder: {path}: cannot be written: {error.strerror}") from None

    def forget(self, name: str) -> OwnSound:
        """Delete what was learned of a sound, its clips too. UsageError: there is none of this name."""
        sound = self.find(name)
        if sound is None:
            known = ", ".join(item.name for item in self.read()) or "none yet"
            raise UsageError(f"NAME: no sound is called {name!r}; there are: {known}")
        path = self._path(sound.name)
        try:
            path.unlink()
            for clip in self.clips(sound.name).glob("*.wav"):
                clip.unlink()
        except OSError as error:
            raise InputError(f"own_sounds.folder: {path}: cannot be deleted: {error.strerror}") from None
        return sound

    def clips(self, name: str) -> Path:
        """The folder of a sound's clips, where those are kept."""
        return self._path(name).with_suffix("")

    def _path(self, name: str) -> Path:
        return self.folder / f"{quote(name.casefold(), safe=' ')}.npz"


def fitting(background: Background, sounds: Sequence[OwnSound]) -> tuple[OwnLayer, tuple[str, ...]]:
    """The layer of those sounds that were learned with this encoder, and a line about each that was not."""
    other = [
        f"the sound {sound.name!r} was learned with {sound.model} and is not listened for with {background.model}: "
        f"learn it again from its clips, or run with --model {sound.model}"
        for sound in sounds
        if sound.learned and sound.encoder != background.encoder
    ]
    known = tuple(sound for sound in sounds if sound.learned and sound.encoder == background.encoder)
    return OwnLayer(background, known), tuple(other)


def _read(path: Path) -> OwnSound:
    with np.load(path) as stored:
        facts = json.loads(str(stored["facts"]))
        count = sum(key.startswith("clip") for key in stored.files)
        clips = tuple(stored[f"clip{index}"] for index in range(count))
        return OwnSound(**facts, clips=clips, weight=stored["weight"].astype(np.float32))
