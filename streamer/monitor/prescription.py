"""How much gain an audiogram asks for, by published rules. Levels are of speech in dB SPL, gains in dB.

- Gain for speech at 65 dB: NAL-R. Byrne & Dillon: The National Acoustic Laboratories' (NAL) new procedure for selecting
  the gain and frequency response of a hearing aid. Ear and Hearing 7(4), 1986.
- How much of the range is compressed: FIG6. Killion & Fikret-Pasa: The 3 types of sensorineural hearing loss: loudness
  and intelligibility considerations. The Hearing Journal 46(11), 1993.
- How loud speech is in each band: Byrne et al.: An international comparison of long-term average speech spectra.
  Journal of the Acoustical Society of America 96(4), 1994, both sexes.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.monitor.audiogram import Audiogram

SPEECH_DB: Final = 65.0  # overall level of the speech that the prescription is for
MAX_RATIO: Final = 3.0  # more blurs the difference between syllables (Dillon: Hearing Aids, 2012, chapter 6)
_NAL_R_HZ: Final = (250, 500, 750, 1000, 1500, 2000, 3000, 4000, 6000, 8000)
_NAL_R_DB: Final = (-17.0, -8.0, -3.0, 1.0, 1.0, -1.0, -2.0, -2.0, -2.0, -2.0)  # 8 kHz: as 6 kHz, the rule ends there

# Third octaves of speech of 70 dB: Hz, dB SPL.
_SPEECH_70: Final = (
    *((63, 38.6), (80, 43.5), (100, 54.4), (125, 57.7), (160, 56.8), (200, 60.2), (250, 60.3), (315, 59.0)),
    *((400, 62.1), (500, 62.1), (630, 60.5), (800, 56.8), (1000, 53.7), (1250, 53.0), (1600, 52.0), (2000, 48.7)),
    *((2500, 48.1), (3150, 46.8), (4000, 45.6), (5000, 44.5), (6300, 44.3), (8000, 43.7), (10000, 43.4)),
)


def insertion_gain(audiogram: Audiogram, ear: int, at_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """NAL-R's gain of one ear at these frequencies for speech of 65 dB SPL; never less than none.

    X = 0.05 (H500 + H1000 + H2000), gain = X + 0.31 H + k. Where everything is normal nothing is amplified.
    """
    three = audiogram.ear(ear, np.array([500.0, 1000.0, 2000.0]))
    constant = np.interp(np.log2(at_hz), np.log2(_NAL_R_HZ), _NAL_R_DB)
    gain = 0.05 * float(three.sum()) + 0.31 * audiogram.ear(ear, at_hz) + constant
    return np.maximum(gain, 0.0)


def compression_ratio(hearing_level: NDArray[np.float64]) -> NDArray[np.float64]:
    """dB of speech in for each dB out, between 1 and MAX_RATIO: FIG6's gains for 40 and for 95 dB, 55 dB apart."""
    loss = np.asarray(hearing_level, np.float64)
    soft = np.maximum(loss - 20, 0) - 0.5 * np.maximum(loss - 60, 0)
    loud = 0.1 * np.maximum(loss - 40, 0) ** 1.4
    ratio: NDArray[np.float64] = np.clip(55.0 / np.maximum(55.0 - (soft - loud), 1.0), 1.0, MAX_RATIO)
    return ratio


def speech_levels(edges_hz: NDArray[np.float64], level_db: float = SPEECH_DB) -> NDArray[np.float64]:
    """Level of average speech of `level_db` in each of the bands between these edges [bands + 1], dB SPL [bands]."""
    hz = np.array([one for one, _ in _SPEECH_70], np.float64)
    power = 10 ** (np.array([one for _, one in _SPEECH_70]) / 10)
    inside = (hz >= edges_hz[:-1, None]) & (hz < edges_hz[1:, None])
    levels: NDArray[np.float64] = 10 * np.log10(np.maximum(inside @ power, 1e-3)) + level_db - 70.0
    return levels
