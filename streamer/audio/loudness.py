"""How loud samples are."""

import numpy as np
from numpy.typing import NDArray

SILENCE_DBFS = -120.0  # what digital silence counts as


def dbfs(samples: NDArray[np.float32]) -> float:
    """RMS level of float32 [n] in dB relative to a full-scale square wave, -120 to 0 (above 0 only for |x| > 1)."""
    if samples.size == 0:
        return SILENCE_DBFS
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return max(SILENCE_DBFS, 10.0 * float(np.log10(max(power, 1e-30))))
