"""Scenes of 32 s to learn sirens by: what sounds in a room, more than half of the time with sirens in it.

The sirens are those of `streamer.recipes.synthesis.alarms` and the recorded ones of the train split.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.events import SAMPLE_RATE
from streamer.recipes.synthesis import alarms
from streamer.recipes.synthesis.gliding import levelled
from streamer.recipes.synthesis.household import far
from streamer.recipes.synthesis.scenes import MUSICAL, SECONDS, SHARES, Sounds, background, heard_there, moved
from streamer.recipes.synthesis.sounds import Generator, Samples, room
from streamer.sound.patterns.sirens import CLASSES, STEP_FRAMES, band_levels
from streamer.sound.patterns.spectrum import FRAME_HOP, Decibels, Spectrogram

RT60_S = 0.7
RECORDED = len(CLASSES)  # the class of a recorded siren: one of them, nobody wrote down which
SIREN_KINDS = CLASSES[1:]
MUSICAL_FROM = 6400  # the number of the first scene that is MUSICAL


@dataclass(frozen=True, slots=True)
class Scene:
    """Levels of bands [steps, BANDS] in dB, the class [steps] that sounds (RECORDED too), and what it is, in words."""

    levels: NDArray[np.float16]
    classes: NDArray[np.int8]
    about: str


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
        samples, found = moved(clip, random, 0.12)[: int(length * SAMPLE_RATE)], RECORDED
    else:
        samples = levelled(alarms.KINDS[SIREN_KINDS[found - 1]].make(length, random))
    samples = levelled(samples)
    if random.random() < 0.35 and random.random() < 0.5:
        samples = levelled(far(samples.astype(float), random))
    if random.random() < 0.4:
        course = np.exp(random.uniform(-1.6, 0, 3))
        samples = samples * np.interp(np.linspace(0, 1, samples.size), [0, 0.5, 1], course).astype(np.float32)
    return samples, found
