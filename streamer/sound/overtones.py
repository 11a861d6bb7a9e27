"""Whether beeps are a square wave, as the tone of 520 Hz alarms is (UL 217, NFPA 72): odd overtones and no even ones.

Notes of music that are held like beeps have both, or none.
"""

import numpy as np
from numpy.typing import NDArray

from streamer.sound.spectrum import Decibels

ODD, EVEN = (3, 5, 7), (2, 4)
BINS_OFF = 0.6  # so far the tone may lie from its bin's middle
HIGHEST_BIN = 132  # 4.1 kHz: the seventh of the highest tone


def square_db(levels: Decibels, tone: int, on: NDArray[np.bool_]) -> float:
    """How much more the odd overtones of bin `tone` come and go with the beeps than the even ones do, in dB.

    `levels`: the latest frames [n, more than 7 * tone + 4 bins] in dB; `on` [m <= n]: which of the last m are beeps.
    The median of the odd ones counts, so that one that other sounds mask does no harm.
    """
    recent = levels[-on.size :]
    contrast = recent[on].mean(axis=0) - recent[~on].mean(axis=0)

    def shown(harmonic: int) -> float:
        first, last = (round((tone + off) * harmonic) for off in (-BINS_OFF, BINS_OFF))
        return float(contrast[first : last + 1].max())

    return float(np.median([shown(odd) for odd in ODD])) - max(0.0, float(np.mean([shown(even) for even in EVEN])))
