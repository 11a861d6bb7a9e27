"""Gain in bands that depends on how loud each is: the filter bank, and one compressor for each ear behind it.

Six bands of an octave and more, split by Linkwitz-Riley filters of fourth order (two Butterworth filters in a row,
Linkwitz: Active crossover networks for noncoincident drivers, JAES 1976). What a band did not pass through on its way
is made up for by all-pass filters, so that bands of the same gain add up to a flat response, and no band comes later
than by its own filters: about 1 ms at 500 Hz, less above.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

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
_FADED: Final = 8192  # samples after which nothing is left of an impulse, up to 192 kHz


class FilterBank:
    """Splits one channel into bands, in blocks of a fixed size.

    All bands are one linear system: their filters have the same double poles, so 4 states for each crossover drive
    them all (the real Jordan form). A block is worked on in `_parts` of `_size` samples: what each adds to the states,
    the states before each, and what comes out, are three products of matrices that are made here, once. That takes
    16 us of one thread for 240 samples, where one call of a filter after the other took 150.
    """

    def __init__(self, rate: int, block: int) -> None:
        """`block`: samples of each step."""
        self._crossovers_hz = [hz for hz in CROSSOVERS_HZ if hz < 0.45 * rate]
        self.edges_hz = np.array([20.0, *self._crossovers_hz, min(12_000.0, rate / 2)])
        self.centres_hz = np.array(CENTRES_HZ[: len(self._crossovers_hz) + 1])
        states = 4 * len(self._crossovers_hz)
        self._size = min(
            (size for size in range(1, block + 1) if block % size == 0),
            key=lambda size: block * (size + states) * len(self) + (states * block // size) ** 2,
        )
        self._parts, self._block = block // self._size, block
        change, entry, out, direct = self._system(rate)
        powers = [np.eye(states)]  # what becomes of the states after 0, 1, … samples
        for _ in range(self._size):
            powers.append(change @ powers[-1])
        steps = [power @ entry for power in powers]  # what a sample leaves in them so much later
        self._entries = np.array(steps[self._size - 1 :: -1])  # [size, states]
        # Row by row: the states before each part, from those at first and what each part added.
        whole = [np.linalg.matrix_power(powers[-1], count) for count in range(self._parts + 1)]
        nothing = np.zeros((states, states))
        rows = range(self._parts + 1)
        self._carry = np.block([[whole[row - part] if part <= row else nothing for part in rows] for row in rows])
        # What comes out of sample i of a part: of sample j of it, and of the states before it.
        answers = np.array([direct, *(out @ step for step in steps[: self._size - 1])])
        later = np.arange(self._size) - np.arange(self._size)[:, None]  # [j, i]
        of_samples = np.where((later >= 0)[..., None], answers[np.maximum(later, 0)], 0.0)  # [j, i, bands]
        of_states = np.stack([(out @ power).T for power in powers[: self._size]], axis=1)  # [states, i, bands]
        both = np.concatenate([of_samples, of_states]).transpose(0, 2, 1)
        self._outs = np.ascontiguousarray(both.reshape(self._size + states, -1))
        self._given = np.zeros((self._parts, self._size + states))  # each part's samples and the states before it
        self._added = np.zeros((self._parts + 1, states))
        self.reset()

    def __len__(self) -> int:
        return len(self.centres_hz)

    def reset(self) -> None:
        """As if nothing had sounded."""
        self._states = np.zeros(self._added.shape[1])

    def step(self, samples: NDArray[np.float64]) -> NDArray[np.float64]:
        """One block [n] in, [bands, n] out."""
        parts = samples.reshape(self._parts, self._size)
        self._added[0] = self._states
        np.matmul(parts, self._entries, out=self._added[1:])
        states = (self._carry @ self._added.reshape(-1)).reshape(self._added.shape)
        self._states = states[-1]
        self._given[:, : self._size] = parts
        self._given[:, self._size :] = states[:-1]
        out = (self._given @ self._outs).reshape(self._parts, len(self), self._size)
        bands: NDArray[np.float64] = out.transpose(1, 0, 2).reshape(len(self), self._block)
        return bands

    def response(self, at_hz: NDArray[np.float64], rate: int) -> NDArray[np.complex128]:
        """What each band makes of a tone of these frequencies: complex [bands, frequencies].

        The lowest band is split off first; each is passed through what the crossovers above it add up to.
        """
        later = np.exp(-2j * np.pi * np.asarray(at_hz) / rate)  # one sample
        low, high, through = [], [], []
        for one in self._crossovers_hz:
            a, scale = _butterworth(one, rate)
            bottom = a[0] + a[1] * later + a[2] * later**2
            low.append((scale * (1 + later) ** 2 / bottom) ** 2)
            high.append(((1 - a[1] + a[2]) / 4 * (1 - later) ** 2 / bottom) ** 2)
            through.append((a[2] + a[1] * later + a[0] * later**2) / bottom)
        rest, out = np.ones(len(later), np.complex128), []
        for band in range(len(low)):
            out.append(rest * low[band] * np.prod(through[band + 1 :], axis=0))
            rest = rest * high[band]
        return np.stack([*out, rest])

    def _system(self, rate: int) -> tuple[NDArray[np.float64], ...]:
        """States' change by a sample [states, states], what a sample enters there [states], and what of the states
        [bands, states] and of the sample itself [bands] each band is.
        """
        count = len(self._crossovers_hz)
        change, entry = np.zeros((4 * count, 4 * count)), np.zeros(4 * count)
        for place, one in enumerate(self._crossovers_hz):
            a, _ = _butterworth(one, rate)
            pole = -a[1] / 2 + 1j * np.sqrt(a[2] - a[1] ** 2 / 4)
            turn = np.array([[pole.real, -pole.imag], [pole.imag, pole.real]])
            at, scale = 4 * place, 1 - abs(pole)
            change[at : at + 2, at : at + 2] = change[at + 2 : at + 4, at + 2 : at + 4] = turn
            change[at + 2 : at + 4, at : at + 2] = scale * np.eye(2)
            entry[at] = scale
        # The impulse responses of the bands as sums of those of the states.
        at_hz = np.arange(_FADED + 1) * rate / (2 * _FADED)
        answers = np.fft.irfft(self.response(at_hz, rate))[:, :_FADED]
        states = np.zeros((_FADED - 1, 4 * count))
        states[0] = entry
        for row in range(1, len(states)):
            states[row] = change @ states[row - 1]
        out = np.linalg.lstsq(states, answers[:, 1:].T, rcond=None)[0].T
        return change, entry, out.astype(np.float64), answers[:, 0]


def _butterworth(hz: float, rate: int) -> tuple[NDArray[np.float64], float]:
    """The denominator of second order of both filters that part at `hz`, and what the low one's (1 + z)^2 is times.

    By the bilinear transform, as everywhere.
    """
    warped = np.tan(np.pi * hz / rate)
    whole = 1 + np.sqrt(2) * warped + warped**2
    a = np.array([1.0, 2 * (warped**2 - 1) / whole, (1 - np.sqrt(2) * warped + warped**2) / whole])
    return a, float(warped**2 / whole)


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
