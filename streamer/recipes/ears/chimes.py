"""Door chimes and melodies of telephones, played by a General MIDI sound font (Debian's fluid-soundfont-gm, MIT).

Recordings of either that may be used are few; what they are made of is a handful of notes on bells, bars and reeds.
"""

import struct
import subprocess
import tempfile
from pathlib import Path

import av
import numpy as np

from streamer.events import SAMPLE_RATE

BELLS = (
    8,
    9,
    10,
    11,
    12,
    14,
    14,
    14,
    98,
    112,
)  # celesta, glockenspiel, music box, vibraphone, tubular bells …
PHONES = (10, 11, 12, 12, 13, 80, 81, 82, 88, 98, 99, 108)  # … synthesiser leads, pads, kalimba
TICKS = 480  # a second: 480 a quarter at 60 quarters a minute

Note = tuple[float, int, float]  # begins at (s), MIDI pitch, lasts (s)


def door_chime(random: np.random.Generator) -> tuple[int, list[Note]]:
    """An instrument and what it plays: ding-dong, one ding, three in a row, Westminster's quarters, a short tune."""
    high = int(random.integers(67, 92))
    gap = float(random.uniform(0.25, 0.8))
    kind = str(random.choice(["ding-dong", "ding-dong", "ding-dong", "ding", "three", "westminster", "tune"]))
    if kind == "ding-dong":
        pitches = [high, high - int(random.choice([3, 4, 4, 5]))]
    elif kind == "ding":
        pitches = [high] * int(random.integers(1, 4))
    elif kind == "three":
        pitches = [high, high - 4, high - 7] if random.random() < 0.5 else [high - 7, high - 4, high]
    elif kind == "westminster":
        pitches = [high, high - 4, high - 2, high - 9, high - 9, high - 2, high, high - 4]
    else:
        pitches = [high + int(random.choice([0, 2, 4, 7, -3, -5])) for _ in range(int(random.integers(3, 8)))]
        gap *= 0.5
    notes = [(gap * place, pitch, gap * 2) for place, pitch in enumerate(pitches)]
    if random.random() < 0.4:  # pressed once more
        later = notes[-1][0] + float(random.uniform(0.8, 3.0))
        notes += [(begin + later, pitch, lasts) for begin, pitch, lasts in notes]
    return int(random.choice(BELLS)), notes


def ringtone(random: np.random.Generator) -> tuple[int, list[Note]]:
    """An instrument and what it plays: a figure of a few quick notes, again and again."""
    scale = np.array([0, 2, 4, 7, 9, 12, 14, 16])
    base, step = int(random.integers(60, 84)), float(random.uniform(0.09, 0.28))
    figure = [base + int(random.choice(scale)) for _ in range(int(random.integers(3, 10)))]
    pause = float(random.choice([0.0, 0.3, 1.0])) + step
    length = step * len(figure) + pause
    notes = [
        (again * length + place * step, pitch, step * 1.5)
        for again in range(int(8 / length) + 1)
        for place, pitch in enumerate(figure)
    ]
    return int(random.choice(PHONES)), notes


def played(instrument: int, notes: list[Note], font: Path) -> np.ndarray:
    """float32 [n] at 16 kHz. Raises CalledProcessError where fluidsynth fails."""
    with tempfile.TemporaryDirectory() as folder:
        midi, wave = Path(folder, "tune.mid"), Path(folder, "tune.wav")
        midi.write_bytes(_midi(instrument, notes))
        subprocess.run(
            ["fluidsynth", "-ni", "-q", "-g", "0.7", "-r", "44100", "-F", str(wave), str(font), str(midi)],
            check=True,
            capture_output=True,
        )
        resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
        with av.open(str(wave)) as container:
            pieces = [
                out.to_ndarray().reshape(-1) for frame in container.decode(audio=0) for out in resampler.resample(frame)
            ]
    samples = np.concatenate(pieces).astype(np.float32)
    ends = int((notes[-1][0] + 2.0) * SAMPLE_RATE)
    return samples[:ends]


def _midi(instrument: int, notes: list[Note]) -> bytes:
    """A Standard MIDI File of one track."""
    events = [(0, bytes([0xFF, 0x51, 3]) + (1_000_000).to_bytes(3, "big")), (0, bytes([0xC0, instrument]))]
    for begin, pitch, lasts in notes:
        events.append((round(begin * TICKS), bytes([0x90, pitch, 100])))
        events.append((round((begin + lasts) * TICKS), bytes([0x80, pitch, 0])))
    events.sort(key=lambda event: (event[0], event[1][0] != 0x80 and event[0] > 0))
    track, now = bytearray(), 0
    for at, message in [*events, (events[-1][0] + TICKS, bytes([0xFF, 0x2F, 0]))]:
        track += _variable(at - now) + message
        now = at
    return struct.pack(">4sIHHH", b"MThd", 6, 0, 1, TICKS) + struct.pack(">4sI", b"MTrk", len(track)) + bytes(track)


def _variable(value: int) -> bytes:
    """MIDI's variable-length quantity."""
    found = [value & 0x7F]
    while value := value >> 7:
        found.append(value & 0x7F | 0x80)
    return bytes(reversed(found))
