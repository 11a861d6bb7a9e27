"""Ten seconds of a room, composed from recordings: what a head is taught on, with what sounds in each 0.4 s.

Something sounds (of what alert rules are about, smoke alarms and sirens the most often), perhaps a second thing, over
nothing, speech, music or another recording; near or far, through a telephone, too loud for the microphone. Where all of
it is labelled, the labels are the truth for what alert rules are about; all else is what the teacher hears.
Drawn from a seed and a number, so that a run that was killed goes on with the scenes that it would have had.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from streamer.audio.files import read_audio
from streamer.events import SAMPLE_RATE
from streamer.sound.labels import LABEL_COUNT, group
from streamer.training.manifests import Clip
from streamer.training.teacher import STEP, Teacher

SECONDS = 10.0
COUNT = round(SECONDS * SAMPLE_RATE)
STEPS = COUNT // STEP
# Groups that alert rules are about: a labelled clip without them has none of them.
GUARDED = (
    *("siren", "smoke_alarm", "alarm_clock", "telephone", "doorbell", "knock", "car_horn", "reversing_beeper"),
    *("glass", "gunshot", "explosion", "scream", "baby_cry", "dog"),
)
OTHERS = ("labelled", "unlabelled", "speech", "music", "decoys")  # decoys: synthesised, and no alarm
SYNTHETIC = "synthesised"  # the category of clips that are no recordings: there may be many more of them
RECORDED, RECORDED_FROM = 0.6, 12  # of the sounds in front, with so many recordings; with fewer, in proportion
SHARE_OF_GUARDED = 0.6  # of the sounds in front
OFTEN = {"smoke_alarm": 3.0, "siren": 3.0, "alarm_clock": 1.5, "telephone": 1.5, "decoys": 2.5}  # the others: 1
BACKGROUNDS = (("none", 0.32), ("speech", 0.25), ("music", 0.15), ("unlabelled", 0.18), ("labelled", 0.10))
SNR_DB = (-10.0, 25.0)  # of what sounds over the background
LEVEL_DBFS = (-45.0, -3.0)  # the scene's peak
HISS_DBFS = (-75.0, -45.0)
FASTER = (0.9, 1.12)
ACTIVE_DB, AUDIBLE_DB = -32.0, -12.0  # of its own loudest step, and of the background, to count as sounding
SURE = 0.97
LONGEST_KEPT = 60 * SAMPLE_RATE

Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scene:
    """`samples` float32 [160000]; `targets` float32 [25, 527]: how surely each class sounds in each step."""

    samples: Samples
    targets: NDArray[np.float32]


class Scenes:
    """Draws scenes from clips. `teacher` None: only the labels are known."""

    def __init__(self, clips: Sequence[Clip], teacher: Teacher | None, seed: int) -> None:
        """Reads every clip when it is first needed, and keeps it. Raises InputError then."""
        self._seed, self._teacher = seed, teacher
        self._audio: dict[Clip, Samples] = {}
        guarded = {name: group(name) for name in GUARDED}
        self._guarded = np.array(sorted(frozenset().union(*guarded.values())))
        self._pools: dict[str, list[Clip]] = {name: [] for name in (*GUARDED, *OTHERS)}
        for clip in clips:
            found = [name for name, members in guarded.items() if members & set(clip.labels)]
            if clip.kind in ("speech", "music"):
                found = [clip.kind]
            if not found and clip.category == SYNTHETIC:
                found = ["decoys"]
            for name in found or ["labelled" if clip.labels else "unlabelled"]:
                self._pools[name].append(clip)
        self._fronts = [name for name in GUARDED if self._pools[name]]
        self._rest = [name for name in OTHERS if self._pools[name]]

    def draw(self, number: int) -> Scene:
        """Scene `number`."""
        random = np.random.default_rng((self._seed, number))
        layers = [self._front(random)]
        if random.random() < 0.2:
            layers.append(self._front(random))
        if random.random() < 0.06:
            layers = []
        behind = self._background(random)
        mixed = np.zeros(COUNT, np.float32)
        truth = np.zeros((STEPS, LABEL_COUNT), np.float32)
        front = [(clip, _levelled(samples, random.uniform(-6, 0))) for clip, samples in layers]
        if behind is not None:
            snr = random.uniform(*SNR_DB)
            behind = (behind[0], _levelled(behind[1], -snr))
            front.append(behind)
        for _, samples in front:
            mixed += samples
        known = True
        for clip, samples in front:
            known &= bool(clip.labels)
            sounding = _sounding(samples, mixed - samples)
            truth[np.ix_(np.flatnonzero(sounding), np.array(clip.labels, np.int64))] = SURE
        samples = _recorded(mixed, random)
        targets = truth if self._teacher is None else np.maximum(truth, self._teacher.steps(samples))
        if known:
            targets[:, self._guarded] = np.where(truth[:, self._guarded] > 0, SURE, 0.0)
        return Scene(samples, targets)

    def _front(self, random: np.random.Generator) -> tuple[Clip, Samples]:
        """A sound, placed somewhere, in a room of its own."""
        guarded = self._fronts and (not self._rest or random.random() < SHARE_OF_GUARDED)
        names = self._fronts if guarded else self._rest
        weights = np.array([OFTEN.get(name, 1.0) for name in names])
        pool = self._pools[str(random.choice(names, p=weights / weights.sum()))]
        recorded = [clip for clip in pool if clip.category != SYNTHETIC]
        if recorded and random.random() < RECORDED * min(1.0, len(recorded) / RECORDED_FROM):
            pool = recorded
        clip = pool[int(random.integers(len(pool)))]
        return clip, _in_a_room(self._placed(clip, random), random)

    def _background(self, random: np.random.Generator) -> tuple[Clip, Samples] | None:
        name = str(random.choice([name for name, _ in BACKGROUNDS], p=[share for _, share in BACKGROUNDS]))
        if name == "none" or not self._pools[name]:
            return None
        pool = self._pools[name]
        filled = np.zeros(COUNT, np.float32)
        clip = pool[int(random.integers(len(pool)))]
        at = 0
        while at < COUNT:  # short ones come again
            part = self._varied(clip, random)[:COUNT]
            end = min(COUNT, at + len(part))
            filled[at:end] = part[: end - at]
            at = end + int(random.uniform(0, 0.8) * SAMPLE_RATE)
        return clip, _in_a_room(filled, random)

    def _placed(self, clip: Clip, random: np.random.Generator) -> Samples:
        samples = self._varied(clip, random)
        placed = np.zeros(COUNT, np.float32)
        if len(samples) >= COUNT:
            first = int(random.integers(len(samples) - COUNT + 1))
            placed[:] = samples[first : first + COUNT]
            if random.random() < 0.5:  # it begins or ends in the window
                cut = int(random.uniform(0.1, 0.9) * COUNT)
                placed[slice(0, cut) if random.random() < 0.5 else slice(cut, COUNT)] = 0
            return placed
        at = int(random.uniform(-0.3 * len(samples), COUNT - 0.5 * len(samples)))
        again = len(samples) < 4 * SAMPLE_RATE and random.random() < 0.4
        while at < COUNT:
            begin, end = max(at, 0), min(COUNT, at + len(samples))
            placed[begin:end] += samples[begin - at : end - at]
            if not again:
                break
            at = end + int(random.uniform(0.05, 2.0) * SAMPLE_RATE)
        return placed

    def _varied(self, clip: Clip, random: np.random.Generator) -> Samples:
        """The clip, a little faster or slower and so higher or lower, from another colour of room or microphone."""
        samples = self._audio.get(clip)
        if samples is None:
            samples = self._audio[clip] = read_audio(str(clip.path))[:LONGEST_KEPT].astype(np.float32)
        if len(samples) > 1.2 * COUNT:
            first = int(random.integers(len(samples) - int(1.15 * COUNT)))
            samples = samples[first : first + int(1.15 * COUNT)]
        factor = random.uniform(*FASTER)
        if random.random() < 0.6:
            places = np.arange(0, len(samples) - 1, factor)
            samples = np.interp(places, np.arange(len(samples)), samples).astype(np.float32)
        return samples


def _levelled(samples: Samples, db: float) -> Samples:
    """With an RMS of `db` over its louder half second stretches."""
    blocks = np.square(samples[: len(samples) // STEP * STEP].reshape(-1, STEP)).mean(1)
    loud = float(np.sqrt(np.quantile(blocks[blocks > 0], 0.8))) if (blocks > 0).any() else 0.0
    return samples if loud < 1e-7 else (samples * (10 ** (db / 20) * 0.1 / loud)).astype(np.float32)


def _sounding(samples: Samples, others: Samples) -> NDArray[np.bool_]:
    """In which steps [25] a layer is heard: not in its own pauses, nor far below the others."""
    own = 10 * np.log10(np.square(samples).reshape(STEPS, STEP).mean(1) + 1e-12)
    other = 10 * np.log10(np.square(others).reshape(STEPS, STEP).mean(1) + 1e-12)
    return np.asarray((own > own.max() + ACTIVE_DB) & (own > other + AUDIBLE_DB) & (own > -100))


def _in_a_room(samples: Samples, random: np.random.Generator) -> Samples:
    """Reverberation (an exponential decay of noise behind the direct sound) and a tilted spectrum, sometimes."""
    if random.random() < 0.45:
        decay_s = random.uniform(0.15, 0.9)
        length = int(decay_s * SAMPLE_RATE)
        tail = random.normal(0, 1, length) * np.exp(-6.9 * np.arange(length) / length)
        tail *= random.uniform(0.1, 1.2) / np.sqrt(np.square(tail).sum())
        tail[0] += 1.0
        samples = signal.oaconvolve(samples, tail.astype(np.float32))[: len(samples)].astype(np.float32)
    if random.random() < 0.5:
        pole = random.uniform(-0.6, 0.75)
        samples = np.asarray(signal.lfilter([1 - abs(pole)], [1, -pole], samples), np.float32)
    return samples


def _recorded(samples: Samples, random: np.random.Generator) -> Samples:
    """As a microphone gives it: hiss, a narrow band now and then, its level, clipping now and then."""
    if random.random() < 0.12:  # a telephone, a cheap microphone
        low, high = random.uniform(60, 350), random.uniform(3000, 7000)
        sections = signal.butter(2, [low, high], "bandpass", fs=SAMPLE_RATE, output="sos")
        samples = np.asarray(signal.sosfilt(sections, samples), np.float32)
    peak = float(np.abs(samples).max())
    if peak > 0:
        samples = samples * (10 ** (random.uniform(*LEVEL_DBFS) / 20) / peak)
    hiss = random.normal(0, 1, COUNT).astype(np.float32)
    if random.random() < 0.5:
        hiss = np.asarray(signal.lfilter([0.3], [1, -0.9], hiss), np.float32)
    samples = samples + hiss * 10 ** (random.uniform(*HISS_DBFS) / 20)
    if random.random() < 0.06:
        samples = samples * random.uniform(2, 6) / max(float(np.abs(samples).max()), 1e-6)
    return np.clip(samples, -1, 1).astype(np.float32)
