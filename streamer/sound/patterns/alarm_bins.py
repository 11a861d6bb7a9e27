"""The bins of the spectrogram in which smoke and CO alarms sound: about 520 Hz (square waves) and 3.1 kHz."""

from itertools import pairwise

import numpy as np

from streamer.sound.patterns.spectrum import BIN_HZ, Decibels

TONES_HZ = ((470.0, 565.0), (2600.0, 3800.0))  # with room for error
_bands = [np.arange(int(low / BIN_HZ), int(high / BIN_HZ) + 1) for low, high in TONES_HZ]
BINS = np.concatenate(_bands)  # columns of what `alarm_levels` gives
BANDS = tuple(slice(int(first), int(end)) for first, end in pairwise(np.cumsum([0, *map(len, _bands)])))
AROUND = (-4, -3, 3, 4)  # bins that a tone stands above


def alarm_levels(levels: Decibels) -> tuple[Decibels, Decibels]:
    """Of frames [n, 257] in dB: the levels in BINS [n, BINS], and how far each stands above the bins around."""
    around = sum(levels[:, BINS + step] for step in AROUND) / len(AROUND)
    own = levels[:, BINS]
    return own, own - around
