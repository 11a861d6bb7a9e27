"""Synthetic sounds for recipes and tests: alarms by the standards, and what must not be taken for them.

Every maker takes a random generator, a length in seconds and a `Spread`, draws its parameters, and returns mono float32
at 16 kHz with an RMS of 1 while it sounds. Same seed, same samples. Sources: ISO 8201 (T3), UL 2034 (T4), and for
sirens the common ranges: wail 10 to 30 sweeps a minute, yelp 150 to 250, 650 to 2000 Hz, hi-lo 435/580 Hz.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from streamer.events import SAMPLE_RATE

Samples = NDArray[np.float32]
Signal = NDArray[np.float64]
Generator = np.random.Generator
Spans = list[tuple[float, float]]  # start and end in seconds


@dataclass(frozen=True, slots=True)
class Spread:
    """How far parameters stray: relative error of tones and of times, longest reverberation time."""

    tone: float
    timing: float
    rt60_s: float


DEVELOPMENT = Spread(tone=0.04, timing=0.04, rt60_s=0.4)  # what the detectors were built on


@dataclass(frozen=True, slots=True)
class Sound:
    """A rendered sound. `end_s`: end of its last tone; `period_s`: of its pattern (0: none)."""

    samples: Samples
    end_s: float
    period_s: float = 0.0


Maker = Callable[[Generator, float, Spread], Sound]


def t3(rng: Generator, seconds: float, spread: Spread) -> Sound:
    """Smoke alarm: 0.5 s on, 0.5 s off, three times, then 1.5 s (some: 2 s) pause, 3.1 kHz or 520 Hz square."""
    stretch = _near(rng, 1.0, spread.timing)
    pause = rng.choice([1.5, 1.5, 2.0])
    spans = _groups(seconds, count=3, on_s=0.5 * stretch, off_s=0.5 * stretch, pause_s=pause * stretch)
    return _beeps(rng, seconds, spans, _alarm_tone(rng, seconds, spread), (2.5 + pause) * stretch)


def t4(rng: Generator, seconds: float, spread: Spread) -> Sound:
    """Carbon monoxide alarm: four beeps of 0.1 s, 0.1 s apart, then a pause of 5 s."""
    stretch = _near(rng, 1.0, spread.timing)
    spans = _groups(seconds, count=4, on_s=0.1 * stretch, off_s=0.1 * stretch, pause_s=5.0 * stretch)
    return _beeps(rng, seconds, spans, _alarm_tone(rng, seconds, spread), 5.7 * stretch)


def wail(rng: Generator, seconds: float, spread: Spread) -> Sound:
    """Siren: slow sweeps, 10 to 30 a minute."""
    return _sweeping(rng, seconds, rng.uniform(10, 30) / 60, spread)


def yelp(rng: Generator, seconds: float, spread: Spread) -> Sound:
    """Siren: fast sweeps, 150 to 250 a minute."""
    return _sweeping(rng, seconds, rng.uniform(150, 250) / 60, spread)


def hilo(rng: Generator, seconds: float, spread: Spread) -> Sound:
    """Two tones in turn, about 435 and 580 Hz, 0.5 s each."""
    half = 0.5 * _near(rng, 1.0, spread.timing)
    error = _near(rng, 1.0, spread.tone)
    ratio = 580 / 435 * _near(rng, 1.0, 0.02)
    high = ((_clock(seconds) / half).astype(int) + int(rng.integers(2))) % 2 == 1
    samples = _wave(rng, np.where(high, 435 * error * ratio, 435 * error))
    return Sound(_unit(samples), seconds, 2 * half)


def reversing_beeper(rng: Generator, seconds: float, spread: Spread) -> Sound:
    """A lorry reverses: about 1 kHz, half a second on, half off."""
    period = rng.uniform(0.8, 1.2)
    spans = _groups(seconds, count=1, on_s=period / 2, off_s=0, pause_s=period / 2)
    return _beeps(rng, seconds, spans, _wave(rng, np.full(_count(seconds), rng.uniform(950, 1400))), period)


def microwave_timer(rng: Generator, seconds: float, spread: Spread) -> Sound:
    """Three to five long beeps, now and then again."""
    on, off = rng.uniform(0.3, 1.0), rng.uniform(0.3, 0.8)
    spans = _groups(seconds, count=int(rng.integers(3, 6)), on_s=on, off_s=off, pause_s=rng.uniform(8, 30))
    return _beeps(rng, seconds, spans, _wave(rng, np.full(_count(seconds), rng.uniform(1900, 2600))))


def kitchen_timer(rng: Generator, seconds: float, spread: Spread) -> Sound:
    """Two to four short beeps every second."""
    on, count = rng.uniform(0.05, 0.12), int(rng.integers(2, 5))
    spans = _groups(seconds, count=count, on_s=on, off_s=on, pause_s=rng.uniform(0.4, 0.9))
    return _beeps(rng, seconds, spans, _wave(rng, np.full(_count(seconds), rng.uniform(2000, 4100))))


def low_battery_chirp(rng: Generator, seconds: float, spread: Spread) -> Sound:
    """One short beep of a smoke alarm with an empty battery, every 20 to 40 s."""
    spans = _groups(seconds, count=1, on_s=rng.uniform(0.04, 0.15), off_s=0, pause_s=rng.uniform(20, 40))
    return _beeps(rng, seconds, spans, _alarm_tone(rng, seconds, spread))


def alarm_clock(rng: Generator, seconds: float, spread: Spread) -> Sound:
    """Four fast beeps, a short pause, and again."""
    on = rng.uniform(0.05, 0.11)
    spans = _groups(seconds, count=4, on_s=on, off_s=on * rng.uniform(0.8, 1.2), pause_s=rng.uniform(0.3, 1.2))
    return _beeps(rng, seconds, spans, _wave(rng, np.full(_count(seconds), rng.uniform(1800, 4200))))


def telephone(rng: Generator, seconds: float, spread: Spread) -> Sound:
    """440 and 480 Hz (or 425 Hz), 2 s on and 4 s off; or a bell or a warble, modulated 15 to 25 times a second."""
    clock, kind = _clock(seconds), int(rng.integers(3))
    if kind == 0:
        tone = np.sin(2 * np.pi * 440 * clock) + np.sin(2 * np.pi * 480 * clock)
    elif kind == 1:
        strokes = 0.55 + 0.45 * np.sign(np.sin(2 * np.pi * rng.uniform(20, 25) * clock))
        tone = strokes * sum(np.sin(2 * np.pi * f * clock) for f in rng.uniform(900, 3500, 4))
    else:
        low = rng.uniform(700, 1200)
        tone = _wave(rng, np.where(np.sin(2 * np.pi * rng.uniform(10, 20) * clock) > 0, low, low * 1.25))
    on, off = (2.0, 4.0) if kind == 0 else (rng.uniform(0.8, 2), rng.uniform(1, 4))
    return _beeps(rng, seconds, _groups(seconds, count=1, on_s=on, off_s=0, pause_s=off), tone, on + off)


def kettle(rng: Generator, seconds: float, spread: Spread) -> Sound:
    """Rushing steam and a whistle that rises once and stays."""
    clock = _clock(seconds)
    rise = 1 - np.exp(-clock / rng.uniform(1, 4))
    pitch = rng.uniform(1500, 3200) * (0.5 + 0.5 * rise) * (1 + 0.004 * slow_noise(rng, clock.size, 6))
    steam = np.convolve(rng.standard_normal(clock.size), [1, -0.9], mode="same")
    return Sound(_unit(rise**2 * np.sin(_phase(pitch)) + 0.15 * steam), seconds)


def whistling(rng: Generator, seconds: float, spread: Spread) -> Sound:
    """Somebody whistles a tune: notes that glide into one another, with vibrato and breaths."""
    pitch, level = np.zeros(_count(seconds)), np.zeros(_count(seconds))
    at, note = 0.0, rng.uniform(800, 1600)
    while at < seconds:
        length = rng.uniform(0.15, 0.9)
        following = float(np.clip(note * 2 ** (rng.integers(-7, 8) / 12), 600, 2600))
        part = slice(_count(at), min(_count(at + length), pitch.size))
        shape = np.linspace(0, 1, max(part.stop - part.start, 1))[: part.stop - part.start]
        glide = np.clip((shape - (1 - rng.uniform(0.1, 0.8))) / 0.3, 0, 1)
        pitch[part] = note * (following / note) ** glide
        level[part] = 0.0 if rng.random() < 0.15 else 1.0
        at, note = at + length, following
    pitch *= 1 + 0.01 * np.sin(2 * np.pi * rng.uniform(4, 6.5) * _clock(seconds))
    level = smooth(level, 0.03) * (1 + 0.2 * slow_noise(rng, pitch.size, 4))
    breath = 0.03 * rng.standard_normal(pitch.size)
    return Sound(_unit(level * (np.sin(_phase(pitch)) + breath)), seconds)


def birds(rng: Generator, seconds: float, spread: Spread) -> Sound:
    """Chirps and trills between 1.8 and 7 kHz."""
    samples = np.zeros(_count(seconds))
    at = rng.uniform(0, 0.5)
    while at < seconds:
        low, high, length = rng.uniform(1800, 4000), rng.uniform(2500, 7000), rng.uniform(0.04, 0.3)
        for _ in range(int(rng.integers(1, 8))):
            count = _count(length)
            sweep = np.sin(_phase(np.linspace(low, high, count))) * np.hanning(count)
            start = _count(at)
            samples[start : start + count] += sweep[: max(0, samples.size - start)]
            at += length * rng.uniform(1.1, 2)
        at += rng.uniform(0.2, 2)
    return Sound(_unit(samples), seconds)


def music(rng: Generator, seconds: float, spread: Spread) -> Sound:
    """Steady rhythm: chords, an arpeggio or riff, a lead voice that glides, and drums."""
    beat, root = 60 / rng.uniform(70, 160), rng.uniform(110, 330)
    scale = root * 2 ** (np.array([0, 2, 4, 5, 7, 9, 11, 12, 14, 16]) / 12)
    clock = _clock(seconds)
    samples = np.zeros(clock.size)
    riff = rng.choice(scale, int(rng.choice([2, 3, 4, 8])))
    for number, start in enumerate(np.arange(0, seconds, beat / 2)):
        _add_note(rng, samples, start, beat / 2 * rng.uniform(0.5, 1.0), riff[number % riff.size] * 2, 1.0)
        if number % 8 == 0:
            for pitch in scale[[0, 2, 4]]:
                _add_note(rng, samples, start, 4 * beat, pitch, 0.5)
        if number % 2 == 0:
            part = slice(_count(start), _count(start + 0.4))
            local = clock[part] - start
            body = rng.standard_normal(local.size) if number % 4 else np.sin(2 * np.pi * 60 * local)
            samples[part] += 0.6 * np.exp(-local / 0.05) * body
    lead = np.repeat(rng.choice(scale * 4, int(seconds / beat) + 2), _count(beat))[: clock.size]
    samples += 0.5 * np.sin(_phase(smooth(lead, rng.uniform(0.02, 0.8) * beat)))
    return Sound(_unit(samples), seconds, beat)


def household(rng: Generator, seconds: float, spread: Spread) -> Sound:
    """Noise of a home: a coloured rush, hum, and clatter."""
    count = _count(seconds)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum /= np.maximum(np.fft.rfftfreq(count, 1 / SAMPLE_RATE), 50) ** rng.uniform(0, 1)
    rush = _unit(np.fft.irfft(spectrum, count)).astype(np.float64)
    hum = sum(np.sin(2 * np.pi * 50 * k * _clock(seconds)) / k for k in range(1, 6))
    clatter = np.zeros(count)
    for start in rng.uniform(0, seconds, int(seconds * rng.uniform(0, 3))):
        local = np.arange(min(count - _count(start), SAMPLE_RATE)) / SAMPLE_RATE
        ring = np.exp(-local / rng.uniform(0.01, 0.2)) * np.sin(2 * np.pi * rng.uniform(400, 5000) * local)
        clatter[_count(start) : _count(start) + local.size] += ring
    return Sound(_unit(rush + rng.uniform(0, 0.3) * hum + rng.uniform(0, 1.5) * clatter), seconds)


def noise(rng: Generator, seconds: float, spread: Spread) -> Sound:
    """Noise alone: white to brown, through a band or not, steady or coming and going (wind, rain, traffic, a fan)."""
    count = _count(seconds)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    pitch = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    spectrum /= np.maximum(pitch, 30) ** rng.uniform(0, 1.5)
    if rng.random() < 0.4:
        centre, width = rng.uniform(150, 4000), rng.uniform(0.3, 2)
        spectrum *= np.exp(-((np.log2(np.maximum(pitch, 1) / centre) / width) ** 2))
    level = 10 ** (rng.uniform(0, 8) / 20 * slow_noise(rng, count, rng.uniform(0.05, 2)))
    return Sound(_unit(np.fft.irfft(spectrum, count) * level), seconds)


def room(rng: Generator, samples: Samples, rt60_s: float) -> Samples:
    """The sound in a room: direct sound plus an exponentially decaying tail of half its power; same length."""
    if rt60_s < 0.05:
        return samples
    count = _count(rt60_s * 1.2)
    tail = rng.standard_normal(count) * np.exp(-6.9 * np.arange(count) / SAMPLE_RATE / rt60_s)
    tail *= np.sqrt(0.5 / np.sum(tail**2))
    tail[0] += 1
    size = _fft_size(samples.size + count)
    reverberant = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(tail, size), size)[: samples.size]
    return reverberant.astype(np.float32)


ALARMS: Mapping[str, Maker] = MappingProxyType({"t3": t3, "t4": t4, "wail": wail, "yelp": yelp, "hilo": hilo})
DISTRACTORS: Mapping[str, Maker] = MappingProxyType(
    {
        "reversing_beeper": reversing_beeper,
        "microwave_timer": microwave_timer,
        "kitchen_timer": kitchen_timer,
        "low_battery_chirp": low_battery_chirp,
        "alarm_clock": alarm_clock,
        "telephone": telephone,
        "kettle": kettle,
        "whistling": whistling,
        "birds": birds,
        "music": music,
        "household": household,
    }
)


def _sweeping(rng: Generator, seconds: float, rate_hz: float, spread: Spread) -> Sound:
    low, high = 650 * _near(rng, 1.0, spread.tone), rng.uniform(1200, 2000) * _near(rng, 1.0, spread.tone)
    cycle = (_clock(seconds) * rate_hz + rng.random()) % 1.0
    shape = int(rng.integers(3))
    if shape == 0:
        course = 0.5 - 0.5 * np.cos(2 * np.pi * cycle)
    elif shape == 1:
        course = 1 - np.abs(2 * cycle - 1)
    else:
        up = rng.uniform(0.3, 0.7)
        course = np.where(cycle < up, cycle / up, (1 - cycle) / (1 - up))
    pitch = low * (high / low) ** course if rng.random() < 0.5 else low + (high - low) * course
    return Sound(_unit(_wave(rng, pitch)), seconds, 1 / rate_hz)


def _alarm_tone(rng: Generator, seconds: float, spread: Spread) -> Signal:
    if rng.random() < 0.7:
        return _wave(rng, np.full(_count(seconds), 3100 * _near(rng, 1.0, spread.tone)))
    phase = _phase(np.full(_count(seconds), 520 * _near(rng, 1.0, spread.tone)))
    square: Signal = np.zeros(phase.size)
    for k in range(1, 14, 2):
        square += np.sin(k * phase) / k
    return square


def _wave(rng: Generator, pitch_hz: Signal) -> Signal:
    """A tone with a few harmonics of random strength below 7 kHz."""
    phase = _phase(pitch_hz)
    tone = np.sin(phase)
    for k in range(2, int(rng.integers(2, 6))):
        tone = tone + rng.uniform(0, 0.5) / k * np.sin(k * phase) * (pitch_hz * k < 7000)
    found: Signal = tone
    return found


def _groups(seconds: float, *, count: int, on_s: float, off_s: float, pause_s: float) -> Spans:
    spans, at = [], 0.0
    while at + on_s <= seconds:
        for _ in range(count):
            if at + on_s <= seconds:
                spans.append((at, at + on_s))
            at += on_s + off_s
        at += pause_s - off_s
    return spans


def _beeps(rng: Generator, seconds: float, spans: Spans, tone: Signal, period_s: float = 0.0) -> Sound:
    gate = np.zeros(_count(seconds))
    for start, end in spans:
        gate[_count(start) : _count(end)] = 1
    gate = smooth(gate, rng.uniform(0.002, 0.01))
    level = np.sqrt(np.mean(tone[gate > 0.5] ** 2)) if (gate > 0.5).any() else 1.0
    return Sound((tone * gate / level).astype(np.float32), spans[-1][1] if spans else 0.0, period_s)


def _add_note(rng: Generator, samples: Signal, start: float, length: float, pitch: float, level: float) -> None:
    part = slice(_count(start), min(samples.size, _count(start + length)))
    local = np.arange(part.stop - part.start) / SAMPLE_RATE
    decay = level * np.exp(-local / rng.uniform(0.1, 2.0)) * np.clip((length - local) / 0.02, 0, 1)
    for k in range(1, 5):
        samples[part] += np.sin(2 * np.pi * pitch * k * local) / k**1.5 * decay


def _near(rng: Generator, value: float, error: float) -> float:
    return float(value * rng.uniform(1 - error, 1 + error))


def _fft_size(least: int) -> int:
    """The next of 5, 6, 7 and 8 times a power of two: some lengths take ten times as long."""
    step = 1 << max(0, (least - 1).bit_length() - 3)
    return -(-least // step) * step


def _count(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)


def _clock(seconds: float) -> Signal:
    clock: Signal = np.arange(_count(seconds)) / SAMPLE_RATE
    return clock


def _phase(pitch_hz: Signal) -> Signal:
    phase: Signal = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE
    return phase


def smooth(values: Signal, width_s: float) -> Signal:
    """Moving average over `width_s`."""
    width = max(1, _count(width_s))
    total: Signal = np.cumsum(np.concatenate([np.full(width, values[0] if values.size else 0.0), values]))
    found: Signal = (total[width:] - total[:-width]) / width
    return found


def slow_noise(rng: Generator, count: int, rate_hz: float) -> Signal:
    """Normal noise that takes a new value so often a second, straight in between."""
    points = rng.standard_normal(int(count / SAMPLE_RATE * rate_hz) + 3)
    found: Signal = np.interp(np.arange(count) / SAMPLE_RATE * rate_hz, np.arange(points.size), points)
    return found


def _unit(samples: Signal) -> Samples:
    return (samples / max(float(np.sqrt(np.mean(samples**2))), 1e-9)).astype(np.float32)
