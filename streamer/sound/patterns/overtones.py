"""Whether beeps are a square wave, as the tone of 520 Hz alarms is (UL 217, NFPA 72): odd overtones and no even ones.

Notes of music that are held like beeps have both, or none.
"""

import numpy as np
from numpy.typing import NDArray

from streamer.sound.patterns.spectrum import Decibels

ODD, EVEN = (3, 5, 7), (2, 4)
BINS_OFF = 0.6  # so far the tone may lie from its bin's middle
HIGHEST_BIN = 132  # 4.1 kHz: the seventh of the highest tone
SHOWN_DB = 5.0  # an overtone that comes and goes with the beeps, more than even ones do
TELLING = 2  # so many that would show are needed to miss them


def lacks_overtones(levels: Decibels, tone: int, on: NDArray[np.bool_]) -> bool:
    """Whether beeps in bin `tone` are no square wave: odd overtones that other sounds would not bury do not show.

    `levels`: the latest frames [n, more than 7 * tone + 4 bins] in dB; `on` [m <= n]: which of the last m are beeps.
    """
    recent = levels[-on.size :]
    beeps, pauses = recent[on].mean(axis=0), recent[~on].mean(axis=0)

    def bins(harmonic: int) -> slice:
        return slice(round((tone - BINS_OFF) * harmonic), round((tone + BINS_OFF) * harmonic) + 1)

    def shown_db(harmonic: int) -> float:
        return float((beeps - pauses)[bins(harmonic)].max())

    expected = [(odd, float(beeps[tone]) - 20 * np.log10(odd)) for odd in ODD]  # of a square wave
    would_show = [odd for odd, level in expected if level - float(pauses[bins(odd)].mean()) >= SHOWN_DB]
    if len(would_show) < TELLING:
        return False
    even_db = max(0.0, float(np.mean([shown_db(even) for even in EVEN])))
    return float(np.median([shown_db(odd) for odd in would_show])) - even_db < SHOWN_DB
