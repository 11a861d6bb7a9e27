"""Clips of a sound of one's own, cut to where it sounds and made to happen again: in other rooms, louder, under talk.

Pure: samples in, samples out, every draw from the generator that is passed in. All audio is float32 [n] at 16 kHz.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

from streamer.audio.files import read_audio
from streamer.audio.fine_spectrum import STEP_SAMPLES
from streamer.errors import InputError
from streamer.events import SAMPLE_RATE

Audio = NDArray[np.float32]

FRAME = 320  # samples, 20 ms: by these we look where it sounds
LONGEST_S = 6.0  # of one clip: what is longer is cut to where it is loudest
WINDOW_S = 10.0  # what the model hears at once
SILENCE_DBFS = -70.0  # a clip whose loudest 20 ms are below is silence
SOUNDING_DB = 22.0  # so far below its loudest 20 ms a clip still sounds
ABOVE_FLOOR_DB = 5.0  # and so far above its own noise
SNR_DB = (4.0, 35.0)  # of the sound over what it is mixed with
LEVEL_DBFS = (-45.0, -12.0)  # of its loudest 20 ms
DRIFT = 0.004  # of the pitch, up and down: the same bell on another day
TALK = 0.5  # the share of windows in which somebody talks over it
MUSIC = 0.15  # and in which music plays


@dataclass(frozen=True, slots=True)
class Moment:
    """One occurrence: its samples, and for each 20 ms frame whether it sounds."""

    samples: Audio
    active: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scene:
    """A window in which the sound happens, and for each of its tap steps, counted from its END, whether it sounds then.

    `background`: steps in which it does not, nor shortly before or behind.
    """

    samples: Audio
    sounds: NDArray[np.bool_]
    background: NDArray[np.bool_]


def moment_of(samples: Audio, name: str) -> Moment:
    """Where in a clip it sounds. InputError, naming the clip, where it is silent."""
    count = len(samples) // FRAME
    if count == 0:
        raise InputError(f"{name}: is too short; a clip should hold the whole sound, 0.3 to 6 s")
    levels = _levels_db(samples)
    peak, floor = float(levels.max()), float(np.quantile(levels, 0.1))
    if peak < SILENCE_DBFS:
        raise InputError(f"{name}: is silent ({peak:.0f} dBFS at most); record it so that the sound can be heard in it")
    least = max(peak - SOUNDING_DB, min(floor + ABOVE_FLOOR_DB, peak - 6))
    active = levels >= least
    longest = round(LONGEST_S * SAMPLE_RATE) // FRAME
    first = int(np.argmax(active))
    last = count - int(np.argmax(active[::-1]))
    if last - first > longest:
        energy = np.convolve(10 ** (levels[first:last] / 10), np.ones(longest), "valid")
        first += int(np.argmax(energy))
        last = first + longest
    return Moment(samples[first * FRAME : last * FRAME].astype(np.float32), active[first:last])


def scenes(moment: Moment, count: int, random: np.random.Generator, drift: float = DRIFT) -> Iterator[Scene]:
    """So many windows in which it happens, each in another way; the last of several repetitions near the end.

    `drift`: by what share it is at most faster or slower.
    """
    size = round(WINDOW_S * SAMPLE_RATE)
    for _ in range(count):
        samples = _background(size, random)
        active = np.zeros(size // FRAME, bool)
        length = len(moment.samples)
        end = size + int(random.integers(-round(0.8 * SAMPLE_RATE), max(1, length - round(0.3 * SAMPLE_RATE))))
        gap = length + int(random.integers(round(1.6 * SAMPLE_RATE), 3 * SAMPLE_RATE))
        level = _loudest(samples) * 10 ** (random.uniform(*SNR_DB) / 20)
        while end > round(0.5 * SAMPLE_RATE):
            heard = _elsewhere(moment.samples, random, drift)
            start = end - length
            low, high = max(0, start), min(size, start + len(heard))
            samples[low:high] += level / _loudest(heard) * heard[low - start : high - start]
            frames = (np.flatnonzero(moment.active) * FRAME + start) // FRAME
            active[frames[(frames >= 0) & (frames < len(active))]] = True
            end -= gap
        samples *= 10 ** (random.uniform(*LEVEL_DBFS) / 20) / _loudest(samples)
        yield Scene(samples, *_by_steps(active, int(moment.active.sum())))


def _by_steps(active: NDArray[np.bool_], whole: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which steps sound, and which are well away from those.

    Half of the frames of a step do, or half of the sound lies in it; where no step has so much, as with quick barks, a
    third of the frames.
    """
    per_step = STEP_SAMPLES // FRAME
    steps = len(active) // per_step
    share = active[len(active) - steps * per_step :].reshape(steps, per_step).sum(1)
    enough = min(per_step / 2, max(2, whole / 2))
    sounds = share >= (enough if share.max() >= enough else per_step / 3)
    near = np.convolve(share > 0, np.ones(5), "same") > 0
    return sounds, ~near


def _elsewhere(samples: Audio, random: np.random.Generator, drift: float = DRIFT) -> Audio:
    """The sound from another place: a room's echo, another microphone, a little faster or slower."""
    rate = random.uniform(1 - drift, 1 + drift)
    places = np.arange(0, len(samples) - 1, rate)
    moved = np.interp(places, np.arange(len(samples)), samples)
    reverb_s = random.uniform(0.1, 0.6)
    size = round(reverb_s * SAMPLE_RATE)
    echo = random.normal(0, 1, size) * np.exp(-6.9 * np.arange(size) / size)
    echo *= 10 ** (random.uniform(-20, 0) / 20) / np.sqrt(np.square(echo).sum())
    echo[0] += 1
    total = len(moved) + size
    frequencies = np.fft.rfftfreq(total, 1 / SAMPLE_RATE)
    low, high = 10 ** random.uniform(1.5, 2.6), 10 ** random.uniform(3.55, 3.95)  # 32..400 Hz, 3.5..8.9 kHz
    octaves = np.log2(np.maximum(frequencies, 20) / 1000)
    gain = 10 ** (random.uniform(-3, 3) * octaves / 20)
    gain = gain / np.sqrt((1 + (low / np.maximum(frequencies, 1)) ** 4) * (1 + (frequencies / high) ** 8))
    spectrum = np.fft.rfft(moved, total) * np.fft.rfft(echo, total) * gain
    found: Audio = np.fft.irfft(spectrum, total)[: len(samples) + size // 2].astype(np.float32)
    return found


def _background(size: int, random: np.random.Generator) -> Audio:
    """Noise of some colour, and now and then talk or music over it; its level means nothing."""
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    slope = np.maximum(frequencies, 40) ** random.uniform(-1.2, 0.0)
    noise = np.fft.irfft(np.fft.rfft(random.normal(0, 1, size)) * slope, size)
    samples: Audio = (noise / np.sqrt(np.mean(noise**2))).astype(np.float32)
    choice = random.random()
    if choice < TALK:
        talk = _talk()
        start = int(random.integers(0, len(talk) - size))
        samples += _over(_elsewhere(talk[start : start + size], random)[:size], samples, random)
    elif choice < TALK + MUSIC:
        samples += _over(_music(size, random), samples, random)
    return samples


def _over(other: Audio, noise: Audio, random: np.random.Generator) -> Audio:
    other = np.pad(other, (0, max(0, len(noise) - len(other))))
    louder: Audio = (10 ** (random.uniform(0, 25) / 20) * _loudest(noise) / _loudest(other) * other).astype(np.float32)
    return louder


def _music(size: int, random: np.random.Generator) -> Audio:
    """Chords of plucked harmonics over a beat: what matters is that there are notes that are not the sound."""
    out = np.zeros(size, np.float32)
    beat = round(random.uniform(0.2, 0.5) * SAMPLE_RATE)
    root = random.uniform(80, 250)
    for start in range(0, size, beat):
        time = np.arange(min(4 * beat, size - start)) / SAMPLE_RATE
        for semitones in random.choice([0, 3, 4, 7, 10, 12, 15, 19, 24], random.integers(1, 4), replace=False):
            pitch = root * 2 ** (semitones / 12)
            for harmonic in range(1, 6):
                wave = np.sin(2 * np.pi * pitch * harmonic * time) / harmonic ** random.uniform(0.7, 1.5)
                out[start : start + len(time)] += (wave * np.exp(-time * random.uniform(2, 6))).astype(np.float32)
    return out


@cache
def _talk() -> Audio:
    """The readers of the bundled demo, one behind the other."""
    with as_file(files("streamer") / "data" / "demo_voices.ogg") as path:
        return read_audio(str(path))


def _levels_db(samples: Audio) -> NDArray[np.float64]:
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME).astype(np.float64)
    levels: NDArray[np.float64] = 10 * np.log10(np.mean(np.square(frames), axis=1) + 1e-12)
    return levels


def _loudest(samples: Audio) -> float:
    """The level (amplitude) of the loudest 20 ms."""
    return float(10 ** (_levels_db(samples).max() / 20))
