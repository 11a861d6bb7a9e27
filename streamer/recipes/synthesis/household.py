"""Sounds that people want to be told about, synthesised: knocking, breaking glass, crying babies, dogs, far sirens.

There are only a few recordings of each; a head that has heard nothing else knows those recordings, not the sound.
Sources of the ranges: vowel-like cries of 0.5 to 1.5 s at 300 to 600 Hz with formants near 1.1 and 3.3 kHz
(Wasz-Höckert et al., The Infant Cry, 1968); barks of 0.1 to 0.3 s at 300 to 1,200 Hz (Feddersen-Petersen, Arch. Tierz.
43, 2000); impact sounds as decaying modes (van den Doel and Pai, Presence 7, 1998).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from streamer.events import SAMPLE_RATE
from streamer.recipes.synthesis import alarms
from streamer.recipes.synthesis.acoustics import filtered
from streamer.recipes.synthesis.alarms import ALARM, ALARM_CLOCK, BEEP, PHONE_BELL, TELEPHONE, WHISTLE, Floats
from streamer.recipes.synthesis.clips import SoundClip, activity
from streamer.recipes.synthesis.sounds import DEVELOPMENT, DISTRACTORS, Generator

WHISTLING, BIRD, CHIRP, MUSIC, REVERSING = 40, 111, 113, 137, 319
OTHERS_S = 7.0  # of each clip of them
OTHERS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "reversing_beeper": (REVERSING, BEEP),
        "microwave_timer": (BEEP,),
        "kitchen_timer": (BEEP,),
        "low_battery_chirp": (BEEP,),
        "alarm_clock": (ALARM_CLOCK, ALARM),
        "telephone": (TELEPHONE, PHONE_BELL),
        "kettle": (WHISTLE,),
        "whistling": (WHISTLING,),
        "birds": (BIRD, CHIRP),
        "music": (MUSIC,),
        "household": (),
    }
)

BABY_CRY, DOG, BARK, KNOCK, GLASS, SHATTER = 23, 74, 75, 359, 441, 443
SECONDS = 5.0
NYQUIST_HZ = 7600.0


def household(each: int, seed: int) -> tuple[SoundClip, ...]:
    """`each` clips of every sound, mono float32, peak 0.5, [80,000] samples each."""
    clips = []
    for number, (name, (labels, maker)) in enumerate(SOUNDS.items()):
        for index in range(each):
            wave = maker(np.random.default_rng([seed, number, index]))
            audio = (0.5 * wave / (np.abs(wave).max() + 1e-9)).astype(np.float32)
            clips.append(SoundClip(audio, labels, activity(audio), name))
    return tuple(clips)


def others(each: int, seed: int) -> tuple[SoundClip, ...]:
    """`each` clips of sounds that are no alarm though they beep, sweep or sing; float32 [112,000] samples each."""
    clips = []
    for number, (name, labels) in enumerate(OTHERS.items()):
        for index in range(each):
            random = np.random.default_rng([seed, number, index])
            sound = DISTRACTORS[name](random, 4 * OTHERS_S, DEVELOPMENT).samples
            start = int(random.uniform(0, 3 * OTHERS_S) * SAMPLE_RATE)
            audio = (sound[start : start + int(OTHERS_S * SAMPLE_RATE)] * 0.1).astype(np.float32)
            clips.append(SoundClip(audio, labels, activity(audio), name))
    return tuple(clips)


def _knock(random: Generator) -> Floats:
    """Groups of 2 to 6 strokes on a door: modes of wood, a click of the knuckle, no two strokes the same."""
    wave = _silence()
    modes = np.exp(random.uniform(np.log(70), np.log(1800), int(random.integers(4, 10))))
    decays = random.uniform(0.006, 0.06, len(modes)) * (300 / (modes + 200)) ** 0.3
    strengths = random.uniform(0.2, 1, len(modes)) * (300 / (modes + 150)) ** random.uniform(0, 1)
    place, gap = random.uniform(0, 0.8), random.uniform(0.11, 0.4)
    while place < SECONDS:
        for _ in range(int(random.integers(2, 7))):
            level = 10 ** (random.normal(0, 2) / 20)
            jitter = random.uniform(0.97, 1.03, len(modes))
            stroke = _ringing(modes * jitter, decays, strengths * random.uniform(0.6, 1.4, len(modes)), 0.3)
            click = random.standard_normal(int(0.004 * SAMPLE_RATE)) * random.uniform(0, 0.6)
            stroke[: len(click)] += click * np.linspace(1, 0, len(click))
            _add(wave, stroke * level, place)
            place += gap * random.uniform(0.88, 1.12)
        place += random.uniform(0.6, 3.0)
    return wave


def _glass(random: Generator) -> Floats:
    """A blow, a burst of noise, then shards that ring: short high partials, fewer and fewer."""
    wave = _silence()
    place = random.uniform(0, 1.5)
    blow = random.standard_normal(int(random.uniform(0.01, 0.08) * SAMPLE_RATE))
    _add(wave, blow * np.exp(-np.linspace(0, 5, len(blow))) * random.uniform(0.5, 3), place)
    if random.random() < 0.5:
        _add(
            wave, _ringing(random.uniform(80, 500, 3), np.full(3, 0.03), np.ones(3), 0.2) * random.uniform(0, 1), place
        )
    spread, longest = random.uniform(0.08, 0.5), random.uniform(0.03, 0.25)
    for _ in range(int(random.integers(25, 140))):
        age = random.exponential(spread)
        pitch = random.uniform(1500, NYQUIST_HZ, int(random.integers(1, 5)))
        shard = _ringing(pitch, random.uniform(0.008, longest, len(pitch)), random.uniform(0.1, 1, len(pitch)), 0.5)
        _add(wave, shard * random.uniform(0.1, 1) * np.exp(-age / 0.6), place + age)
    return wave


def _baby(random: Generator) -> Floats:
    """Cries of 0.4 to 1.6 s with a breath between: a voice that rises and falls, now and then rough or broken."""
    wave = _silence()
    base, formants = random.uniform(300, 520), random_formants(random, ((1100, 0.15), (3300, 0.15), (5200, 0.15)))
    tilt, rough = random.uniform(0.5, 1.4), random.uniform(0, 0.5)
    place = random.uniform(-0.6, 0.6)
    while place < SECONDS:
        length = random.uniform(0.4, 1.6)
        time = np.linspace(0, 1, int(length * SAMPLE_RATE))
        course = random.uniform(0.75, 0.95) + random.uniform(0.1, 0.4) * np.sin(
            np.pi * time ** random.uniform(0.5, 1.5)
        )
        pitch = base * random.uniform(0.9, 1.15) * course * _wobble(random, len(time), 0.015)
        voice = voiced(pitch, formants, tilt)
        if random.random() < rough:
            part = slice(int(random.uniform(0.2, 0.6) * len(time)), None)
            voice[part] *= 1 + 0.8 * np.sin(np.pi * np.cumsum(pitch[part]) / SAMPLE_RATE)  # half the pitch: hoarse
            voice[part] += 0.15 * random.standard_normal(len(voice[part]))
        _add(wave, voice * np.minimum(1, np.minimum(time / 0.08, (1 - time) / 0.15)), place)
        breath = random.uniform(0.15, 0.7)
        inhaled = 0.03 * random.uniform(0, 2) * random.standard_normal(int(breath * SAMPLE_RATE))
        _add(wave, inhaled * np.hanning(len(inhaled)), place + length)
        place += length + breath
        if random.random() < 0.1:
            place += random.uniform(0.5, 2)
    return wave


def _dog(random: Generator) -> Floats:
    """Barks in groups: a short voice that rises and drops fast, half of it noise."""
    wave = _silence()
    base = np.exp(random.uniform(np.log(280), np.log(1100)))
    formants = random_formants(random, ((base * 1.8 + 300, 0.2), (base * 2 + 1500, 0.2)))
    length, harsh, gap = random.uniform(0.08, 0.28), random.uniform(0.1, 0.9), random.uniform(0.18, 0.7)
    place = random.uniform(0, 1.0)
    while place < SECONDS:
        for _ in range(int(random.integers(1, 5))):
            count = int(length * random.uniform(0.8, 1.25) * SAMPLE_RATE)
            time = np.linspace(0, 1, count)
            peak = random.uniform(0.15, 0.5)
            course = np.where(time < peak, 0.7 + 0.3 * time / peak, 1 - 0.5 * (time - peak) / (1 - peak))
            bark = voiced(base * random.uniform(0.9, 1.1) * course, formants, 0.7)
            bark /= np.abs(bark).max() + 1e-9
            bark += harsh * 0.5 * random.standard_normal(count) * np.abs(bark).mean() * 3
            _add(wave, bark * np.minimum(1, np.minimum(time / 0.06, (1 - time) / 0.4)), place)
            place += length + gap * random.uniform(0.7, 1.4)
        place += random.uniform(0.3, 2.5)
    return wave


def _far_siren(random: Generator) -> Floats:
    """A siren some streets away: it passes (Doppler, louder and softer), houses echo, the high partials are gone."""
    kind = str(random.choice(np.array(["wail", "wail", "yelp", "hilo"])))
    dry = alarms.KINDS[kind].make(SECONDS + 0.5, random)
    time = np.linspace(-1, 1, int(SECONDS * SAMPLE_RATE))
    shift = 1 + random.uniform(-0.06, 0.06) * np.tanh(time * random.uniform(0.5, 4))
    place = np.cumsum(shift)
    moved = np.interp(np.minimum(place, len(dry) - 1), np.arange(len(dry)), dry)
    return far(moved * np.linspace(random.uniform(0.2, 1), random.uniform(0.2, 1), len(moved)), random)


def _far_clock(random: Generator) -> Floats:
    """An alarm clock in the next room."""
    kind = str(random.choice(np.array(["alarm_clock", "slow_clock", "clock_bell"])))
    return far(alarms.KINDS[kind].make(SECONDS, random), random)


def far(wave: Floats, random: Generator) -> Floats:
    """What is left of a sound some walls or streets away: echoes of 0.3 to 2 s, and less treble."""
    count = int(random.uniform(0.3, 2.0) * SAMPLE_RATE)
    tail = random.standard_normal(count) * np.exp(-6.9 * np.arange(count) / count)
    tail *= 10 ** (random.uniform(-6, 8) / 20) / np.sqrt(np.square(tail).sum())
    tail[0] += 1
    size = 1 << (len(wave) + count).bit_length()
    spectrum = np.fft.rfft(wave, size) * np.fft.rfft(tail, size)
    pitch = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    spectrum /= (1 + (pitch / random.uniform(1200, 6000)) ** 2) ** random.uniform(0.3, 1)
    return np.asarray(filtered(np.fft.irfft(spectrum, size)[: len(wave)].astype(np.float32), random, narrow=0.1), float)


def _silence() -> Floats:
    return np.zeros(int(SECONDS * SAMPLE_RATE))


def _add(wave: Floats, sound: Floats, place_s: float) -> None:
    """Add what of `sound` lies within the clip when it begins at `place_s`."""
    start = int(place_s * SAMPLE_RATE)
    sound = sound[max(0, -start) :]
    start = max(0, start)
    part = wave[start : start + len(sound)]
    part += sound[: len(part)]


def _ringing(pitch_hz: Floats, decay_s: Floats, strength: Floats, seconds: float) -> Floats:
    """Modes [n] that were struck at once; each falls by a factor e in its `decay_s`."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    modes = np.exp(-time / decay_s[:, None]) * np.sin(2 * np.pi * pitch_hz[:, None] * time)
    return np.asarray(strength @ modes)


def random_formants(random: Generator, places: tuple[tuple[float, float], ...]) -> Floats:
    """Centres in Hz [n], each moved by its relative spread."""
    return np.array([centre * np.exp(random.normal(0, spread)) for centre, spread in places])


def voiced(pitch_hz: Floats, formants_hz: Floats, tilt: float) -> Floats:
    """Harmonics of a pitch [n], weighted by `tilt` (1: each half as strong an octave up) and formants."""
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE
    mean, wave = float(pitch_hz.mean()), np.zeros_like(phase)
    for number in range(1, int(NYQUIST_HZ / mean) + 1):
        pitch = number * mean
        resonance = 0.15 + np.exp(-(((pitch - formants_hz) / (0.18 * formants_hz + 120)) ** 2)).sum()
        wave += resonance / number**tilt * np.sin(number * phase) * (pitch_hz * number < NYQUIST_HZ)
    return wave


def _wobble(random: Generator, count: int, depth: float) -> Floats:
    """A factor around 1 that strays slowly, 20 points a second."""
    points = 1 + depth * random.standard_normal(count // (SAMPLE_RATE // 20) + 2)
    return np.asarray(np.interp(np.arange(count) / (SAMPLE_RATE // 20), np.arange(len(points)), points))


SOUNDS: Mapping[str, tuple[tuple[int, ...], Callable[[Generator], Floats]]] = MappingProxyType(
    {
        "made_knock": ((KNOCK,), _knock),
        "made_glass": ((GLASS, SHATTER), _glass),
        "made_baby": ((BABY_CRY,), _baby),
        "made_dog": ((DOG, BARK), _dog),
        "far_siren": ((alarms.SIREN, alarms.ALARM), _far_siren),
        "far_clock": ((alarms.ALARM_CLOCK, alarms.ALARM), _far_clock),
    }
)
