"""Whether two tones took turns, as those of a hi-lo siren do.

A hi-lo that begins is one steady tone for half a second, and so is the first beep of a smoke alarm at 520 Hz: the
network for sirens cannot tell them apart, and need not.
"""

import numpy as np
from numpy.typing import NDArray

from streamer.sound.patterns.siren_net import BANDS, STEP_FRAMES, contrast_db
from streamer.sound.patterns.spectrum import Decibels

LOOKED_AT = 31  # steps of 32 ms: the last second
LOWEST_BANDS = 20  # up to 1.1 kHz, where the tones of a hi-lo are; overtones lie higher
APART = range(2, 9)  # bands of 6 %: from a tone to more than a fourth
TONE_DB = 5.0  # above the neighbours
OTHER_DB = 4.0  # more than the other tone at the same time
LEAST_STEPS = 6  # each was heard for 0.2 s at a stretch


def took_turns(levels: Decibels) -> bool:
    """Whether two tones were heard in turn lately: levels of bands [frames, BANDS] in dB, the latest last."""
    latest = levels[-LOOKED_AT * STEP_FRAMES :].reshape(-1, STEP_FRAMES, BANDS).max(axis=1)
    above = contrast_db(latest)[:, :LOWEST_BANDS]
    for apart in APART:
        low, high = above[:, :-apart], above[:, apart:]
        lows, highs = (
            _longest((one > TONE_DB) & (one > other + OTHER_DB)) for one, other in ((low, high), (high, low))
        )
        if np.minimum(lows, highs).max() >= LEAST_STEPS:
            return True
    return False


def _longest(heard: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The longest run of True in each column of [steps, columns]."""
    steps = np.arange(1, len(heard) + 1)[:, None]
    since = np.maximum.accumulate(np.where(heard, 0, steps), axis=0)
    longest: NDArray[np.int64] = (steps - since).max(axis=0)
    return longest
