"""Scenes to judge alarms by: an alarm in a background, or a background alone, with the truth about both.

Backgrounds are speech, sounds and music: from a folder with `manifest.csv` (columns path, kind, split, labels) if there
is one, else synthesised. SNR: RMS of the alarm while it is on, to the RMS of the whole background.
"""

import csv
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import av
import numpy as np
import soxr

from streamer.events import SAMPLE_RATE
from streamer.recipes.synthesis import sounds
from streamer.recipes.synthesis.sounds import Generator, Samples, Spread

LEVEL = 0.05  # RMS of the background: -26 dBFS
LEAD_S, ALARM_S, TAIL_S = 8.0, 24.0, 11.0
RECORDED: Mapping[str, str] = MappingProxyType(
    {"siren (recorded)": "Siren", "glass": "Shatter", "knock": "Knock", "baby": "Baby cry, infant cry", "dog": "Bark"}
)  # kinds of alarms that are recordings: the label that tells
TRUE_ALARMS = frozenset({"Siren", "Alarm clock", "Smoke detector, smoke alarm", "Fire alarm"})  # never in a background
STEP = SAMPLE_RATE // 10
EVERYDAY = ("speech", "noise", "household", "music")
SENTENCES = (
    "The meeting starts at nine, please bring the papers with you.",
    "Have you seen where I put the keys? I think they were on the kitchen table.",
    "Tomorrow it will be sunny in the north, with a little rain in the west.",
    "We could take the early train and be there before lunch, if that suits you.",
    "She said seven or eight people would come, so we need more chairs.",
)
MORE_SENTENCES = (
    "The library closes early on Fridays, so return the books before four.",
    "I never understood why he sold that little house by the river.",
    "Put the flour and the butter in a bowl, then add two eggs and stir.",
    "Did you hear the neighbours moving furniture again last night?",
    "Thirty minutes later the bus finally came around the corner.",
    "My sister plays the violin, and her husband repairs old clocks.",
)  # said in hours without alarms, by other voices
MORE_VOICES = ("en-gb-scotland", "en-us", "en+m3", "en+f2", "en-gb-x-rp+f4", "en-us+m5", "en+whisper")


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded sound: float32 mono at 16 kHz, its AudioSet labels."""

    samples: Samples
    labels: frozenset[str]


@dataclass(frozen=True, slots=True)
class Background:
    """Audio with an RMS of 1, and what sounds in it: (labels, start, end) in seconds."""

    samples: Samples
    heard: tuple[tuple[frozenset[str], float, float], ...] = ()


@dataclass(slots=True)
class Pools:
    """Recordings to compose from; empty pools fall back on what can be synthesised. `alarms`: those of RECORDED."""

    speech: list[Recording] = field(default_factory=list)
    sounds: list[Recording] = field(default_factory=list)
    alarms: dict[str, list[Samples]] = field(default_factory=dict)

    def background(self, kind: str, rng: Generator, seconds: float, spread: Spread) -> Background:
        """`speech`, `household`, `music` or `noise` of that length."""
        if kind == "speech" and self.speech:
            return strung(rng, self.speech, seconds, pause_s=0.4)
        if kind == "household" and self.sounds and rng.random() < 0.7:
            return strung(rng, self.sounds, seconds, pause_s=0.0)
        maker = {"music": sounds.music, "noise": sounds.noise}.get(kind, sounds.household)
        return Background(maker(rng, seconds, spread).samples)


@dataclass(frozen=True, slots=True)
class Scene:
    """An alarm in a background; `start_s` and `end_s` of the alarm, `period_s` of its pattern (0: none)."""

    samples: Samples
    start_s: float
    end_s: float
    period_s: float


def load(path: Path) -> Samples:
    """An audio file as float32 mono at 16 kHz."""
    with av.open(str(path)) as container:
        rate = container.streams.audio[0].rate
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        parts = [out.to_ndarray()[0] for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    samples = np.concatenate(parts).astype(np.float32)
    return samples if rate == SAMPLE_RATE else np.asarray(soxr.resample(samples, rate, SAMPLE_RATE), np.float32)


def read_pools(data: Path | None, development: bool, *, every_voice: bool = False) -> Pools:
    """Speech and sounds: the train split and espeak-ng's voices to build on, the test split to judge.

    `every_voice`: more of espeak-ng's voices, say more, beside the recordings.
    """
    pools = Pools()
    if data is not None and (data / "manifest.csv").exists():
        split = "train" if development else "test"
        with (data / "manifest.csv").open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == split]
        for row in rows:
            found = Recording(load(data / row["path"]), frozenset(row["labels"].split("|")))
            for kind, label in RECORDED.items():
                if label in found.labels:
                    pools.alarms.setdefault(kind, []).append(found.samples)
            if row["kind"] == "speech":
                pools.speech += [] if development else [found]
            elif not found.labels & TRUE_ALARMS:
                pools.sounds.append(found)
    if not pools.speech and shutil.which("espeak-ng"):
        voices = ("en", "en-us+f3", "en+m7", "en+f5")
        said = frozenset({"Speech"})
        pools.speech = [Recording(_espoken(text, voice), said) for text in SENTENCES for voice in voices]
    if every_voice and shutil.which("espeak-ng"):
        said = frozenset({"Speech"})
        pools.speech += [Recording(_espoken(text, voice), said) for text in MORE_SENTENCES for voice in MORE_VOICES]
    return pools


def kinds(pools: Pools) -> list[str]:
    """What alarms there are: the synthetic ones, and the recorded ones that the pools have."""
    return [*sounds.ALARMS, *(kind for kind in RECORDED if kind in pools.alarms)]


def compose(kind: str, background: str, snr_db: float, rng: Generator, pools: Pools, spread: Spread) -> Scene:
    """A scene: background throughout, the alarm within a second of LEAD_S, in a room; float32 below full scale."""
    if kind in sounds.ALARMS:
        sound = sounds.ALARMS[kind](rng, ALARM_S, spread)
        onset_s = 0.0
    else:
        sound, onset_s = _recorded(rng, pools.alarms[kind])
    wet = sounds.room(rng, sound.samples, rng.uniform(0, spread.rt60_s))
    behind = pools.background(background, rng, LEAD_S + wet.size / SAMPLE_RATE + TAIL_S, spread).samples
    scene = behind * np.float32(LEVEL)
    begins_s = LEAD_S + float(rng.uniform(0, 1))
    start = round(begins_s * SAMPLE_RATE)
    scene[start : start + wet.size] += wet * np.float32(LEVEL * 10 ** (snr_db / 20))
    samples = (scene * np.float32(min(1.0, 0.9 / np.abs(scene).max()))).astype(np.float32)
    return Scene(samples, begins_s + onset_s, begins_s + sound.end_s, sound.period_s)


def mixed(rng: Generator, pools: Pools, seconds: float, spread: Spread) -> tuple[str, Background]:
    """A background without any alarm, half of the time with household sounds on top; what it is, in words."""
    kind = ("speech", "household", "music")[int(rng.integers(3))]
    first = pools.background(kind, rng, seconds, spread)
    if rng.random() >= 0.5:
        return kind, Background(first.samples * np.float32(LEVEL), first.heard)
    second = pools.background("household", rng, seconds, spread)
    samples = first.samples * np.float32(LEVEL) + second.samples * np.float32(LEVEL * rng.uniform(0.1, 1))
    return f"{kind} and household", Background(samples, first.heard + second.heard)


def everyday(kind: str, rng: Generator, pools: Pools, seconds: float, spread: Spread) -> tuple[str, Background]:
    """One of EVERYDAY at some level in some room, half of the time with another one on top; what it is, in words."""
    layers, name = [(kind, 1.0)], kind
    if rng.random() < 0.5:
        other = [found for found in EVERYDAY if found != kind][int(rng.integers(len(EVERYDAY) - 1))]
        layers, name = [*layers, (other, rng.uniform(0.1, 1))], f"{kind} and {other}"
    samples = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    heard: tuple[tuple[frozenset[str], float, float], ...] = ()
    for layer, share in layers:
        found = pools.background(layer, rng, seconds, spread)
        samples += sounds.room(rng, found.samples, rng.uniform(0, spread.rt60_s)) * np.float32(share)
        heard += found.heard
    samples *= np.float32(10 ** (rng.uniform(-40, -16) / 20))
    return name, Background(np.clip(samples, -1, 1), heard)


def distractor(name: str, rng: Generator, pools: Pools, seconds: float, spread: Spread) -> Samples:
    """A sound that is no alarm in a room; half of the time there is speech around it."""
    sound = sounds.DISTRACTORS[name](rng, seconds, spread).samples
    scene = sounds.room(rng, sound, rng.uniform(0, spread.rt60_s)) * np.float32(LEVEL)
    if rng.random() < 0.5:
        speech = pools.background("speech", rng, seconds, spread).samples
        scene = scene + speech * np.float32(LEVEL * rng.uniform(0.1, 1))
    return np.asarray(np.clip(scene, -1, 1), np.float32)


def _recorded(rng: Generator, clips: Sequence[Samples]) -> tuple[sounds.Sound, float]:
    """One of the recordings with an RMS of 1 while it sounds, and when it begins in it."""
    clip = clips[int(rng.integers(len(clips)))]
    power = np.square(clip[: clip.size // STEP * STEP]).reshape(-1, STEP).mean(axis=1)
    active = np.flatnonzero(power > 1e-3 * power.max())
    level = float(np.sqrt(power[active].mean()))
    return sounds.Sound(clip / np.float32(level), float(active[-1] + 1) / 10), float(active[0]) / 10


def strung(rng: Generator, clips: Sequence[Recording], seconds: float, pause_s: float) -> Background:
    """Clips one after the other with random pauses, each at about the same level."""
    wanted, parts, heard, have = round(seconds * SAMPLE_RATE), [], [], 0
    while have < wanted:
        clip = clips[int(rng.integers(len(clips)))]
        level = float(np.sqrt(np.mean(clip.samples**2))) + 1e-6
        pause = np.zeros(round(rng.exponential(pause_s) * SAMPLE_RATE) if pause_s else 0, np.float32)
        parts += [clip.samples * np.float32(rng.uniform(0.6, 1.2) / level), pause]
        heard.append((clip.labels, have / SAMPLE_RATE, (have + clip.samples.size) / SAMPLE_RATE))
        have += clip.samples.size + pause.size
    out = np.concatenate(parts)[:wanted].astype(np.float32)
    return Background(out / np.float32(max(float(np.sqrt(np.mean(out**2))), 1e-6)), tuple(heard))


def _espoken(text: str, voice: str) -> Samples:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.wav"
        subprocess.run(["espeak-ng", "-v", voice, "-w", str(path), text], check=True, capture_output=True)
        return load(path)
