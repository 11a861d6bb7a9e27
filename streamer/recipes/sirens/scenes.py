"""Scenes of 32 s to learn sirens by: what sounds in a room, more than half of the time with sirens in it.

The sirens are those of `streamer.recipes.nano.alarms` and the recorded ones of the train split; the bench judges by
makers, recordings and ranges of its own.
"""

import csv
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from streamer.events import SAMPLE_RATE
from streamer.recipes.nano import alarms
from streamer.recipes.nano.household import far
from streamer.recipes.nano.household import household as synthetic_household
from streamer.recipes.sirens.sounds import SPREAD, chirps, engine, lead, levelled, music, riff, singing
from streamer.recipes.synthesis import alert_scenes
from streamer.recipes.synthesis.alert_scenes import Recording, load, strung
from streamer.recipes.synthesis.sounds import DISTRACTORS, Generator, Samples, household, noise, room
from streamer.sound.patterns.sirens import CLASSES, STEP_FRAMES, band_levels
from streamer.sound.patterns.spectrum import FRAME_HOP, Decibels, Spectrogram

__all__ = ["RECORDED", "Scene", "Sounds", "background", "compose", "heard_there"]

SECONDS = 32.0
LEVEL = 0.05  # RMS: -26 dBFS
RT60_S = 0.7
RECORDED = len(CLASSES)  # the class of a recorded siren: one of them, nobody wrote down which
SIREN_KINDS = CLASSES[1:]
LAYERS = ("speech", "household", "music", "noise", "rush", "lead", "chirps", "voice", "engine", "distractor", "riff")
SHARES = (0.24, 0.2, 0.2, 0.06, 0.06, 0.06, 0.05, 0.05, 0.02, 0.06, 0.0)
MUSICAL = (0.1, 0.12, 0.4, 0.04, 0.03, 0.1, 0.05, 0.04, 0.01, 0.03, 0.08)  # of the scenes from MUSICAL_FROM on:
MUSICAL_FROM = 6400  # nothing is as like a siren, nor hides one as well
BEEPERS = ("alarm_clock", "slow_clock", "clock_bell", "buzzer", "doorbell", "telephone", "kettle", "smoke_t3", "co_t4")
OTHERS = (*(name for name in DISTRACTORS if name not in ("music", "household")), *(f"k:{name}" for name in BEEPERS))
MAKERS = {"music": music, "lead": lead, "chirps": chirps, "voice": singing, "engine": engine, "riff": riff}
SAID = (
    "alpha river kitchen nobody yellow sixteen window mother really quickly garden people under thinking beautiful "
    "Saturday remember zero one two three four five six seven eight nine orange holiday why oh no yes never maybe "
    "hello trousers wonderful elephant moon snow fire where are you going what is the matter"
)  # words, in any order
VOICES = ("en", "en-us", "en-gb-scotland", "en-gb-x-rp", "de", "fr", "es", "it", "pl", "sv", "pt", "nl")
VARIANTS = ("", "+m1", "+m2", "+m4", "+m6", "+f1", "+f3", "+f4", "+croak")
FLITE = ("kal16", "slt", "rms", "awb", "kal")
ESPOKEN, FLITED, DIGITS = 220, 60, 400


@dataclass(frozen=True, slots=True)
class Scene:
    """Levels of bands [steps, BANDS] in dB, the class [steps] that sounds (RECORDED too), and what it is, in words."""

    levels: NDArray[np.float16]
    classes: NDArray[np.int8]
    about: str


class Sounds:
    """What scenes are composed of: the train split of a folder with `manifest.csv`, and voices of espeak-ng and flite.

    Raises OSError and CalledProcessError where a recording cannot be read or a voice does not speak.
    """

    def __init__(self, data: Path) -> None:
        pools = alert_scenes.read_pools(data, development=True)
        self.sirens = pools.alarms.get("siren (recorded)", [])
        random = np.random.default_rng(1)
        self.speech = [_espoken(random) for _ in range(ESPOKEN)] + [_flited(random) for _ in range(FLITED)]
        with (data / "manifest.csv").open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == "train" and row["kind"] == "speech"]
        chosen = (rows[index] for index in random.permutation(len(rows))[:DIGITS])
        self.speech += [Recording(load(data / row["path"]), frozenset()) for row in chosen]
        alarming = {alarms.SIREN, alarms.ALARM_CLOCK, alarms.SMOKE, alarms.ALARM}
        clips = (clip for clip in synthetic_household(40, 7) if not set(clip.labels) & alarming)
        self.sounds = [*pools.sounds, *(Recording(clip.audio, frozenset()) for clip in clips)]

    def layer(self, kind: str, random: Generator, seconds: float) -> Samples:
        """One sound or a row of them, at another pitch and tempo, RMS 1."""
        longer = seconds * 1.3
        if kind == "speech":
            samples = strung(random, self.speech, longer, 0.4).samples
        elif kind == "household":
            samples = strung(random, self.sounds, longer, 0.0).samples
        elif kind == "noise":
            samples = noise(random, longer, SPREAD).samples
        elif kind == "rush":
            samples = household(random, longer, SPREAD).samples
        elif kind in MAKERS:
            samples = MAKERS[kind](random, longer)
        elif kind.startswith("k:"):
            samples = levelled(alarms.KINDS[kind[2:]].make(longer, random))
        else:
            samples = DISTRACTORS[kind](random, longer, SPREAD).samples
        return np.resize(_moved(levelled(samples), random, 0.2), int(seconds * SAMPLE_RATE))


def compose(sounds: Sounds, number: int) -> Scene:
    """Scene `number`: the same whenever it is composed."""
    random = np.random.default_rng([77, number])
    samples, names = background(sounds, random, SHARES if number < MUSICAL_FROM else MUSICAL)
    count = samples.size
    classes, snr_db = np.zeros(count, np.int8), 99.0
    at = random.uniform(3, 12)
    if random.random() < 0.6:
        while at < SECONDS - 3:
            siren, found = _siren(sounds, random, SECONDS - at - 0.5)
            snr_db = float(random.uniform(-10, 26)) if random.random() < 0.85 else 40.0
            siren = room(random, siren, random.uniform(0, RT60_S))
            start = int(at * SAMPLE_RATE)
            size = min(siren.size, count - start)
            samples[start : start + size] += siren[:size] * np.float32(10 ** (snr_db / 20))
            classes[start : start + size] = found
            at += size / SAMPLE_RATE + random.uniform(3, 12)
    levels, _ = Spectrogram().push(heard_there(samples, random), count)
    steps = _steps(band_levels(levels))
    ends = (np.arange(len(steps)) * STEP_FRAMES * FRAME_HOP + 3 * FRAME_HOP).clip(max=count - 1)
    return Scene(steps.astype(np.float16), classes[ends], f"{'+'.join(names)}@{snr_db:.0f}")


def background(
    sounds: Sounds, random: Generator, shares: Sequence[float], others: Sequence[str] = OTHERS
) -> tuple[Samples, list[str]]:
    """SECONDS of one to three of LAYERS in rooms with an RMS of 1, and which; `others`: what a distractor may be."""
    samples, names = np.zeros(int(SECONDS * SAMPLE_RATE), np.float32), []
    for layer in range(int(random.choice([1, 2, 3], p=[0.45, 0.4, 0.15]))):
        kind = str(random.choice(LAYERS, p=np.array(shares)))
        if kind == "distractor":
            kind = others[int(random.integers(len(others)))]
        names.append(kind)
        wet = room(random, sounds.layer(kind, random, SECONDS), random.uniform(0, RT60_S))
        samples += wet * np.float32(np.exp(random.uniform(np.log(0.1), 0)) if layer else 1)
    return levelled(samples), names


def heard_there(samples: Samples, random: Generator) -> Samples:
    """The scene at some level, now and then through a wall or a telephone; within full scale."""
    loud = max(1.0, float(np.sqrt(np.mean(samples**2))) * 0.3)
    samples = samples * np.float32(LEVEL * 10 ** (random.uniform(-20, 10) / 20) / loud)
    if random.random() < 0.15:
        samples = _muffled(samples, random)
    return np.clip(samples, -1, 1).astype(np.float32)


def _steps(levels: Decibels) -> Decibels:
    whole = len(levels) // STEP_FRAMES * STEP_FRAMES
    found: Decibels = levels[:whole].reshape(-1, STEP_FRAMES, levels.shape[1]).max(axis=1)
    return found


def _siren(sounds: Sounds, random: Generator, longest_s: float) -> tuple[Samples, int]:
    """A siren of some length with an RMS of 1, perhaps far away, coming or going; its class."""
    found = int(random.integers(1, len(CLASSES)))
    length = min(float(random.uniform(2, 14)), longest_s)
    if random.random() < 0.12 and sounds.sirens:
        clip = sounds.sirens[int(random.integers(len(sounds.sirens)))]
        samples, found = _moved(clip, random, 0.12)[: int(length * SAMPLE_RATE)], RECORDED
    else:
        samples = levelled(alarms.KINDS[SIREN_KINDS[found - 1]].make(length, random))
    samples = levelled(samples)
    if random.random() < 0.35 and random.random() < 0.5:
        samples = levelled(far(samples.astype(float), random))
    if random.random() < 0.4:
        course = np.exp(random.uniform(-1.6, 0, 3))
        samples = samples * np.interp(np.linspace(0, 1, samples.size), [0, 0.5, 1], course).astype(np.float32)
    return samples, found


def _moved(samples: Samples, random: Generator, most: float) -> Samples:
    """At another pitch and tempo, by up to a factor of exp(`most`)."""
    factor = np.exp(random.uniform(-most, most))
    return np.asarray(soxr.resample(samples, SAMPLE_RATE * factor, SAMPLE_RATE, quality="QQ"), np.float32)


def _muffled(samples: Samples, random: Generator) -> Samples:
    """What a telephone or a wall lets pass."""
    spectrum = np.fft.rfft(samples)
    pitch = np.fft.rfftfreq(samples.size, 1 / SAMPLE_RATE)
    spectrum /= 1 + (pitch / random.uniform(1800, 5000)) ** 8
    return np.asarray(np.fft.irfft(spectrum, samples.size), np.float32)


def _espoken(random: Generator) -> Recording:
    voice = str(VOICES[int(random.integers(len(VOICES)))]) + str(random.choice(VARIANTS))
    text = " ".join(random.choice(SAID.split(), int(random.integers(4, 14)))) + str(random.choice([".", "?", "!"]))
    pitch, speed = str(int(random.integers(10, 95))), str(int(random.integers(110, 230)))
    return _spoken("espeak-ng", "-v", voice, "-p", pitch, "-s", speed, text, to="-w")


def _flited(random: Generator) -> Recording:
    voice = str(random.choice(FLITE))
    return _spoken(
        "flite", "-voice", voice, "-t", " ".join(random.choice(SAID.split(), int(random.integers(4, 12)))), to="-o"
    )


def _spoken(*command: str, to: str) -> Recording:
    """What a program says into the file behind the option `to`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.wav"
        subprocess.run([*command, to, str(path)], check=True, capture_output=True)
        return Recording(load(path), frozenset())
