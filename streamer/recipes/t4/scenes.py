"""Scenes of 32 s to learn T4 by: what sounds in a room, with a CO alarm, with beeps that are like one, or with neither.

The backgrounds are those that sirens are learnt by.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.events import SAMPLE_RATE
from streamer.recipes.synthesis.alarms import tone
from streamer.recipes.synthesis.scenes import MUSICAL, OTHERS, SECONDS, SHARES, Sounds, background, heard_there
from streamer.recipes.synthesis.sounds import Generator, Samples, Spans, room, smooth
from streamer.sound.patterns.beeps import KEPT_FRAMES
from streamer.sound.patterns.spectrum import ALARM_BINS, FLOOR_DB, Spectrogram, alarm_levels, known_until
from streamer.sound.patterns.t4 import EVERY, INPUTS, Pair, PairFinder

SEED = 78
RT60_S = 0.9
SNR_DB = (-14.0, 24.0)
T4_CHANCE, LIKE_CHANCE = 0.45, 0.3  # of a CO alarm, of beeps that are like one
NO_T4 = tuple(name for name in OTHERS if name != "k:co_t4")
ON_S, PAUSE_S = (0.088, 0.114), (4.55, 5.5)
LOW_CHANCE, LOW_HZ, HIGH_HZ = 0.35, (475.0, 562.0), (2640.0, 3760.0)
SAME_S, NEAR_S = 0.06, 0.25  # a group found so near a true one is that one; one a little further off is not judged
PAIR_S = 0.08


@dataclass(frozen=True, slots=True)
class Beeping:
    """Beeps with an RMS of 1 while they sound, and in seconds where each group of a T4 begins in them."""

    samples: Samples
    groups: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Examples:
    """What one scene teaches. `inputs` [n, m]: what the network sees of each pair found; `starts_s` [n]: where.

    `classes` [n, 2]: 1, 0 or -1 (not judged): its group is a CO alarm's, and so is the one before. `followed`: so many
    groups of the alarm follow another, at `snr_db`.
    """

    inputs: NDArray[np.float16]
    starts_s: NDArray[np.float32]
    classes: NDArray[np.int8]
    followed: int
    snr_db: float


def examples(sounds: Sounds, number: int) -> Examples:
    """What scene `number` teaches: the same whenever it is composed."""
    random = np.random.default_rng([SEED, number])
    samples, _ = background(sounds, random, SHARES if random.random() < 0.5 else MUSICAL, NO_T4)
    made, at, snr_db = _beeping(random), float(random.uniform(0.5, 9)), float(random.uniform(*SNR_DB))
    if made is not None:
        wet = room(random, made.samples, random.uniform(0, RT60_S))[: samples.size - int(at * SAMPLE_RATE)]
        start = int(at * SAMPLE_RATE)
        samples[start : start + wet.size] += wet * np.float32(10 ** (snr_db / 20))
    truth = np.array([at + group for group in made.groups] if made else [])
    truth = truth[truth < SECONDS - 1.5]
    pairs = found_pairs(heard_there(samples, random))
    classes = np.array([_classes(pair, truth) for pair in pairs], np.int8).reshape(-1, 2)
    inputs = np.array([pair.inputs for pair in pairs], np.float16).reshape(-1, INPUTS)
    starts_s = np.array([pair.group.start / SAMPLE_RATE for pair in pairs], np.float32)
    return Examples(inputs, starts_s, classes, max(0, truth.size - 1), snr_db)


def found_pairs(samples: Samples) -> list[Pair]:
    """The pairs that the detector looks at in these samples, float32 at 16 kHz."""
    levels, _ = Spectrogram().push(samples, samples.size)
    own, tones = alarm_levels(levels)
    own = np.concatenate([np.full((KEPT_FRAMES, ALARM_BINS.size), FLOOR_DB, np.float32), own])
    tones = np.concatenate([np.zeros((KEPT_FRAMES, ALARM_BINS.size), np.float32), tones])
    finder, found = PairFinder(), []
    for frame in range(0, len(levels), EVERY):
        kept = slice(frame + 1, frame + 1 + KEPT_FRAMES)
        found += finder.look(own[kept], tones[kept], known_until(frame))
    return found


def _classes(pair: Pair, truth: NDArray[np.float64]) -> tuple[int, int]:
    off = np.abs(truth - pair.group.start / SAMPLE_RATE).min(initial=np.inf)
    if SAME_S < off <= NEAR_S:
        return -1, -1
    is_group = off <= SAME_S
    before = np.abs(truth - pair.before / SAMPLE_RATE).min(initial=np.inf)
    return int(is_group), int(is_group and before <= PAIR_S)


def _beeping(random: Generator) -> Beeping | None:
    kind = random.random()
    if kind < T4_CHANCE:
        return _t4(random, float(random.uniform(8, 26)))
    return _like_t4(random, 26.0) if kind < T4_CHANCE + LIKE_CHANCE else None


def _t4(random: Generator, seconds: float) -> Beeping:
    """A CO alarm from its first group on."""
    on, off = random.uniform(*ON_S), random.uniform(*ON_S)
    pause, low = random.uniform(*PAUSE_S), random.random() < LOW_CHANCE
    starts = np.arange(0, seconds - 1, 4 * on + 3 * off + pause)
    spans = _spans(starts, 4, on, off)
    return Beeping(_toned(random, seconds, spans, random.uniform(*(LOW_HZ if low else HIGH_HZ)), low), tuple(starts))


def _like_t4(random: Generator, seconds: float) -> Beeping:
    """Groups of beeps that differ from a T4 in how many, how long or how often."""
    while True:
        count, on = int(random.choice([2, 3, 4, 4, 4, 5, 6])), float(random.uniform(0.05, 0.25))
        off = on * float(random.uniform(0.6, 1.6))
        pause = float(np.exp(random.uniform(np.log(0.3), np.log(9))))
        ratio = max(on / 0.1, 0.1 / on, off / 0.1, 0.1 / off)
        if count != 4 or ratio > 1.35 or not 4.0 <= pause <= 6.0:
            break
    low = random.random() < LOW_CHANCE
    pitch = random.uniform(*(LOW_HZ if low else HIGH_HZ)) if random.random() < 0.8 else random.uniform(400, 4200)
    starts = np.arange(0, seconds - 1, count * on + (count - 1) * off + pause)
    spans = _spans(starts, count, on, off)
    return Beeping(_toned(random, seconds, spans, pitch, low and random.random() < 0.5))


def _spans(starts: NDArray[np.float64], count: int, on: float, off: float) -> Spans:
    """Each beep of groups of `count`, in seconds."""
    return [(start + beep * (on + off), start + beep * (on + off) + on) for start in starts for beep in range(count)]


def _toned(random: Generator, seconds: float, spans: Spans, pitch: float, square: bool) -> Samples:
    clock = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    phase = pitch * clock
    wave = sum(np.sin(2 * np.pi * k * phase) / k for k in range(1, 14, 2)) if square else tone(phase, random)
    gate = np.zeros(clock.size)
    for start, end in spans:
        gate[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)] = 1
    samples = wave * smooth(gate, random.uniform(0.001, 0.012))[: clock.size]
    return np.asarray(samples / np.sqrt(np.mean(samples[gate > 0] ** 2)), np.float32)
