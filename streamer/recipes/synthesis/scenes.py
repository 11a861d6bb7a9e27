"""Backgrounds of 32 s that the small networks of the signal learn in: what else sounds in a room."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soxr

from streamer.audio.files import read_audio
from streamer.events import SAMPLE_RATE
from streamer.measure.recordings import csv_rows
from streamer.recipes.synthesis import alarms
from streamer.recipes.synthesis.gliding import SPREAD, chirps, engine, lead, levelled, music, riff, singing
from streamer.recipes.synthesis.household import household as synthetic_household
from streamer.recipes.synthesis.sounds import DISTRACTORS, Generator, Samples, household, noise, room

SECONDS = 32.0
LEVEL = 0.05  # RMS: -26 dBFS
RT60_S = 0.7
LAYERS = ("speech", "household", "music", "noise", "rush", "lead", "chirps", "voice", "engine", "distractor", "riff")
SHARES = (0.24, 0.2, 0.2, 0.06, 0.06, 0.06, 0.05, 0.05, 0.02, 0.06, 0.0)
MUSICAL = (
    0.1,
    0.12,
    0.4,
    0.04,
    0.03,
    0.1,
    0.05,
    0.04,
    0.01,
    0.03,
    0.08,
)  # nothing is as like a siren, nor hides one as well
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
ALARMS = frozenset({"Siren", "Alarm clock", "Smoke detector, smoke alarm", "Fire alarm"})  # never in a background


class Sounds:
    """What scenes are composed of: the train split of a folder with `manifest.csv`, and voices of espeak-ng and flite.

    Raises InputError, OSError and CalledProcessError where a recording cannot be read or a voice does not speak.
    """

    def __init__(self, data: Path) -> None:
        rows = [row for row in read_manifest(data) if row["split"] == "train"]
        random = np.random.default_rng(1)
        self.speech = [_espoken(random) for _ in range(ESPOKEN)] + [_flited(random) for _ in range(FLITED)]
        said = [row for row in rows if row["kind"] == "speech"]
        chosen = (said[index] for index in random.permutation(len(said))[:DIGITS])
        self.speech += [read_audio(str(data / row["path"])) for row in chosen]
        self.sirens: list[Samples] = []
        self.sounds: list[Samples] = []
        for row in rows:
            labels = set(row["labels"].split("|"))
            if "Siren" in labels:
                self.sirens.append(read_audio(str(data / row["path"])))
            elif row["kind"] != "speech" and not labels & ALARMS:
                self.sounds.append(read_audio(str(data / row["path"])))
        alarming = {alarms.SIREN, alarms.ALARM_CLOCK, alarms.SMOKE, alarms.ALARM}
        clips = (clip for clip in synthetic_household(40, 7) if not set(clip.labels) & alarming)
        self.sounds += [clip.audio for clip in clips]

    def layer(self, kind: str, random: Generator, seconds: float) -> Samples:
        """One sound or a row of them, at another pitch and tempo, RMS 1."""
        longer = seconds * 1.3
        if kind == "speech":
            samples = strung(random, self.speech, longer, 0.4)
        elif kind == "household":
            samples = strung(random, self.sounds, longer, 0.0)
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
        return np.resize(moved(levelled(samples), random, 0.2), int(seconds * SAMPLE_RATE))


def read_manifest(data: Path) -> list[dict[str, str]]:
    """The rows of `manifest.csv` in a folder. Raises InputError."""
    path = data / "manifest.csv"
    return [row for _, row in csv_rows(path, ("path", "kind", "split", "labels"), f"--data {path}")]


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


def strung(random: Generator, clips: Sequence[Samples], seconds: float, pause_s: float) -> Samples:
    """Clips one after the other with random pauses, each at about the same level, with an RMS of 1."""
    wanted, parts, have = round(seconds * SAMPLE_RATE), [], 0
    while have < wanted:
        clip = clips[int(random.integers(len(clips)))]
        level = float(np.sqrt(np.mean(clip**2))) + 1e-6
        pause = np.zeros(round(random.exponential(pause_s) * SAMPLE_RATE) if pause_s else 0, np.float32)
        parts += [clip * np.float32(random.uniform(0.6, 1.2) / level), pause]
        have += clip.size + pause.size
    out = np.concatenate(parts)[:wanted].astype(np.float32)
    return out / np.float32(max(float(np.sqrt(np.mean(out**2))), 1e-6))


def moved(samples: Samples, random: Generator, most: float) -> Samples:
    """At another pitch and tempo, by up to a factor of exp(`most`)."""
    factor = np.exp(random.uniform(-most, most))
    return np.asarray(soxr.resample(samples, SAMPLE_RATE * factor, SAMPLE_RATE, quality="QQ"), np.float32)


def _muffled(samples: Samples, random: Generator) -> Samples:
    """What a telephone or a wall lets pass."""
    spectrum = np.fft.rfft(samples)
    pitch = np.fft.rfftfreq(samples.size, 1 / SAMPLE_RATE)
    spectrum /= 1 + (pitch / random.uniform(1800, 5000)) ** 8
    return np.asarray(np.fft.irfft(spectrum, samples.size), np.float32)


def _espoken(random: Generator) -> Samples:
    voice = str(VOICES[int(random.integers(len(VOICES)))]) + str(random.choice(VARIANTS))
    text = " ".join(random.choice(SAID.split(), int(random.integers(4, 14)))) + str(random.choice([".", "?", "!"]))
    pitch, speed = str(int(random.integers(10, 95))), str(int(random.integers(110, 230)))
    return _spoken("espeak-ng", "-v", voice, "-p", pitch, "-s", speed, text, to="-w")


def _flited(random: Generator) -> Samples:
    voice = str(random.choice(FLITE))
    return _spoken(
        "flite", "-voice", voice, "-t", " ".join(random.choice(SAID.split(), int(random.integers(4, 12)))), to="-o"
    )


def _spoken(*command: str, to: str) -> Samples:
    """What a program says into the file behind the option `to`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.wav"
        subprocess.run([*command, to, str(path)], check=True, capture_output=True)
        return read_audio(str(path))
