"""Gain in bands that depends on how loud each is: the filter bank, and one compressor for each ear behind it.

Six bands of an octave and more, split by Linkwitz-Riley filters of fourth order (two Butterworth filters in a row,
Linkwitz: Active crossover networks for noncoincident drivers, JAES 1976). What a band did not pass through on its way
is made up for by all-pass filters, so that bands of the same gain add up to a flat response, and no band comes later
than by its own filters: about 1 ms at 500 Hz, less above.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, freqz, lfilter

from streamer.monitor.audiogram import Audiogram
from streamer.monitor.prescription import SPEECH_DB, compression_ratio, insertion_gain, speech_levels

EARS: Final = 2
CROSSOVERS_HZ: Final = (354.0, 707.0, 1414.0, 2828.0, 5657.0)
CENTRES_HZ: Final = (250.0, 500.0, 1000.0, 2000.0, 4000.0, 6800.0)
FIT_HZ: Final = np.array([250.0, 500.0, 1000.0, 1500.0, 2000.0, 3000.0, 4000.0, 6000.0])
_EMPHASIS: Final = np.array([1.0, 1.0, 1.0, 0.7, 1.0, 0.7, 1.0, 1.0])  # those between two bands may be further off

# Syllabic compression with a low knee, as in Dillon: Hearing Aids, 2012, chapter 6.
ATTACK_S: Final = 0.005
RELEASE_S: Final = 0.1
SPAN_DB: Final = 30.0  # from soft speech (50 dB SPL) to loud (80)
MOST_TAKEN_BACK: Final = 0.8  # dB of each dB in one band; where neighbours overlap their sum takes back less
KNEE_DB: Final = 45.0  # overall level of speech below which the gain grows no more
HUSH_DB: Final = 28.0  # below this the gain falls again: it would only amplify the microphone's own noise
MAX_HUSH_DB: Final = 12.0
MAX_GAIN_DB: Final = 45.0
SILENCE_DB: Final = -40.0  # dB SPL, what digital silence counts as


class FilterBank:
    """Splits one channel into bands, each with the state of its filters.

    `lfilter` in double precision: what `sosfilt` makes of these filters to -140 dB, at half the cost for blocks as
    short as these (65 and 140 us of one thread for 240 samples), most of which is the call.
    """

    def __init__(self, rate: int) -> None:
        crossovers = [hz for hz in CROSSOVERS_HZ if hz < 0.45 * rate]
        self.edges_hz = np.array([20.0, *crossovers, min(12_000.0, rate / 2)])
        self.centres_hz = np.array(CENTRES_HZ[: len(crossovers) + 1])
        low = [_Filter(*butter(2, hz, "lowpass", fs=rate)) for hz in crossovers]
        high = [_Filter(*butter(2, hz, "highpass", fs=rate)) for hz in crossovers]
        passes = [_Filter(one.a[::-1], one.a) for one in low]  # the all-pass that such a pair adds up to
        self._low, self._high = [one @ one for one in low], [one @ one for one in high]
        self._made_up = [reduce(_Filter.__matmul__, passes[band + 1 :]) for band in range(len(crossovers) - 1)]
        self.reset()

    def __len__(self) -> int:
        return len(self.centres_hz)

    def reset(self) -> None:
        """As if nothing had sounded."""
        for one in (*self._low, *self._high, *self._made_up):
            one.reset()

    def step(self, samples: NDArray[np.float64]) -> NDArray[np.float64]:
        """[n] in, [bands, n] out: the lowest band is split off first."""
        out = np.empty((len(self), len(samples)))
        rest = samples
        for band, (low, high) in enumerate(zip(self._low, self._high, strict=True)):
            split = low.step(rest)
            out[band] = self._made_up[band].step(split) if band < len(self._made_up) else split
            rest = high.step(rest)
        out[-1] = rest
        return out

    def response(self, at_hz: NDArray[np.float64], rate: int) -> NDArray[np.complex128]:
        """What each band makes of a tone of these frequencies: complex [bands, frequencies]."""
        out, rest = np.empty((len(self), len(at_hz)), np.complex128), np.ones(len(at_hz), np.complex128)
        for band, (low, high) in enumerate(zip(self._low, self._high, strict=True)):
            out[band] = rest * low.response(at_hz, rate)
            if band < len(self._made_up):
                out[band] *= self._made_up[band].response(at_hz, rate)
            rest = rest * high.response(at_hz, rate)
        out[-1] = rest
        return out


class _Filter:
    """One recursive filter and its state. `one @ other`: both in a row, as one."""

    def __init__(self, b: NDArray[np.float64], a: NDArray[np.float64]) -> None:
        self.b, self.a = b, a
        self.reset()

    def __matmul__(self, other: "_Filter") -> "_Filter":
        return _Filter(np.convolve(self.b, other.b), np.convolve(self.a, other.a))

    def reset(self) -> None:
        self._state = np.zeros(len(self.a) - 1)

    def step(self, samples: NDArray[np.float64]) -> NDArray[np.float64]:
        out: NDArray[np.float64]
        out, self._state = lfilter(self.b, self.a, samples, zi=self._state)
        return out

    def response(self, at_hz: NDArray[np.float64], rate: int) -> NDArray[np.complex128]:
        found: NDArray[np.complex128] = freqz(self.b, self.a, at_hz, fs=rate)[1]
        return found


@dataclass(frozen=True, slots=True)
class Fit:
    """What both ears are given in each band [ears, bands]: gain at the level that average speech of 65 dB SPL has in
    that band, what share of each further dB is taken back (1 - 1 / ratio), and that level [bands].
    """

    gain_db: NDArray[np.float64]
    taken_back: NDArray[np.float64]
    speech_db: NDArray[np.float64]

    def gain(self, level_db: NDArray[np.float64], compression: float = 1.0) -> NDArray[np.float64]:
        """Gain in dB [ears, bands] of bands at these levels [bands], dB SPL. `compression`: 1 as prescribed, 0 none."""
        knee, hush = self.speech_db + KNEE_DB - SPEECH_DB, self.speech_db + HUSH_DB - SPEECH_DB
        squeezed = self.gain_db + compression * self.taken_back * (self.speech_db - np.maximum(level_db, knee))
        hushed = np.clip(hush - level_db, 0.0, MAX_HUSH_DB)
        wanted: NDArray[np.float64] = np.minimum(squeezed, MAX_GAIN_DB) - hushed
        return wanted


def fit(audiogram: Audiogram, bank: FilterBank, rate: int) -> Fit:
    """The prescription, left and right."""
    ears = [_fit_ear(audiogram, ear, bank, rate) for ear in range(EARS)]
    gains, taken_back = (np.stack(part) for part in zip(*ears, strict=True))
    return Fit(gains, taken_back, speech_levels(bank.edges_hz))


def _fit_ear(
    audiogram: Audiogram, ear: int, bank: FilterBank, rate: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gain and what is taken back in each band, so that the sum is right for soft, middle and loud speech."""
    at_hz = FIT_HZ[0.45 * rate > FIT_HZ]
    response = bank.response(at_hz, rate)
    middle = insertion_gain(audiogram, ear, at_hz)
    change = (1 - 1 / compression_ratio(audiogram.ear(ear, at_hz))) * SPAN_DB / 2
    soft, loud = _matched(middle + change, response), _matched(middle - change, response)
    return _matched(middle, response), np.clip((soft - loud) / SPAN_DB, 0.0, MOST_TAKEN_BACK)


def _matched(wanted_db: NDArray[np.float64], response: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Gains of bands whose sum comes as near as it can to what is wanted at the frequencies of `response`.

    Neighbours overlap, so a steep audiogram needs bands that differ more than its own points do: each is moved by what
    is missing where it counts, until nothing is (a few rounds; more only chase rounding).
    """
    share = np.abs(response) ** 2
    share /= share.sum(axis=1, keepdims=True)
    emphasis = _EMPHASIS[: len(wanted_db)]
    gains = share @ wanted_db
    best, least = gains, np.inf
    for _ in range(60):
        error = wanted_db - 20 * np.log10(np.abs((10 ** (gains / 20)) @ response) + 1e-9)
        error *= emphasis
        if (worst := float(np.abs(error).max())) < least:
            best, least = gains, worst
        gains = np.clip(gains + 0.5 * (share @ error), -20.0, MAX_GAIN_DB)
    return best


class Levels:
    """The level of each band, in dB SPL, as the compressor sees it: quick to rise, slow to fall."""

    def __init__(self, bands: int, block_s: float, full_scale_db: float) -> None:
        """`full_scale_db`: dB SPL of a signal of 0 dBFS (RMS)."""
        self._up, self._down = (1 - np.exp(-block_s / time_s) for time_s in (ATTACK_S, RELEASE_S))
        self._full_scale_db, self._bands = full_scale_db, bands
        self.reset()

    def reset(self) -> None:
        """As if nothing had sounded."""
        self.now = np.full(self._bands, SILENCE_DB)

    def step(self, bands: NDArray[np.float64]) -> NDArray[np.float64]:
        """One block of all bands [bands, n]; the levels behind it."""
        power = np.einsum("bn,bn->b", bands, bands) / bands.shape[1]
        level = np.maximum(10 * np.log10(power + 1e-20) + self._full_scale_db, SILENCE_DB)
        self.now = self.now + np.where(level > self.now, self._up, self._down) * (level - self.now)
        return self.now
