"""Which pitches stand out, a quarter tone apart: what tells one bell from another of its sort.

Whisper's 80 mel bands are 130 Hz and wider at 3 kHz, where beepers and bells sound; these are 90 Hz there. Each band is
seen against its neighbours (half an octave to both sides), in decibels, so that level, the colour of a room or a
microphone and broad noise drop out, and partials stay. As audio fingerprints do (Wang 2003), but averaged over 0.4 s:
what has no pitch leaves little, and what sounds beside it does not hide it. Pure, numpy alone.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from streamer.events import SAMPLE_RATE

STEP_SAMPLES = 6400  # 0.4 s, as the tagger's taps
TRANSFORM = 1024  # samples under one transform, 64 ms
HOP = 640  # between two, 40 ms
LOWEST_HZ, HIGHEST_HZ = 180.0, 7800.0
BANDS_PER_OCTAVE = 24  # and no band is narrower than one line of the transform
NEIGHBOURS = 12  # bands to either side
RANGE_DB = (-5.0, 25.0)  # of a band over its neighbours
BANDS = 116

Spectrum = NDArray[np.float32]


def fine_spectrum(samples: NDArray[np.float32]) -> Spectrum:
    """Decibels of each band over its neighbours, [steps, BANDS], of float32 samples [n] at 16 kHz.

    Steps are counted from the END of the samples; what is before their beginning counts as silence.
    """
    if len(samples) == 0:
        return np.zeros((0, BANDS), np.float32)
    starts, end, window, against = _tables()
    steps = -(-len(samples) // STEP_SAMPLES)
    padded = np.pad(samples, (steps * STEP_SAMPLES - len(samples) + TRANSFORM - HOP, 0))
    frames = np.lib.stride_tricks.sliding_window_view(padded, TRANSFORM)[::HOP]
    power = np.abs(np.fft.rfft(frames * window, axis=1)[:, :end]).astype(np.float32) ** 2
    loudest = np.maximum.reduceat(power, starts, axis=1)
    decibels = 10 * np.log10(loudest + np.maximum(1e-7 * loudest.max(1, keepdims=True), 1e-10))
    over = np.clip(decibels @ against, *RANGE_DB)
    found: Spectrum = over.reshape(steps, STEP_SAMPLES // HOP, BANDS).mean(1, dtype=np.float32)
    return found


@cache
def _tables() -> tuple[NDArray[np.intp], int, Spectrum, Spectrum]:
    """The first line of each band, the line behind the last, the window, and what takes the neighbours off a row."""
    line_hz = SAMPLE_RATE / TRANSFORM
    edges = [LOWEST_HZ]
    while edges[-1] < HIGHEST_HZ:
        edges.append(max(edges[-1] * 2 ** (1 / BANDS_PER_OCTAVE), edges[-1] + line_hz))
    lines = np.ceil(np.array(edges) / line_hz).astype(np.intp)
    near = np.clip(np.arange(BANDS)[:, None] + np.arange(-NEIGHBOURS, NEIGHBOURS + 1), 0, BANDS - 1)
    against = np.eye(BANDS, dtype=np.float32)
    np.add.at(against, (near, np.arange(BANDS)[:, None]), -1 / near.shape[1])
    return lines[:-1], int(lines[-1]), np.hanning(TRANSFORM).astype(np.float32), against
