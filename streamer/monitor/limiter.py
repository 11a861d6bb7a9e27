"""The last thing before the ear: no sample is ever above the limit. It cannot be switched off.

A gain that falls over the look-ahead before a peak and rises again at a constant number of dB a second; both ears share
it, so that a sound stays where it is. Whatever rounding or broken input leaves is cut: that is the guarantee.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

LOOK_AHEAD_S: Final = 0.001
RELEASE_DB_S: Final = 150.0


class Limiter:
    """Keeps every sample of [channels, n] within ±`limit`; the sound comes out LOOK_AHEAD_S later."""

    def __init__(self, rate: int, channels: int, limit: float) -> None:
        """`limit`: largest sample, above 0 and at most 1."""
        if not 0 < limit <= 1:
            raise ValueError(f"limit: must be above 0 and at most 1; is {limit}")
        self.limit = limit
        self.delay = max(1, round(rate * LOOK_AHEAD_S))  # samples
        self._channels, self._slope = channels, RELEASE_DB_S / rate  # dB each sample
        self.reset()

    def reset(self) -> None:
        """As if nothing had sounded."""
        self._held = np.zeros((self._channels, self.delay))  # what is still to come out
        self._released = np.zeros(self.delay)  # dB that these ask for, after release
        self._least = np.zeros(self.delay)  # the least of each window before them
        self._works = False  # whether either asks for anything

    @property
    def reduction_db(self) -> float:
        """By how much it turns down what came last; 0 or more."""
        return -float(self._released[-1])

    def step(self, samples: NDArray[np.float64]) -> NDArray[np.float64]:
        """[channels, n] in, as many out."""
        count = samples.shape[1]
        peak = np.maximum(samples.max(axis=0), -samples.min(axis=0))
        loudest = peak.max(initial=0.0)
        if not np.isfinite(loudest):
            return self.step(np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0))
        line = np.concatenate([self._held, samples], axis=1)
        out, self._held = line[:, :count], line[:, count:]
        if loudest > self.limit or self._works:
            out = out * self._gains(peak)
            self._works = bool(self._released.any() or self._least.any())
        within: NDArray[np.float64] = out.clip(-self.limit, self.limit)
        return within

    def _gains(self, peak: NDArray[np.float64]) -> NDArray[np.float64]:
        """The factor of each sample that comes out now; `peak` [n]: the largest of the samples that came in."""
        wanted = np.minimum(0.0, -20 * np.log10(np.maximum(peak / self.limit, 1e-9)))
        # r[i] = min(wanted[i], r[i-1] + slope) is a running minimum once the line is tilted by the slope.
        tilt = self._slope * np.arange(1, len(peak) + 1)
        released = np.minimum.accumulate(np.minimum(wanted - tilt, self._released[-1])) + tilt
        released = np.concatenate([self._released, released])
        # The least of each window of look-ahead, then the mean of these: every one of them covers the sample itself.
        window = self.delay + 1
        least = np.lib.stride_tricks.sliding_window_view(released, window).min(axis=1)
        least = np.concatenate([self._least, least])
        self._released, self._least = released[-self.delay :], least[-self.delay :]
        decibels = np.convolve(least, np.full(window, 1 / window), mode="valid")
        factors: NDArray[np.float64] = 10 ** (decibels / 20)
        return factors
