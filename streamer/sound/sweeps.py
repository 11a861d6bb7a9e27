"""Sirens in the signal itself: wail (`streamer.sound.wail`), yelp and hi-lo.

Yelp: the spectrogram repeats itself every 0.24 to 0.4 s and changes all the time in between. Hi-lo: two tones in turn,
that is two bins that fit complementary templates.
"""

from collections import deque
from dataclasses import dataclass
from functools import cache

import numpy as np

from streamer.events import SAMPLE_RATE
from streamer.sound.cadence_state import IRREGULAR_SCORE, REGULAR_SCORE, SIGN_SCORE, CadenceKind, Pattern
from streamer.sound.pattern_fit import BLOCK, SPEEDS, Fit, History, Templates, blocks, fit, template, together
from streamer.sound.spectrum import BIN_HZ, FLOOR_DB, FRAME_HOP, FRAME_RATE, FRAME_SAMPLES, Decibels
from streamer.sound.wail import LINE_FRAMES, WailDetector

KEPT_FRAMES = 128  # 2 s
LOOK_FRAMES = 8  # 128 ms
SIREN_TIMEOUT_S = 2.2  # not seen for so long: over
LOWEST_DB, HIGHEST_DB = -3.0, 18.0  # tonality is clipped to this

YELP_FRAMES = 80  # 1.28 s
YELP_LAGS = (13, 30)  # frames: 0.21 to 0.48 s; 150 to 250 a minute with room for error
YELP_LEAST = 0.36  # correlation one cycle apart
YELP_CONTRAST = 0.16  # so much more than a moment apart, and than half a cycle apart
YELP_PLACES = 7  # bins that are the strongest at some time in two cycles: a warble has two
YELP_LOOKS = 3  # of the last 4

HILO_HZ = (390.0, 660.0)
HILO_APART = (3, 7)  # bins between the two tones: about 435 and 580 Hz
HILO_AFTER_S = 0.25  # of the next tone
HILO_LEVELS_DB = 8.0  # between the two tones
HILO_STEP = (5_600, 11_200)  # samples from one tone's turn to the other's: it needs both
HILO_ROW = 4  # so many turns in a row, each in time, cannot be chance


@dataclass(frozen=True, slots=True)
class _Turn:
    """A hi-lo's turn: when it was found, its tone's bin, how many in a row with those before."""

    at: int
    tone: int
    row: int


class SweepDetector:
    """Wail, yelp and hi-lo."""

    def __init__(self) -> None:
        self.wail = WailDetector(Pattern(CadenceKind.WAIL, SIREN_TIMEOUT_S), LOOK_FRAMES)
        self.yelp = Pattern(CadenceKind.YELP, SIREN_TIMEOUT_S)
        self.hilo = Pattern(CadenceKind.HILO, SIREN_TIMEOUT_S)
        self.patterns = (self.wail.pattern, self.yelp, self.hilo)
        self._low_bins = np.arange(int(HILO_HZ[0] / BIN_HZ), int(HILO_HZ[1] / BIN_HZ) + 1)
        self._yelps: deque[bool] = deque(maxlen=4)
        self._hilos: deque[_Turn] = deque(maxlen=16)
        self.reset()

    def reset(self) -> None:
        """Forget the spectrogram (a gap), not the patterns that sound."""
        self._levels: Decibels = np.full((KEPT_FRAMES, self._low_bins.size), FLOOR_DB, np.float32)
        self._low_tones: Decibels = np.zeros_like(self._levels)
        self._tones: Decibels = np.full((KEPT_FRAMES, self.wail.bins.size), LOWEST_DB, np.float32)
        self._wide: Decibels = np.zeros_like(self._tones)
        self._siren_levels: Decibels = np.full((LINE_FRAMES, self.wail.bins.size), FLOOR_DB, np.float32)
        self.wail.reset()
        self._yelps.clear()

    def push(self, levels: Decibels, first_frame: int) -> None:
        """Take frames number `first_frame` and following: float32 [n, 257] dB."""
        tones = np.clip(_tonality(levels, self.wail.bins, 3), LOWEST_DB, HIGHEST_DB)
        wide = np.clip(_tonality(levels, self.wail.bins, 5) - 3, 0, 10)
        tones, wide = np.concatenate([self._tones, tones]), np.concatenate([self._wide, wide])
        low = np.concatenate([self._levels, levels[:, self._low_bins]])
        siren_levels = np.concatenate([self._siren_levels, levels[:, self.wail.bins]])
        low_tones = np.concatenate([self._low_tones, _tonality(levels, self._low_bins, 3)])
        for offset in range(1, levels.shape[0] + 1):
            frame, end = first_frame + offset - 1, offset + KEPT_FRAMES
            now = frame * FRAME_HOP + (FRAME_SAMPLES + FRAME_HOP) // 2
            if frame % LOOK_FRAMES == 0:
                self.wail.look(tones[end - LINE_FRAMES : end], siren_levels[offset : offset + LINE_FRAMES], now)
                self._look_for_yelp(wide[end - YELP_FRAMES : end], now)
            if frame % BLOCK == BLOCK - 1:
                kept = slice(end - KEPT_FRAMES, end)
                self._look_for_hilo(History(blocks(low[kept]), blocks(low_tones[kept]), low[kept]), now)
            for pattern in self.patterns:
                pattern.tick(now)
        count = levels.shape[0]
        self._tones, self._wide, self._levels, self._low_tones = (
            kept[count:] for kept in (tones, wide, low, low_tones)
        )
        self._siren_levels = siren_levels[count:]

    def _look_for_yelp(self, wide: Decibels, now: int) -> None:
        wide = np.maximum(wide - wide.mean(axis=0), 0)  # steady tones go
        rows = wide / (np.sqrt(np.sum(wide**2, axis=1, keepdims=True)) + 3)
        spectrum = np.fft.rfft(rows, 2 * YELP_FRAMES, axis=0)
        power = np.sum(spectrum.real**2 + spectrum.imag**2, axis=1)
        alike = np.fft.irfft(power)[: YELP_LAGS[1] + 1] / (YELP_FRAMES - np.arange(YELP_LAGS[1] + 1))
        lag = YELP_LAGS[0] + int(np.argmax(alike[YELP_LAGS[0] : YELP_LAGS[1]]))
        between = float(alike[6 : max(7, round(0.7 * lag))].max())
        contrast = float(alike[lag]) - max(between, float(alike[4]))
        places = np.unique(rows[-2 * lag :].argmax(axis=1)).size
        self._yelps.append(bool(alike[lag] >= YELP_LEAST and contrast >= YELP_CONTRAST and places >= YELP_PLACES))
        if not self._yelps[-1]:
            return
        onset = max(0, now - YELP_FRAMES * FRAME_HOP)
        if sum(self._yelps) >= YELP_LOOKS:
            self.yelp.confirm(onset, now, min(1.0, 0.5 + contrast))
        elif self.yelp.onset is None:
            self.yelp.propose(onset, now, now + FRAME_SAMPLES * 16)

    def _look_for_hilo(self, history: History, now: int) -> None:
        found = fit(history, hilo_templates())
        other = None if found is None else _answer(history, found)
        if found is not None and other is not None:
            onset = max(0, now - round(found.choice.start_s * SAMPLE_RATE))
            swapped = [turn for turn in self._hilos if HILO_STEP[0] <= now - turn.at <= HILO_STEP[1]]
            row = 1 + max((turn.row for turn in swapped if abs(turn.tone - other) <= 1), default=0)
            if self.hilo.onset is not None or row > 1:
                first = min([onset, *(turn.at - now + onset for turn in swapped)])
                score = REGULAR_SCORE if row >= HILO_ROW else min(IRREGULAR_SCORE, found.quality_db / 10)
                self.hilo.confirm(max(0, first), now, score)
            else:
                self.hilo.propose(onset, now, now + SAMPLE_RATE)
            self._hilos.append(_Turn(now, found.column, row))
        elif self.hilo.onset is None:
            found = fit(history, hilo_starts())
            if found is not None and _answer(history, found) is not None:
                onset = max(0, now - round(found.choice.start_s * SAMPLE_RATE))
                self.hilo.propose(onset, now, now + SAMPLE_RATE, SIGN_SCORE)


def _answer(history: History, found: Fit) -> int | None:
    """The bin of another tone, a third to a half of an octave away, that sounds steadily where the found one pauses."""
    weights, on = found.choice.weights, found.choice.on
    recent = history.levels[-weights.shape[1] :]
    for column in range(recent.shape[1]):
        if not HILO_APART[0] <= abs(column - found.column) <= HILO_APART[1]:
            continue
        means = weights @ recent[:, column]
        level = float(np.median(means[~on]))
        means = weights @ np.clip(recent[:, column] - level, -14, 3)
        tones = weights[~on] @ history.tonality[-weights.shape[1] :, column]
        steady = means[~on].min() >= -4 and np.std(means[~on]) <= 2.5 and tones.min() >= 2
        if steady and means[on].max() <= -4 and abs(level - found.level_db) <= HILO_LEVELS_DB:
            return column
    return None


@cache
def hilo_templates() -> Templates:
    """One of the tones twice, the other one between and after."""
    found = []
    for speed in SPEEDS:
        half = 0.5 * speed
        found.append(template([(0.0, half), (2 * half, 3 * half)], 0.0, HILO_AFTER_S, 0.07, FRAME_RATE / BLOCK))
    return together(found, least_db=6.5, tilt_db=2.5, off_most_db=-4.0, edge_most_db=-4.0, spread_db=2.0)


@cache
def hilo_starts() -> Templates:
    """One of the tones once, the other one before and after: a candidate."""
    found = [template([(0.0, 0.5 * speed)], 0.4 * speed, HILO_AFTER_S, 0.07, FRAME_RATE / BLOCK) for speed in SPEEDS]
    return together(found, least_db=6.5, tilt_db=2.5, off_most_db=-4.0, edge_most_db=-4.0, spread_db=2.0)


def _tonality(levels: Decibels, bins: np.ndarray[tuple[int], np.dtype[np.int_]], apart: int) -> Decibels:
    """How far each of the bins stands above those `apart` and one more away from it, in dB."""
    around = sum(levels[:, bins + step] for step in (-apart - 1, -apart, apart, apart + 1)) / 4
    found: Decibels = (levels[:, bins] - around).astype(np.float32)
    return found
