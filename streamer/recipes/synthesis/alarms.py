"""Synthetic alarms and signals, from their standards and habits, with AudioSet classes.

Smoke alarms: T3 (ISO 8201: three times 0.5 s on, 0.5 s off, then 1.5 s pause), about 3.1 kHz or a 520 Hz square wave.
CO alarms: T4 (four 0.1 s beeps 0.1 s apart, 5 s pause). Sirens: wail 10 to 30 sweeps a minute, yelp 150 to 250, hi-lo.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.events import SAMPLE_RATE
from streamer.recipes.synthesis.clips import GRID, SoundClip

ALARM, TELEPHONE, PHONE_BELL, DOORBELL, DING_DONG = 388, 389, 390, 355, 356
ALARM_CLOCK, SIREN, BUZZER, SMOKE, BEEP, WHISTLE = 395, 396, 398, 399, 481, 402

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of signal: its AudioSet classes and how `seconds` of it are made."""

    labels: tuple[int, ...]
    make: Callable[[float, np.random.Generator], Floats]


def make(kind: str, seconds: float, random: np.random.Generator) -> SoundClip:
    """`seconds` of a signal of one of `KINDS`, peak 1, with its activity."""
    wave = KINDS[kind].make(seconds, random)
    audio = (wave / max(float(np.abs(wave).max()), 1e-9)).astype(np.float32)
    steps = max(1, -(-len(audio) // GRID))
    loud = np.abs(np.pad(audio, (0, steps * GRID - len(audio)))).reshape(steps, GRID).mean(axis=1) > 0.02
    return SoundClip(audio, KINDS[kind].labels, loud, kind)


def tone(phase: Floats, random: np.random.Generator) -> Floats:
    """A waveform over `phase` (in turns): sine, square, saw or a few random harmonics, none above 7.5 kHz."""
    rate = np.maximum(np.abs(np.gradient(phase)) * SAMPLE_RATE, 1.0).astype(np.float32)
    turn = (phase % 1.0).astype(np.float32) * np.float32(2 * np.pi)
    shape = int(random.integers(0, 4))
    harmonics = 1 if shape == 0 else 12
    twice_cosine, before, sine = 2 * np.cos(turn), np.zeros_like(turn), np.sin(turn)
    wave = np.zeros_like(turn)
    for number in range(1, harmonics + 1):
        weight = (1.0 / number if number % 2 else 0.0, 1.0 / number, random.uniform(0, 1) / number)[shape - 1]
        weight = 1.0 if number == 1 else weight
        if weight:
            wave += np.float32(weight) * sine * (rate * number < 7500)
        before, sine = sine, twice_cosine * sine - before  # the sine of one turn more
    return wave.astype(np.float64)


def pattern(seconds: float, on_off: list[tuple[float, float]], random: np.random.Generator | None) -> Floats:
    """An envelope that repeats (on, off) times in seconds, with 4 ms ramps, from a random point or the beginning."""
    one = np.concatenate([np.repeat([1.0, 0.0], [int(on * SAMPLE_RATE), int(off * SAMPLE_RATE)]) for on, off in on_off])
    count = int(seconds * SAMPLE_RATE)
    first = 0 if random is None else int(random.integers(0, len(one)))
    envelope = np.roll(np.tile(one, count // len(one) + 2), -first)[:count]
    return np.convolve(envelope, np.full(64, 1 / 64), mode="same")


def _steady(frequency: float, seconds: float) -> Floats:
    return np.cumsum(np.full(int(seconds * SAMPLE_RATE), frequency / SAMPLE_RATE))


def _smoke_t3(seconds: float, random: np.random.Generator) -> Floats:
    on, pause = random.uniform(0.45, 0.55), random.uniform(1.35, 2.0)
    frequency = 520 * random.uniform(0.97, 1.03) if random.random() < 0.25 else random.uniform(2700, 3600)
    envelope = pattern(seconds, [(on, on), (on, on), (on, pause)], random)
    return tone(_steady(frequency, seconds), random) * envelope


def _co_t4(seconds: float, random: np.random.Generator) -> Floats:
    on = random.uniform(0.085, 0.115)
    pause = random.uniform(4.4, 5.4)
    envelope = pattern(seconds, [(on, on), (on, on), (on, on), (on, pause)], random)
    return tone(_steady(random.uniform(2700, 3600), seconds), random) * envelope


def _sweep(seconds: float, cycles_a_second: float, random: np.random.Generator) -> Floats:
    """The phase of a frequency that rises and falls between a low and a high end."""
    low, high = random.uniform(450, 800), random.uniform(1100, 2000)
    turns = np.arange(int(seconds * SAMPLE_RATE)) * cycles_a_second / SAMPLE_RATE + random.uniform()
    rising = random.uniform(0.3, 0.8)
    place = turns % 1.0
    position = np.where(place < rising, place / rising, (1 - place) / (1 - rising))
    if random.random() < 0.4:
        position = 0.5 - 0.5 * np.cos(2 * np.pi * turns)
    return np.cumsum(low * (high / low) ** position / SAMPLE_RATE)


def _wail(seconds: float, random: np.random.Generator) -> Floats:
    return tone(_sweep(seconds, random.uniform(9, 32) / 60, random), random)


def _yelp(seconds: float, random: np.random.Generator) -> Floats:
    return tone(_sweep(seconds, random.uniform(140, 260) / 60, random), random)


def _hilo(seconds: float, random: np.random.Generator) -> Floats:
    low = random.uniform(380, 700)
    high, hold = low * random.uniform(1.2, 1.45), random.uniform(0.35, 0.8)
    place = (np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE / hold + random.uniform(0, 2)) % 2
    return tone(np.cumsum(np.where(place < 1, low, high) / SAMPLE_RATE), random)


def _alarm_clock(seconds: float, random: np.random.Generator) -> Floats:
    beep, rest = random.uniform(0.04, 0.14), random.uniform(0.04, 0.12)
    group, pause = int(random.integers(1, 5)), random.uniform(0.25, 0.6)
    envelope = pattern(seconds, [(beep, rest)] * (group - 1) + [(beep, pause)], random)
    return tone(_steady(random.uniform(800, 4200), seconds), random) * envelope


def _slow_clock(seconds: float, random: np.random.Generator) -> Floats:
    """Even beeps, as long as a smoke alarm's, or groups of four: without its pause after three."""
    beep = random.uniform(0.12, 0.6)
    rest = beep * random.uniform(0.6, 1.4)
    on_off = [(beep, rest)] if random.random() < 0.7 else [(beep, rest)] * 3 + [(beep, rest + random.uniform(0.3, 1.0))]
    return tone(_steady(random.uniform(400, 3600), seconds), random) * pattern(seconds, on_off, random)


def _clock_bell(seconds: float, random: np.random.Generator) -> Floats:
    """A mechanical clock: a hammer strikes one or two small bells 8 to 26 times a second."""
    count, rate = int(seconds * SAMPLE_RATE), random.uniform(8, 26)
    strikes = np.zeros(count)
    place = np.cumsum(np.maximum(random.normal(1.0, 0.06, int(seconds * rate) + 2), 0.5)) / rate * SAMPLE_RATE
    place = place[place < count].astype(int)
    strikes[place] = random.uniform(0.6, 1.0, len(place))
    age = np.arange(int(0.5 * SAMPLE_RATE)) / SAMPLE_RATE
    lowest, bell = random.uniform(900, 3200), np.zeros_like(age)
    for ratio in (1.0, *random.uniform(1.2, 3.6, 5)):
        if lowest * ratio < 7500:
            ring = np.exp(-age * random.uniform(6, 60)) * random.uniform(0.2, 1.0)
            bell += ring * np.sin(2 * np.pi * lowest * ratio * age + random.uniform(0, 6.3))
    size = 1 << (count + len(age)).bit_length()
    wave: Floats = np.fft.irfft(np.fft.rfft(strikes, size) * np.fft.rfft(bell, size), size)[:count]
    clatter = random.normal(0, 1, count) * np.convolve(strikes, np.exp(-np.arange(240) / 40), mode="same")
    wave /= np.abs(wave).max() + 1e-9
    return np.asarray(wave + random.uniform(0, 0.2) * clatter)


def _buzzer(seconds: float, random: np.random.Generator) -> Floats:
    phase = _steady(random.uniform(90, 420), seconds)
    wave = np.sign(np.sin(2 * np.pi * phase)) + 0.5 * (2 * (phase % 1) - 1)
    return wave * (
        pattern(seconds, [(random.uniform(0.3, 1.0), random.uniform(0.2, 0.8))], random)
        if random.random() < 0.5
        else 1.0
    )


def _doorbell(seconds: float, random: np.random.Generator) -> Floats:
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    high, gap, decay = random.uniform(550, 1100), random.uniform(0.35, 0.7), random.uniform(2.5, 6)
    wave, start = np.zeros_like(time), random.uniform(0, 0.3)
    while start < seconds:
        for offset, frequency in ((0.0, high), (gap, high * random.uniform(0.75, 0.84))):
            age = np.maximum(time - start - offset, 0.0)
            strike = np.sin(2 * np.pi * frequency * age) + 0.3 * np.sin(2 * np.pi * 2.76 * frequency * age) * np.exp(
                -6 * age
            )
            wave += strike * np.exp(-decay * age) * (time >= start + offset)
        start += random.uniform(2.5, 6)
    return wave


def _telephone(seconds: float, random: np.random.Generator) -> Floats:
    count = int(seconds * SAMPLE_RATE)
    trill = random.uniform(15, 28)
    place = (np.arange(count) / SAMPLE_RATE * trill) % 1
    low = random.uniform(700, 1800)
    phase = np.cumsum(np.where(place < 0.5, low, low * random.uniform(1.1, 1.35)) / SAMPLE_RATE)
    ring = random.choice(np.array([0.4, 1.0, 2.0])) * random.uniform(0.9, 1.1)
    cadence = [(ring, 0.2), (ring, 2.0)] if ring < 0.6 else [(ring, random.uniform(1.5, 4.0))]
    return tone(phase, random) * pattern(seconds, cadence, random)


def _kettle(seconds: float, random: np.random.Generator) -> Floats:
    count = int(seconds * SAMPLE_RATE)
    top = random.uniform(1900, 3400)
    wobble = np.cumsum(random.normal(0, 1, count)) / np.sqrt(SAMPLE_RATE)
    rise = 1 - random.uniform(0.1, 0.4) * np.exp(-np.arange(count) / SAMPLE_RATE / random.uniform(0.5, 3))
    phase = np.cumsum(top * rise * (1 + 0.004 * np.clip(wobble, -4, 4)) / SAMPLE_RATE)
    steam = np.convolve(random.normal(0, 1, count), [1, -0.9], mode="same") * random.uniform(0.03, 0.2)
    return (np.sin(2 * np.pi * phase) + random.uniform(0, 0.4) * np.sin(4 * np.pi * phase)) * rise**4 + steam


KINDS = {
    "smoke_t3": Kind((SMOKE, ALARM), _smoke_t3),
    "co_t4": Kind((SMOKE, ALARM), _co_t4),
    "wail": Kind((SIREN, ALARM), _wail),
    "yelp": Kind((SIREN, ALARM), _yelp),
    "hilo": Kind((SIREN, ALARM), _hilo),
    "alarm_clock": Kind((ALARM_CLOCK, ALARM), _alarm_clock),
    "slow_clock": Kind((ALARM_CLOCK, ALARM), _slow_clock),
    "clock_bell": Kind((ALARM_CLOCK, ALARM), _clock_bell),
    "buzzer": Kind((BUZZER,), _buzzer),
    "doorbell": Kind((DOORBELL, DING_DONG), _doorbell),
    "telephone": Kind((TELEPHONE, PHONE_BELL), _telephone),
    "kettle": Kind((WHISTLE,), _kettle),
}

OFTEN = (
    *("smoke_t3", "smoke_t3", "smoke_t3", "co_t4", "co_t4", "wail", "wail", "yelp", "yelp", "hilo", "hilo"),
    *("alarm_clock", "alarm_clock", "slow_clock", "clock_bell", "buzzer", "doorbell", "telephone", "kettle"),
)  # what compositions draw from: the alarms that people must not miss more often
