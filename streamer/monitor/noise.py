"""Noise reduction that adds no delay: spectral gains with a floor, applied as a short minimum-phase filter in time.

The spectrum is only looked at on the side (Löllmann & Vary: Uniform and warped low delay filter-banks for speech
enhancement, Speech Communication 49, 2007): every 10 ms the last samples tell the noise (Gerkmann & Hendriks: Unbiased
MMSE-based noise power estimation with low complexity and low tracking delay, IEEE TASLP 20(4), 2012) and the a-priori
SNR (Ephraim & Malah, IEEE TASSP 32(6), 1984, decision-directed); the Wiener gains, never below the floor, become a
filter of minimum phase, from one to the next by a cross-fade over one block.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.monitor.past import Past

WINDOW_S: Final = 0.0107
MAX_DEPTH_DB: Final = 15.0  # more makes speech sound hollow
_SPEECH_SNR: Final = 10**1.5  # 15 dB: what speech is taken to have where it is there
_SETTLE_LOOKS: Final = 20  # the first so many looks are taken for noise


class NoiseReducer:
    """One channel. `depth_db` may change with every block: 0 leaves the sound as it is."""

    def __init__(self, rate: int, block: int) -> None:
        """`block`: samples of each step."""
        self._size = 1 << round(np.log2(rate * WINDOW_S))
        self._every = max(1, round(0.01 * rate / block))  # blocks between two looks at the spectrum
        self._window = np.hanning(self._size + 1)[:-1]
        self._taps = self._size // 2
        self._taper = np.concatenate([np.ones(self._taps // 2), np.hanning(self._taps + 2)[self._taps // 2 + 1 : -1]])
        self._fade = np.linspace(0.0, 1.0, block, endpoint=False)
        self._past = Past(max(self._size, block + self._taps - 1))
        self._fold = np.concatenate([[1.0], np.full(self._size // 2 - 1, 2.0), [1.0], np.zeros(self._size // 2 - 1)])
        self.reset()

    def reset(self) -> None:
        """As if nothing had sounded."""
        bins = self._size // 2 + 1
        self._past.reset()
        self._noise = np.zeros(bins)
        self._presence, self._speech = np.zeros(bins), np.zeros(bins)
        self._looks = self._blocks = 0
        self._filter = np.zeros(self._taps)
        self._filter[0] = 1.0
        self._flat = True  # whether the filter leaves everything as it is

    def step(self, samples: NDArray[np.float64], depth_db: float) -> NDArray[np.float64]:
        """One block [n]; noise comes out up to `depth_db` softer."""
        self._past.push(samples)
        before, flat = self._filter, self._flat
        self._blocks += 1
        if self._blocks % self._every == 0:
            self._flat = depth_db <= 0
            gains = self._look(10 ** (-min(max(depth_db, 0.0), MAX_DEPTH_DB) / 20))
            self._filter = self._minimum_phase(gains)
        if flat and self._flat:
            return samples
        needed = self._past.last(len(samples) + self._taps - 1)
        out = np.convolve(needed, self._filter, mode="valid")
        if before is not self._filter:
            old = np.convolve(needed, before, mode="valid")
            out = old + self._fade * (out - old)
        return out

    def _look(self, floor: float) -> NDArray[np.float64]:
        """The gain of each bin, from what sounds now."""
        spectrum = np.fft.rfft(self._past.last(self._size) * self._window)
        power = spectrum.real**2 + spectrum.imag**2 + 1e-12
        if self._looks < _SETTLE_LOOKS:
            self._looks += 1
            self._noise += (power - self._noise) / self._looks
        ratio = power / self._noise
        seen = 1 / (1 + (1 + _SPEECH_SNR) * np.exp(-np.minimum(ratio, 200.0) * _SPEECH_SNR / (1 + _SPEECH_SNR)))
        self._presence = 0.9 * self._presence + 0.1 * seen
        seen = np.where(self._presence > 0.99, np.minimum(seen, 0.99), seen)  # else it could stand still for ever
        self._noise = 0.8 * self._noise + 0.2 * (seen * self._noise + (1 - seen) * power)
        prior = 0.94 * self._speech / self._noise + 0.06 * np.maximum(power / self._noise - 1, 0.0)
        gains = np.maximum(prior / (1 + prior), floor)
        self._speech = gains**2 * power
        return gains

    def _minimum_phase(self, gains: NDArray[np.float64]) -> NDArray[np.float64]:
        """The filter [taps] of these gains: the cepstrum of their logarithm, folded to its causal half."""
        response: NDArray[np.float64]
        if self._flat:
            response = np.zeros(self._taps)
            response[0] = 1.0
            return response
        cepstrum = np.fft.irfft(np.log(gains)) * self._fold
        response = np.fft.irfft(np.exp(np.fft.rfft(cepstrum)))[: self._taps] * self._taper
        return response
