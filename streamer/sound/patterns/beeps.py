"""T3 and T4: the beep patterns of smoke and carbon monoxide alarms (ISO 8201, UL 217, UL 2034)."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from streamer.events import SAMPLE_RATE
from streamer.sound.patterns.fit import BLOCK, SPEEDS, Fit, LevelHistory, Templates, fit, template, together
from streamer.sound.patterns.spectrum import (
    ALARM_BINS,
    BIN_HZ,
    FLOOR_DB,
    FRAME_RATE,
    Decibels,
    alarm_levels,
    known_until,
)
from streamer.sound.patterns.state import DOUBTFUL_SCORE, CadenceKind, Pattern
from streamer.sound.patterns.t4 import EVERY as T4_EVERY
from streamer.sound.patterns.t4 import T4Detector

KEPT_FRAMES = 640  # 10 s
T3_SURE_DB = 8.0  # to begin with; while it sounds less is enough
SQUARE_BELOW_HZ = 1000.0  # lower alarm tones are square waves; what is not one is doubtful
T3_PLAIN_DB = 12.5  # from here on a score of 1: music comes near it, and hardly ever there
T3_FRAMES = 480  # 7.7 s
T3_ROTATIONS = (1, 2, 3)  # beeps after the long pause
SLOT = (0.93, 0.57)  # periods of beeps before the first one: where the one before it was, or was not
MISSING_DB, PRESENT_DB, PRESENT_TONE_DB = -8.0, -2.0, 8.0
T3_TIMEOUT_S = 4.6  # no beep for so long after the last: over (a period is 4 to 4.5 s)

ODD, EVEN = (3, 5, 7), (2, 4)
BINS_OFF = 0.6  # so far the tone may lie from its bin's middle
HIGHEST_BIN = 132  # 4.1 kHz: the seventh of the highest tone
SHOWN_DB = 5.0  # an overtone that comes and goes with the beeps, more than even ones do
TELLING = 2  # so many that would show are needed to miss them


class BeepDetector:
    """T3 and T4 in the bins where smoke and CO alarms sound."""

    def __init__(self) -> None:
        self.t3 = Pattern(CadenceKind.T3, T3_TIMEOUT_S)
        self._t4 = T4Detector()
        self.patterns = (self.t3, self._t4.pattern)
        self.reset()

    def reset(self) -> None:
        """Forget the spectrogram (a gap), not the patterns that sound."""
        self._levels: Decibels = np.full((KEPT_FRAMES, HIGHEST_BIN + 1), FLOOR_DB, np.float32)
        self._tonality: Decibels = np.zeros((KEPT_FRAMES, ALARM_BINS.size), np.float32)
        self._blocks: Decibels = np.full((T3_FRAMES // BLOCK, ALARM_BINS.size), FLOOR_DB, np.float32)
        self._tone_blocks: Decibels = np.zeros_like(self._blocks)
        self._t4.reset()

    def push(self, levels: Decibels, first_frame: int) -> None:
        """Take frames number `first_frame` and following: float32 [n, 257] dB."""
        _, tonality = alarm_levels(levels)
        wide = np.concatenate([self._levels, levels[:, : HIGHEST_BIN + 1]])
        history = np.take(wide, ALARM_BINS, axis=1)
        tones = np.concatenate([self._tonality, tonality])
        for offset in range(levels.shape[0]):
            frame, kept = first_frame + offset, slice(offset + 1, offset + 1 + KEPT_FRAMES)
            now = known_until(frame)
            if frame % T4_EVERY == 0:
                self._t4.look(history[kept], tones[kept], now)
            if frame % BLOCK == BLOCK - 1:
                self._look_for_t3(history[kept], tones[kept], wide[kept], now)
            self.t3.tick(now)
            self._t4.pattern.tick(now)
        self._levels, self._tonality = wide[levels.shape[0] :], tones[levels.shape[0] :]

    def _look_for_t3(self, recent: Decibels, tones: Decibels, wide: Decibels, now: int) -> None:
        self._blocks = np.concatenate([self._blocks[1:], recent[-BLOCK:].mean(axis=0, keepdims=True)])
        self._tone_blocks = np.concatenate([self._tone_blocks[1:], tones[-BLOCK:].mean(axis=0, keepdims=True)])
        history = LevelHistory(self._blocks, self._tone_blocks, recent)
        found = fit(history, t3_templates())
        if found is not None and not _begins_well(history, found):
            found = None
        if found is not None and (self.t3.onset is not None or found.quality_db >= T3_SURE_DB):
            onset, last = _place(found, now)
            doubtful = _low(found) and lacks_overtones(wide, _tone_bin(found), found.choice.on_frames)
            self.t3.confirm(onset, last, DOUBTFUL_SCORE if doubtful else min(1.0, found.quality_db / T3_PLAIN_DB))
        elif self.t3.onset is None:
            group = fit(history, t3_groups())
            if group is not None:
                onset, last = _place(group, now)
                self.t3.propose(onset, last, last + 3 * SAMPLE_RATE)


def _begins_well(history: LevelHistory, found: Fit) -> bool:
    """Whether what comes before four beeps with a pause among them agrees with groups of three.

    Where the pause comes after three, no beep may come before them; otherwise one must, at least masked: groups of two
    or four are music or a timer.
    """
    place = next(index for index, choice in enumerate(t3_templates().each) if choice is found.choice)
    speed, rotation = SPEEDS[place // (2 * len(T3_ROTATIONS))], T3_ROTATIONS[place % len(T3_ROTATIONS)]
    ago = [round((found.choice.start_s + part * speed) * FRAME_RATE / BLOCK) for part in SLOT]
    slot = slice(-ago[0], -ago[1])
    level = float(np.mean(np.clip(history.levels[slot, found.column] - found.level_db, -14, 3)))
    if rotation > 1:
        return level >= MISSING_DB
    return level < PRESENT_DB or float(np.mean(history.tonality[slot, found.column])) < PRESENT_TONE_DB


def _tone_bin(found: Fit) -> int:
    return int(ALARM_BINS[found.column])


def _low(found: Fit) -> bool:
    return _tone_bin(found) * BIN_HZ < SQUARE_BELOW_HZ


def _place(found: Fit, now: int) -> tuple[int, int]:
    """First beep's start and last beep's end in samples."""
    return (
        max(0, now - round(found.choice.start_s * SAMPLE_RATE)),
        max(0, now - round(found.choice.end_s * SAMPLE_RATE)),
    )


def lacks_overtones(levels: Decibels, tone: int, on: NDArray[np.bool_]) -> bool:
    """Whether beeps in bin `tone` are no square wave: odd overtones that other sounds would not bury do not show.

    `levels`: the latest frames [n, more than 7 * tone + 4 bins] in dB; `on` [m <= n]: which of the last m are beeps.
    """
    recent = levels[-on.size :]
    beeps, pauses = recent[on].mean(axis=0), recent[~on].mean(axis=0)

    def bins(harmonic: int) -> slice:
        return slice(round((tone - BINS_OFF) * harmonic), round((tone + BINS_OFF) * harmonic) + 1)

    def shown_db(harmonic: int) -> float:
        return float((beeps - pauses)[bins(harmonic)].max())

    expected = [(odd, float(beeps[tone]) - 20 * np.log10(odd)) for odd in ODD]  # of a square wave
    would_show = [odd for odd, level in expected if level - float(pauses[bins(odd)].mean()) >= SHOWN_DB]
    if len(would_show) < TELLING:
        return False
    even_db = max(0.0, float(np.mean([shown_db(even) for even in EVEN])))
    return float(np.median([shown_db(odd) for odd in would_show])) - even_db < SHOWN_DB


@cache
def t3_templates() -> Templates:
    """Four beeps in a row with one long pause among them, in every order, so that a masked beep costs a second only."""
    found = []
    for speed in SPEEDS:
        for pause in (1.5, 2.0):
            for rotation in T3_ROTATIONS:
                gaps = [0.5, 0.5, 0.5]
                gaps[3 - rotation] = pause
                starts = np.concatenate([[0.0], np.cumsum([0.5 + gap for gap in gaps])]) * speed
                beeps = [(float(start), float(start + 0.5 * speed)) for start in starts]
                found.append(template(beeps, 0.35 * speed, 0.16, 0.07, FRAME_RATE / BLOCK))
    return together(found, least_db=6.0, tilt_db=2.5, off_most_db=-4.0, edge_most_db=-4.0, spread_db=1.3)


@cache
def t3_groups() -> Templates:
    """One group of three beeps and the first part of the long pause: a candidate, unless a beep follows sooner."""
    found = []
    for speed in SPEEDS:
        beeps = [(number * speed, (number + 0.5) * speed) for number in range(3)]
        found.append(template(beeps, 0.35 * speed, 0.8, 0.07, FRAME_RATE / BLOCK))
    return together(found, least_db=6.0, tilt_db=2.5, off_most_db=-4.0, edge_most_db=-8.0, spread_db=1.3)
