"""T4, the four beeps of carbon monoxide alarms (UL 2034): groups by templates, two of them a period apart by a network.

A room fills the 0.1 s between the beeps, speech fills the pause, and what whistles or ticks groups four notes now and
then. So templates only propose groups, and a small network that sees such a group, the stretch of sound a period before
and the pause between decides. It is made by
`streamer train t4` (`streamer.recipes.t4`) and bundled as `data/t4.npz`.
"""

from collections import deque
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

from streamer.events import SAMPLE_RATE
from streamer.sound.patterns.beeps import SPEEDS, Fit, LevelHistory, Templates, fit, template, together
from streamer.sound.patterns.spectrum import ALARM_BANDS, ALARM_BINS, BIN_HZ, FRAME_HOP, FRAME_RATE, Decibels
from streamer.sound.patterns.state import CadenceKind, Pattern

Floats = NDArray[np.float32]

EVERY = 2  # frames between looks
SETTLED = 1600  # samples after the best fit until it counts
GROUP_S = 0.7  # four beeps
GRID_S = np.arange(-14, 43) * 0.025  # after its start: where a group is looked at, 0.35 s before and after it too
PERIOD_S = (5.0, 6.5)
EDGE_S = 0.2  # of the pause, left out
PAUSE_PARTS = 24
INPUTS = 4 * GRID_S.size + 2 * PAUSE_PARTS + 5  # two groups, their levels and tones; the pause; facts
LEVELS_DB, TONES_DB, PAUSE_DB = (-20.0, 6.0), (-5.0, 25.0), (-25.0, 10.0)
SURE, ROW, LIKELY = 5.0, 7.0, 0.0  # log-odds: of two groups; of two such pairs in a row; of a group or pair
KNOWN = 2.0  # log-odds of a single group at the tone of a T4 that was sure: a lone one has 2 to 5
ROW_STEADY = 0.03  # relative error of the times of a row
APART = SAMPLE_RATE  # a group that begins further than so many samples from those of a pair is another one
REMEMBERED = 8
OFF = 0.75  # bins that a tone may lie beside the one where it is found
TIMEOUT_S = 8.0  # a period is 5.7 s
REMINDER_S = 90.0  # after some minutes a CO alarm beeps once a minute: one group is then enough
CANDIDATE_S = 6
LAYERS = ("dense1", "dense2", "dense3")  # of the network


@dataclass(frozen=True, slots=True)
class Group:
    """Four beeps that were found: samples of their start and end, how they fit, when, and in which bins they were."""

    start: int
    end: int
    fit: Fit
    found: int


@dataclass(frozen=True, slots=True)
class Pair:
    """A group, its tone, the sample at which one before it would have begun, and what the network sees of the two."""

    group: Group
    tone_hz: float
    before: int
    inputs: Floats


@dataclass(frozen=True, slots=True)
class Judged:
    """A pair, and the log-odds of its group and of the two."""

    pair: Pair
    group_odds: float
    pair_odds: float


class PairFinder:
    """Groups of four beeps in each of ALARM_BANDS, with the stretch of sound a period before them.

    Of the groups that are found within a moment the one that fits best counts.
    """

    def __init__(self) -> None:
        self._best: list[Group | None] = [None] * len(ALARM_BANDS)

    def look(self, recent: Decibels, tones: Decibels, now: int) -> list[Pair]:
        """Take the latest levels [frames, ALARM_BINS] up to sample `now`, and how far each stands out."""
        pairs = []
        for place, band in enumerate(ALARM_BANDS):
            levels, tonality, best = recent[:, band], tones[:, band], self._best[place]
            found = fit(LevelHistory(levels, tonality, levels), templates())
            if found is not None and (best is None or found.rank > best.fit.rank):
                best = Group(*found.span(now), found, now)
            if best is not None and now - best.found >= SETTLED:
                before, inputs = pair_inputs(best, levels, tonality, now, low=place == 0)
                tone_hz = float(ALARM_BINS[band.start + best.fit.column]) * BIN_HZ
                pairs.append(Pair(best, tone_hz, before, inputs))
                best = None
            self._best[place] = best
        return pairs


class T4Detector:
    """The pattern T4."""

    def __init__(self) -> None:
        self.pattern = Pattern(CadenceKind.T4, TIMEOUT_S)
        self._net: BeepNet = bundled()
        self._tone: tuple[float, int] | None = None  # Hz and last sample of the T4 that was sure
        self.reset()

    def reset(self) -> None:
        """Forget the groups (a gap), not the pattern that sounds."""
        self._finder = PairFinder()
        self._recent: deque[Judged] = deque(maxlen=REMEMBERED)

    def look(self, recent: Decibels, tones: Decibels, now: int) -> None:
        """Take the latest levels [frames, ALARM_BINS] up to sample `now`, and how far each stands out."""
        for pair in self._finder.look(recent, tones, now):
            odds = self._net(pair.inputs)
            self._take(Judged(pair, float(odds[0]), float(odds[1])))

    def _take(self, judged: Judged) -> None:
        group = judged.pair.group
        onset = self._onset(judged)
        if onset is not None:
            self.pattern.confirm(onset, group.end, float(1 / (1 + np.exp(-judged.group_odds))))
            self._tone = judged.pair.tone_hz, group.end
        elif max(judged.group_odds, judged.pair_odds) >= LIKELY:
            self.pattern.propose(group.start, group.end, group.end + CANDIDATE_S * SAMPLE_RATE)
        self._recent.append(judged)

    def _onset(self, judged: Judged) -> int | None:
        """Where the T4 began that this group makes sure, or None."""
        start, before = judged.pair.group.start, judged.pair.before
        if self._too_often(judged):
            return None
        near = ROW_STEADY * (start - before)
        for earlier in self._recent:
            follows = abs(earlier.pair.group.start - before) <= near
            evenly = abs(earlier.pair.group.start - earlier.pair.before - (start - before)) <= near
            alike = _same_tone(earlier.pair.tone_hz, judged.pair.tone_hz)
            if follows and evenly and alike and earlier.pair_odds + judged.pair_odds >= ROW:
                return earlier.pair.before
        if judged.pair_odds >= SURE:
            return before
        return start if self._known(judged) else None

    def _too_often(self, judged: Judged) -> bool:
        """Whether there was such a group in the pause too: a clock or a timer."""
        pause = judged.pair.before + APART, judged.pair.group.start - APART
        return any(
            pause[0] < earlier.pair.group.start < pause[1]
            and earlier.group_odds >= LIKELY
            and _same_tone(earlier.pair.tone_hz, judged.pair.tone_hz)
            for earlier in self._recent
        )

    def _known(self, judged: Judged) -> bool:
        """Whether it is the tone of a T4 that was sure not long ago."""
        if self._tone is None or judged.group_odds < (LIKELY if self.pattern.onset is not None else KNOWN):
            return False
        known_hz, end = self._tone
        return _same_tone(known_hz, judged.pair.tone_hz) and judged.pair.group.end - end <= REMINDER_S * SAMPLE_RATE


def pair_inputs(group: Group, recent: Decibels, tones: Decibels, now: int, *, low: bool) -> tuple[int, Floats]:
    """Where a group before this one would have begun (a sample), and what the network sees of the two and the pause.

    `recent`, `tones` [frames, bins]: levels, and how far they stand above the bins around, up to sample `now`.
    `low`: of the band at 520 Hz.
    """
    level = recent[:, group.fit.column] - np.float32(group.fit.level_db)
    tonal = tones[:, group.fit.column]
    choice = group.fit.choice
    weights = choice.contrast
    last = len(level) - (now - group.found) // FRAME_HOP  # one behind the template's last frame
    lags = np.arange(int(PERIOD_S[0] * FRAME_RATE), int(PERIOD_S[1] * FRAME_RATE))
    windows = np.lib.stride_tricks.sliding_window_view(np.clip(level, -14, 3), weights.size)
    contrasts = windows[last - lags - weights.size] @ weights
    lag = int(lags[contrasts.argmax()])
    speed = (choice.start_s - choice.end_s) / GROUP_S

    def seen(start: float) -> list[Floats]:
        rows = len(level) - 0.5 - (now - start) / FRAME_HOP + GRID_S * speed * FRAME_RATE
        known = np.arange(len(level))
        return [_scaled(np.interp(rows, known, level), LEVELS_DB), _scaled(np.interp(rows, known, tonal), TONES_DB)]

    edge = round(EDGE_S * FRAME_RATE)
    begins = last - round(choice.start_s * FRAME_RATE)
    pause = level[begins - lag + round(GROUP_S * speed * FRAME_RATE) + edge : begins - edge]
    parts = np.array_split(pause, PAUSE_PARTS)
    before = group.start - lag * FRAME_HOP
    facts = [group.fit.quality_db / 10, float(contrasts.max()) / 10, lag / FRAME_RATE - 5.7, (speed - 1) * 10, low]
    inputs = np.concatenate(
        [
            *seen(group.start),
            *seen(before),
            _scaled(np.array([part.mean() for part in parts]), PAUSE_DB),
            _scaled(np.array([part.max() for part in parts]), PAUSE_DB),
            facts,
        ]
    )
    return max(0, before), inputs.astype(np.float32)


def _scaled(values: np.ndarray[tuple[int, ...], np.dtype[np.floating]], limits: tuple[float, float]) -> Floats:
    return np.asarray(np.clip(values, *limits) / 10, np.float32)


def _same_tone(one_hz: float, other_hz: float) -> bool:
    """Whether two bins are of one tone, maybe of different odd harmonics of a square wave."""
    low, high = min(one_hz, other_hz), max(one_hz, other_hz)
    if high - low <= 1.5 * BIN_HZ:
        return True
    return any(abs(high - harmonics * low) <= (harmonics + 1) * BIN_HZ * OFF for harmonics in (5, 7, 7 / 5))


@dataclass(frozen=True, slots=True)
class BeepNet:
    """The network, three dense layers: weights [out, in] and a bias [out] of each. It sees what `pair_inputs` says."""

    layers: tuple[tuple[Floats, Floats], ...]

    def __call__(self, inputs: Floats) -> Floats:
        """Log-odds [2] that the group of beeps is a T4's, and that the one before it is too, of inputs [n]."""
        for weight, bias in self.layers[:-1]:
            inputs = np.maximum(weight @ inputs + bias, 0)
        weight, bias = self.layers[-1]
        found: Floats = weight @ inputs + bias
        return found


@cache
def bundled() -> BeepNet:
    """The network that comes with Streamer."""
    with as_file(files("streamer") / "data" / "t4.npz") as path, np.load(path) as stored:
        return BeepNet(
            tuple(
                (stored[f"{name}.weight"].astype(np.float32), stored[f"{name}.bias"].astype(np.float32))
                for name in LAYERS
            )
        )


@cache
def templates() -> Templates:
    """One group of four short beeps with silence around it, loosely."""
    found = []
    for speed in SPEEDS:
        beeps = [(0.2 * number * speed, (0.2 * number + 0.1) * speed) for number in range(4)]
        found.append(template(beeps, 0.4, 0.3, 0.014, FRAME_RATE))
    return together(
        found,
        least_db=5.0,
        tilt_db=6.0,
        off_most_db=-2.0,
        edge_most_db=-3.5,
        spread_db=3.0,
        dips_most=0.3,
        holes_most=0.12,
    )
