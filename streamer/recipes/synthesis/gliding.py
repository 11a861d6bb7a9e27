"""Sounds that glide, alternate or beat and are no siren, beside those of `streamer.recipes.synthesis.sounds`.

Each maker takes a random generator and a length in seconds and gives mono float32 at 16 kHz with an RMS of 1.
"""

import numpy as np
from numpy.typing import NDArray

from streamer.events import SAMPLE_RATE
from streamer.recipes.synthesis import sounds
from streamer.recipes.synthesis.acoustics import rms
from streamer.recipes.synthesis.alarms import tone
from streamer.recipes.synthesis.household import random_formants, voiced
from streamer.recipes.synthesis.sounds import Generator, Samples, Spread

SPREAD = Spread(tone=0.06, timing=0.06, rt60_s=0.7)
MAJOR = np.array([0, 2, 4, 5, 7, 9, 11, 12, 14, 16, 17, 19, 21, 24])  # semitones

Floats = NDArray[np.float64]


def levelled(samples: NDArray[np.floating]) -> Samples:
    """The samples with an RMS of 1."""
    return (samples / rms(np.asarray(samples, np.float32))).astype(np.float32)


def lead(random: Generator, seconds: float) -> Samples:
    """A voice that glides between notes of a scale: any timbre, portamento, vibrato or not, rests."""
    count = int(seconds * SAMPLE_RATE)
    pitch, level, at = np.zeros(count), np.zeros(count), 0
    root = random.uniform(180, 900)
    scale = MAJOR if random.random() < 0.6 else np.sort(random.uniform(0, 24, 10))
    rhythm, loose, rest = random.uniform(0.15, 1.2), random.uniform(0, 0.6), random.uniform(0, 0.3)
    leap, note = random.integers(1, 6), int(random.integers(len(scale)))
    while at < count:
        length = int(SAMPLE_RATE * rhythm * np.exp(random.normal(0, loose)) * random.choice([0.5, 1, 1, 2])) + 800
        note = int(np.clip(note + random.integers(-leap, leap + 1), 0, len(scale) - 1))
        pitch[at : at + length] = root * 2 ** (scale[note] / 12)
        level[at : at + length] = random.random() > rest
        at += length
    glide = np.exp(random.uniform(np.log(0.01), np.log(0.9))) * rhythm
    for again in (False, True):
        if not again or random.random() < 0.4:
            pitch = np.exp(sounds.smooth(np.log(pitch), glide))[:count]
    if random.random() < 0.5:
        pitch = pitch * (1 + random.uniform(0.003, 0.03) * _vibrato(random, count))
    level = sounds.smooth(level, 0.03)[:count]
    played = tone(np.cumsum(pitch / SAMPLE_RATE), random) * level
    return levelled(played * (1 + 0.2 * sounds.slow_noise(random, count, 3)[:count]))


def chirps(random: Generator, seconds: float) -> Samples:
    """Single sweeps now and then: toys, games, signals of programs, creaking doors."""
    count = int(seconds * SAMPLE_RATE)
    samples, at, same = np.zeros(count), random.uniform(0, 2), random.random() < 0.5
    ends: tuple[float, float] | None = None
    while at < seconds:
        if ends is None or not same:
            length = np.exp(random.uniform(np.log(0.08), np.log(3)))
            ends, bend = (random.uniform(250, 3000), random.uniform(250, 3000)), np.exp(random.normal(0, 0.7))
        size = int(length * SAMPLE_RATE)
        course = ends[0] * (ends[1] / ends[0]) ** (np.linspace(0, 1, size) ** bend)
        sweep = tone(np.cumsum(course / SAMPLE_RATE), random)
        sweep *= np.clip(np.minimum(np.arange(size), np.arange(size)[::-1]) / 400, 0, 1)
        start = int(at * SAMPLE_RATE)
        samples[start : start + size] += sweep[: max(0, count - start)] * random.uniform(0.3, 1)
        again = random.random() < 0.25
        at += length * random.uniform(0.6, 1.1) if again else length + random.exponential(2.5)
    return levelled(samples)


def singing(random: Generator, seconds: float) -> Samples:
    """Somebody sings or calls: harmonics under formants, on a pitch that glides."""
    count = int(seconds * SAMPLE_RATE)
    points = random.normal(0, random.uniform(1, 6), int(seconds * random.uniform(0.5, 4)) + 3)
    course = np.interp(np.arange(count) / count * (len(points) - 1), np.arange(len(points)), points)
    pitch = random.uniform(110, 500) * 2 ** (sounds.smooth(course, random.uniform(0.02, 0.4))[:count] / 12)
    pitch = pitch * (1 + random.uniform(0, 0.03) * _vibrato(random, count))
    places = random_formants(random, ((600, 0.4), (1500, 0.35), (2700, 0.2)))
    wave = voiced(pitch, places, random.uniform(0.5, 1.5))
    open_mouth = sounds.slow_noise(random, count, random.uniform(0.5, 4))[:count] > random.uniform(-1.5, 0.5)
    return levelled(wave * sounds.smooth(open_mouth.astype(float), 0.05)[:count])


def engine(random: Generator, seconds: float) -> Samples:
    """A motor that runs faster and slower."""
    count = int(seconds * SAMPLE_RATE)
    course = sounds.smooth(sounds.slow_noise(random, count, random.uniform(0.1, 1)), 0.3)[:count]
    pitch = random.uniform(40, 300) * 2 ** (course * random.uniform(0.1, 0.8))
    wave = np.sign(np.sin(2 * np.pi * np.cumsum(pitch / SAMPLE_RATE)))
    return levelled(wave + random.uniform(0.1, 1) * random.standard_normal(count))


def riff(random: Generator, seconds: float) -> Samples:
    """Two to six notes in turn, again and again: what a hi-lo is not, by its steps, its tempo or its envelope."""
    count = int(seconds * SAMPLE_RATE)
    notes, hold = int(random.choice([2, 2, 3, 4, 6])), float(np.exp(random.uniform(np.log(0.1), np.log(1.3))))
    steps = random.integers(-12, 13, notes)
    struck = notes == 2 and 3 <= abs(int(steps[1] - steps[0])) <= 7 and 0.3 < hold < 0.9  # else it were a hi-lo
    turn = np.arange(count) / SAMPLE_RATE / hold
    pitch = np.exp(sounds.smooth(np.log(random.uniform(220, 1200) * 2 ** (steps[turn.astype(int) % notes] / 12)), 0.01))
    level = np.exp(-(turn % 1) * random.uniform(3, 12)) if struck or random.random() < 0.5 else np.ones(count)
    if random.random() < 0.5:
        level = level * ((turn % 1) < random.uniform(0.4, 0.9))
    return levelled(tone(np.cumsum(pitch[:count] / SAMPLE_RATE), random) * sounds.smooth(level, 0.008)[:count])


def drums(random: Generator, seconds: float) -> Samples:
    """A pattern of two to eight strokes, again and again."""
    count = int(seconds * SAMPLE_RATE)
    samples, beat = np.zeros(count), random.uniform(0.2, 0.8)
    strength = random.random(int(random.choice([2, 4, 8])))
    strokes = [(random.uniform(0.02, 0.2), random.uniform(50, 400), random.random()) for _ in strength]
    age = np.arange(int(0.4 * SAMPLE_RATE)) / SAMPLE_RATE
    for number, start in enumerate(np.arange(0, seconds - 0.5, beat / 2)):
        decay, pitch, noisy = strokes[number % len(strokes)]
        body = noisy * random.standard_normal(age.size) + (1 - noisy) * np.sin(2 * np.pi * pitch * age)
        place = int(start * SAMPLE_RATE)
        samples[place : place + age.size] += body * np.exp(-age / decay) * strength[number % len(strokes)]
    return levelled(samples)


def music(random: Generator, seconds: float) -> Samples:
    """The music of `sounds`, leads, drums: some of them."""
    samples = np.zeros(int(seconds * SAMPLE_RATE), np.float32)
    whole = random.random() < 0.45
    if whole:
        samples = sounds.music(random, seconds, SPREAD).samples
    if not whole or random.random() < 0.3:
        samples = samples + lead(random, seconds) * random.uniform(0.3, 1.5)
    if random.random() < 0.6:
        samples = samples + lead(random, seconds) * random.uniform(0.1, 0.8)
    if random.random() < 0.5:
        samples = samples + drums(random, seconds) * random.uniform(0.1, 1.5)
    return levelled(samples)


def _vibrato(random: Generator, count: int) -> Floats:
    wave: Floats = np.sin(2 * np.pi * random.uniform(4, 7) * np.arange(count) / SAMPLE_RATE)
    return wave
