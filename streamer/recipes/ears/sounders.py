"""Alarms as they sound where people are, and what is taken for them: piezo sounders, horns, sirens, kettles, phones.

The clean signals of the standards (`recipes.synthesis.alarms`) are not what microphones get: a piezo disc in its case
rings at partials that are no multiples of each other, buzzes, and is turned on and off in other ways than three beeps;
a kettle's whistle glides for half a minute over a rushing noise. Ranges: UL 217, ISO 8201, EN 54-3 (sounders of
buildings), SAE J1849 and DIN 14610 (sirens), and recordings of each that were looked at.
Every maker takes a length in seconds and a generator and returns float64 samples at 16 kHz of any level.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from scipy import signal

from streamer.events import SAMPLE_RATE
from streamer.recipes.synthesis import alarms
from streamer.recipes.synthesis.alarms import ALARM, SIREN, SMOKE, TELEPHONE, WHISTLE, Floats
from streamer.recipes.synthesis.household import far

Generator = np.random.Generator
FIRE_ALARM, CIVIL_DEFENSE, RINGTONE, STEAM_WHISTLE, SOUND_EFFECT = 400, 397, 391, 403, 504


def smoke_alarm(seconds: float, random: Generator) -> Floats:
    """A smoke or carbon monoxide alarm of a home: a piezo sounder, now and then 520 Hz, that is turned on and off."""
    beep = random.uniform(0.35, 0.65)
    kind = str(
        random.choice(
            ["t3", "even", "long", "steady", "flutter", "quick", "sweep", "t4"],
            p=[0.26, 0.16, 0.1, 0.12, 0.12, 0.08, 0.1, 0.06],
        )
    )
    pitch = np.full(int(seconds * SAMPLE_RATE), random.uniform(2350, 4000))
    if kind == "t3":
        low = random.random() < 0.2
        pitch[:] = random.uniform(500, 540) if low else pitch
        on_off = [(beep, beep * random.uniform(0.7, 1.2))] * 2 + [(beep, random.uniform(1.0, 2.3))]
    elif kind == "t4":
        short = random.uniform(0.085, 0.12)
        on_off = [(short, short)] * 3 + [(short, random.uniform(4.0, 5.4))]
    elif kind == "even":
        on_off = [(beep, beep * random.uniform(0.2, 1.6))]
    elif kind == "long":
        on_off = [(random.uniform(0.7, 2.5), random.uniform(0.1, 1.2))]
    elif kind == "quick":  # as quick as a clock, but it never pauses
        short = random.uniform(0.1, 0.3)
        on_off = [(short, short * random.uniform(0.2, 0.9))]
    else:
        on_off = [(seconds, 0.0)]
    if kind == "sweep":  # upwards again and again, or a warble; a vehicle's siren is lower
        pitch *= _course(seconds, random.uniform(0.7, 9), random) * random.uniform(0.04, 0.4) + 0.9
    wave = _piezo(pitch, random) * alarms.pattern(seconds, on_off, random)
    if kind == "flutter":
        rate = random.uniform(3, 30)
        place = (np.arange(len(wave)) / SAMPLE_RATE * rate) % 1
        wave *= np.where(place < random.uniform(0.4, 0.9), 1.0, random.uniform(0.0, 0.5))
    return wave


def horn(seconds: float, random: Generator) -> Floats:
    """A fire alarm's horn or bell in a building: harsh, in threes, steadily or again and again."""
    on = random.uniform(0.3, 1.2)
    on_off = [[(on, on)] * 2 + [(on, 3 * on)], [(seconds, 0.0)], [(on, on * random.uniform(0.3, 1.5))]][
        int(random.integers(3))
    ]
    envelope = alarms.pattern(seconds, on_off, random)
    if random.random() < 0.35:
        return _bell(seconds, random) * envelope
    clock = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    rough = random.uniform(40, 180)
    pulses = np.where(
        (clock * rough) % 1 < random.uniform(0.2, 0.7), 0.5, -0.5
    )  # the armature strikes a resonant plate
    wave = _resonant(pulses, random.uniform(400, 3600, int(random.integers(2, 6))), random)
    if random.random() < 0.5:
        wave = wave / wave.std() * 0.5 + _piezo(np.full(len(clock), random.uniform(2000, 3600)), random)
    return np.asarray(wave * envelope)


def evacuation(seconds: float, random: Generator) -> Floats:
    """A sounder of a building (EN 54-3): slow whoop, two tones in turn, a quick sweep, always the same."""
    clock = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE + random.uniform(0, 4)
    kind = int(random.integers(5))
    if kind == 0:  # the Dutch slow whoop
        place = clock % 4.0 / 3.5
        pitch, envelope = 500 + 700 * np.minimum(place, 1), place < 1
    elif kind == 1:  # DIN 33404-3
        pitch, envelope = 1200 - 700 * (clock % 1.0), np.ones(len(clock), bool)
    elif kind == 2:
        low, high = [(800, 970), (990, 650), (2400, 2850), (440, 554), (510, 610)][int(random.integers(5))]
        pitch = np.where(clock * random.uniform(0.8, 4.5) % 1 < 0.5, low, high)
        envelope = np.ones(len(clock), bool)
    elif kind == 3:
        low, high = [(800, 970), (2400, 2850), (2500, 3200)][int(random.integers(3))]
        pitch, envelope = (
            low + (high - low) * (clock * random.choice([1.0, 7.0, 9.0, 50.0]) % 1),
            np.ones(len(clock), bool),
        )
    else:
        pitch, envelope = np.full(len(clock), random.choice([660.0, 800.0, 970.0, 2850.0])), clock % 2 < 1
    wave = alarms.tone(np.cumsum(pitch * random.uniform(0.97, 1.03) / SAMPLE_RATE), random) * envelope
    return _loudspeaker(wave, random) if random.random() < 0.5 else wave


def siren(seconds: float, random: Generator) -> Floats:
    """A vehicle's siren through its horn loudspeaker, in a street: near, far, passing, from inside a room."""
    kind = str(random.choice(["wail", "yelp", "phaser", "hilo", "martin", "turbine", "changing"]))
    longer = seconds + 1.0
    if kind == "changing":  # the driver presses the button
        half = longer / 2
        wave = np.concatenate([_electronic(half, str(random.choice(["wail", "yelp", "phaser"])), random) for _ in "12"])
    elif kind == "martin":  # compressed air, two pairs of horns
        low = random.uniform(360, 480)
        place = (np.arange(int(longer * SAMPLE_RATE)) / SAMPLE_RATE / random.uniform(0.5, 0.9)) % 2
        pitch = np.where(place < 1, low, low * random.uniform(1.3, 1.36))
        wave = sum((_reed(pitch * ratio, random) for ratio in (1.0, random.uniform(1.005, 1.03))), np.zeros(len(pitch)))
    elif kind == "turbine":
        wave = _turbine(longer, random)
    else:
        wave = _electronic(longer, kind, random)
    if random.random() < 0.7:
        wave = _loudspeaker(wave, random)
    return _passing(wave, seconds, random)


def civil_defence(seconds: float, random: Generator) -> Floats:
    """A siren on a roof: two rotors a third apart, minutes long, echoes of houses."""
    count = int(seconds * SAMPLE_RATE)
    top = random.uniform(300, 520)
    period = random.uniform(6, 40)
    course = 1 - random.uniform(0, 0.5) * (0.5 + 0.5 * np.cos(2 * np.pi * np.arange(count) / SAMPLE_RATE / period))
    wave = sum(
        (_reed(top * ratio * course, random) for ratio in (1.0, random.choice([1.2, 1.25, 1.333]))), np.zeros(count)
    )
    return far(wave, random)


def kettle(seconds: float, random: Generator) -> Floats:
    """Half a minute of a kettle on its way up, down again, or at its height; partials, rushing steam, bubbles."""
    count = int(seconds * SAMPLE_RATE)
    low, high = random.uniform(600, 1600), random.uniform(2000, 5200)
    begin = random.uniform(-0.2, 0.9)
    speed = random.choice([-1.0, 1.0, 1.0]) / random.uniform(5, 40)
    place = np.clip(begin + speed * np.arange(count) / SAMPLE_RATE, 0, 1)
    wobble = np.interp(
        np.arange(count), np.linspace(0, count, int(seconds * 6) + 2), random.normal(0, 1, int(seconds * 6) + 2)
    )
    pitch = low * (high / low) ** place * (1 + random.uniform(0.002, 0.03) * wobble)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    wave = np.sin(phase)
    for ratio in (0.5, 1.5, 2.0, 3.0):  # a whistle of two plates overblows
        if random.random() < 0.5:
            wave += random.uniform(0.05, 0.8) * np.sin(ratio * phase) * (ratio * pitch < 7500)
    flutter = np.abs(1 + random.uniform(0, 0.5) * _slow_noise(count, random.uniform(4, 30), random))
    noise = random.normal(0, 1, count)
    rush = noise * (1 + random.uniform(0, 2) * np.sin(phase)) * random.uniform(0.05, 0.8)
    colour = random.uniform(-0.9, 0.6)
    rush = signal.lfilter([1], [1, colour], rush)
    bubbles = signal.lfilter([0.02], [1, -0.98], noise) * random.uniform(0, 2)
    return np.asarray(wave * (0.15 + place) ** random.uniform(0.5, 3) * flutter + rush + bubbles)


def phone_alarm(seconds: float, random: Generator) -> Floats:
    """A telephone's wake-up or ringing melody: quick electronic or struck notes, the same figure again and again."""
    count = int(seconds * SAMPLE_RATE)
    step = random.uniform(0.06, 0.22)
    base = random.uniform(500, 2400)
    figure = base * 2 ** (random.choice([0, 0, 2, 3, 4, 5, 7, 9, 12], int(random.integers(2, 9))) / 12)
    decay = random.uniform(3, 40)
    note = np.arange(int(step * SAMPLE_RATE) * 2) / SAMPLE_RATE
    wave, period = np.zeros(count), step * len(figure) + random.choice([0.0, 0.3, 0.8, 1.5])
    plain = random.random() < 0.5
    for start in np.arange(-random.uniform(0, period), seconds, period):
        for place, pitch in enumerate(figure):
            at = int((start + place * step) * SAMPLE_RATE)
            sound = np.sin(2 * np.pi * pitch * note)
            if not plain:
                sound = sound + 0.4 * np.sign(sound) + 0.3 * np.sin(2 * np.pi * 3.01 * pitch * note) * (pitch < 2400)
            sound = sound * np.exp(-decay * note) * (note < step * 1.5)
            if 0 <= at < count:
                wave[at : at + len(sound)] += sound[: count - at]
    return wave


def glide(seconds: float, random: Generator) -> Floats:
    """A voice, a bow or a slide that glides as a siren does but breathes, wavers and pauses."""
    count = int(seconds * SAMPLE_RATE)
    points = int(seconds * random.uniform(0.7, 3)) + 2
    base = random.uniform(200, 1100)
    course = np.interp(
        np.arange(count), np.linspace(0, count, points), random.normal(0, random.uniform(0.15, 0.5), points)
    )
    vibrato = 1 + random.uniform(0, 0.03) * np.sin(2 * np.pi * random.uniform(4, 7) * np.arange(count) / SAMPLE_RATE)
    pitch = base * np.exp(course) * vibrato
    wave = _reed(pitch, random) if random.random() < 0.6 else np.sin(2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE)
    envelope = np.clip(_slow_noise(count, random.uniform(1, 4), random) + random.uniform(0.2, 1.0), 0, 1)
    return np.asarray(wave * envelope + random.normal(0, random.uniform(0, 0.03), count))


Maker = Callable[[float, Generator], Floats]
KINDS: Mapping[str, tuple[tuple[int, ...], Maker, int]] = MappingProxyType(  # labels, maker, how many clips
    {
        "piezo": ((SMOKE, ALARM), smoke_alarm, 420),
        "horn": ((SMOKE, FIRE_ALARM, ALARM), horn, 140),
        "evacuation": ((SMOKE, FIRE_ALARM, ALARM), evacuation, 120),
        "street_siren": ((SIREN, ALARM), siren, 420),
        "civil_defence": ((SIREN, CIVIL_DEFENSE, ALARM), civil_defence, 60),
        "whistling_kettle": ((WHISTLE, STEAM_WHISTLE), kettle, 200),
        "phone_alarm": ((TELEPHONE, RINGTONE), phone_alarm, 200),
        "glide": ((SOUND_EFFECT,), glide, 120),
    }
)


def _piezo(pitch: Floats, random: Generator) -> Floats:
    """A disc driven at `pitch` [n]: partials that its case adds, a few of them no multiples, a buzz, a rough edge."""
    phase = np.cumsum(pitch) / SAMPLE_RATE
    wave = alarms.tone(phase, random)
    if random.random() < 0.5:  # lines beside the pitch, a fixed distance apart
        apart = random.uniform(60, 1300)
        for side in (-2, -1, 1, 2):
            line = pitch + side * apart
            inside = (line > 100) & (line < 7500)
            wave += random.uniform(0, 0.6) * np.sin(2 * np.pi * np.cumsum(line) / SAMPLE_RATE) * inside
    if random.random() < 0.3:
        lower = random.uniform(0.3, 0.8)
        wave += random.uniform(0.1, 0.9) * np.sin(2 * np.pi * lower * phase)
    if random.random() < 0.4:
        wave *= 1 + random.uniform(0.05, 0.6) * np.sin(
            2 * np.pi * random.uniform(4, 130) * np.arange(len(wave)) / SAMPLE_RATE
        )
    hiss = random.normal(0, 1, len(wave)) * random.uniform(0, 0.08)
    return np.asarray(np.tanh(wave * random.uniform(0.5, 3)) + hiss)


def _bell(seconds: float, random: Generator) -> Floats:
    """A gong that a hammer strikes 8 to 30 times a second."""
    count, rate = int(seconds * SAMPLE_RATE), random.uniform(8, 30)
    strikes = np.zeros(count)
    place = (np.cumsum(np.maximum(random.normal(1, 0.03, int(seconds * rate) + 2), 0.5)) / rate * SAMPLE_RATE).astype(
        int
    )
    strikes[place[place < count]] = random.uniform(0.7, 1.0, int((place < count).sum()))
    age = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    partials = random.uniform(500, 1600) * np.concatenate([[1.0], random.uniform(1.3, 6, 7)])
    ring = sum(
        (
            random.uniform(0.2, 1) * np.exp(-age * random.uniform(3, 25)) * np.sin(2 * np.pi * p * age)
            for p in partials
            if p < 7500
        ),
        np.zeros(len(age)),
    )
    return np.asarray(signal.oaconvolve(strikes, ring)[:count])


def _resonant(wave: Floats, pitches: Floats, random: Generator) -> Floats:
    """`wave` through resonances at `pitches` [k]."""
    found = np.zeros(len(wave))
    for pitch in pitches:
        top, bottom = signal.iirpeak(pitch, random.uniform(3, 30), fs=SAMPLE_RATE)
        found += random.uniform(0.3, 1.0) * signal.lfilter(top, bottom, wave)
    return found


def _course(seconds: float, rate: float, random: Generator) -> Floats:
    """0 to 1 again and again: a saw up or down, a triangle, or a sine."""
    place = (np.arange(int(seconds * SAMPLE_RATE)) * rate / SAMPLE_RATE + random.uniform()) % 1
    kind = int(random.integers(4))
    return np.asarray([place, 1 - place, 1 - np.abs(2 * place - 1), 0.5 - 0.5 * np.cos(2 * np.pi * place)][kind])


def _electronic(seconds: float, kind: str, random: Generator) -> Floats:
    """Wail, yelp, phaser or hi-lo of an electronic siren."""
    if kind == "hilo":
        low = random.uniform(380, 760)
        place = (np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE / random.uniform(0.3, 1.0)) % 2
        return alarms.tone(np.cumsum(np.where(place < 1, low, low * random.uniform(1.12, 1.5)) / SAMPLE_RATE), random)
    rate = {"wail": (0.12, 0.6), "yelp": (1.8, 5.0), "phaser": (8.0, 22.0)}[kind]
    turns = np.arange(int(seconds * SAMPLE_RATE)) * random.uniform(*rate) / SAMPLE_RATE + random.uniform()
    rising, place = random.uniform(0.15, 0.85), turns % 1
    position = np.where(place < rising, place / rising, (1 - place) / (1 - rising))
    position = position ** random.uniform(0.5, 1.6)
    low, high = random.uniform(400, 900), random.uniform(1000, 1900)
    return alarms.tone(np.cumsum(low * (high / low) ** position / SAMPLE_RATE), random)


def _turbine(seconds: float, random: Generator) -> Floats:
    """A motor that spins up for seconds and runs down for longer, its ports rich in harmonics."""
    count = int(seconds * SAMPLE_RATE)
    now, pitch = random.uniform(0.2, 1.0), np.zeros(count)
    top, up, down = random.uniform(700, 1500), random.uniform(1.0, 4), random.uniform(4, 12)
    powered = alarms.pattern(seconds, [(random.uniform(2, 6), random.uniform(2, 8))], random) > 0.5
    for block in range(0, count, 160):
        on = bool(powered[block])
        now += (1 - now) * 0.01 / up if on else -now * 0.01 / down
        pitch[block : block + 160] = top * max(now, 0.05)
    pitch = np.asarray(signal.lfilter([0.002], [1, -0.998], pitch - pitch[0]) + pitch[0])
    return _reed(pitch, random) * np.clip(pitch / top, 0, 1)


def _reed(pitch: Floats, random: Generator) -> Floats:
    """Many harmonics of `pitch` [n], as air that is chopped or a reed gives."""
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    tilt, wave = random.uniform(0.6, 1.8), np.zeros(len(pitch))
    for number in range(1, 11):
        wave += random.uniform(0.4, 1) / number**tilt * np.sin(number * phase) * (pitch * number < 7500)
    return wave


def _loudspeaker(wave: Floats, random: Generator) -> Floats:
    """A horn loudspeaker: no bass, some resonances, overdriven."""
    low, high = random.uniform(200, 600), random.uniform(2500, 6500)
    sections = signal.butter(2, [low, high], "bandpass", fs=SAMPLE_RATE, output="sos")
    driven = np.tanh(wave / (wave.std() + 1e-9) * random.uniform(0.3, 2.5))
    coloured = signal.sosfilt(sections, driven)
    return np.asarray(coloured + _resonant(coloured, random.uniform(500, 3000, 2), random) * random.uniform(0, 1.5))


def _passing(wave: Floats, seconds: float, random: Generator) -> Floats:
    """`seconds` of `wave` from something that moves, over the hum of a street, echoed by houses."""
    count = int(seconds * SAMPLE_RATE)
    time = np.linspace(-1, 1, count)
    shift = 1 + random.uniform(-0.07, 0.07) * np.tanh((time - random.uniform(-1.5, 1.5)) * random.uniform(0.5, 5))
    moved = np.interp(np.minimum(np.cumsum(shift), len(wave) - 1), np.arange(len(wave)), wave)
    moved = moved * np.linspace(random.uniform(0.15, 1), random.uniform(0.15, 1), count)
    if random.random() < 0.6:
        moved = far(moved, random)
    moved = moved / (moved.std() + 1e-9)
    street = signal.lfilter([0.05], [1, -0.95], random.normal(0, 1, count))
    return np.asarray(moved + street / street.std() * random.uniform(0, 0.7))


def _slow_noise(count: int, hertz: float, random: Generator) -> Floats:
    points = int(count / SAMPLE_RATE * hertz) + 2
    return np.asarray(np.interp(np.arange(count), np.linspace(0, count, points), random.normal(0, 1, points)))
