"""T3 and T4: the beep patterns of smoke and carbon monoxide alarms (ISO 8201, UL 217, UL 2034)."""

from collections import deque
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from streamer.events import SAMPLE_RATE
from streamer.sound.cadence_state import DOUBTFUL_SCORE, CadenceKind, Pattern
from streamer.sound.overtones import HIGHEST_BIN, lacks_overtones
from streamer.sound.pattern_fit import BLOCK, SPEEDS, Fit, History, Templates, blocks, fit, template, together
from streamer.sound.spectrum import BIN_HZ, FLOOR_DB, FRAME_HOP, FRAME_RATE, FRAME_SAMPLES, Decibels

KEPT_FRAMES = 640  # 10 s
ALARM_TONES_HZ = ((470.0, 565.0), (2600.0, 3800.0))  # 520 Hz and 3.1 kHz, with room for error
T3_SURE_DB = 8.0  # to begin with; while it sounds less is enough
SQUARE_BELOW_HZ = 1000.0  # lower alarm tones are square waves; what is not one is doubtful
T3_PLAIN_DB = 12.5  # from here on a score of 1: music comes near it, and hardly ever there
T3_FRAMES = 480  # 7.7 s
T3_ROTATIONS = (1, 2, 3)  # beeps after the long pause
SLOT = (0.93, 0.57)  # periods of beeps before the first one: where the one before it was, or was not
MISSING_DB, PRESENT_DB, PRESENT_TONE_DB = -8.0, -2.0, 8.0
T4_SETTLED = 1600  # samples after the best fit until it counts
T4_REMEMBERED = 8  # groups that a later one may belong to
T4_BUSY = 0.2  # part of the pause that may be as loud as the beeps (speech)
T4_SURE_DB, T4_PAIR_DB, T4_OTHER_DB = 9.0, 18.0, 20.5  # of one group; of two together, in one bin and in others
T4_ROW_DB, T4_STEADY = 21.0, 0.03  # of three in a row, for rooms that fill the gaps; relative error of their times
T4_EVERY = 2  # frames between looks for a T4 group
T3_TIMEOUT_S = 4.6  # no beep for so long after the last: over (a period is 4 to 4.5 s)
T4_TIMEOUT_S = 8.0  # a period is 5.7 s
T4_PERIOD_S = (5.1, 6.4)
T4_REMINDER_S = 90.0  # after some minutes a CO alarm beeps once a minute: one group is then enough


@dataclass(frozen=True, slots=True)
class _Group:
    """A group of four beeps that was found: samples, how it fits, when, and the one a period `before` it."""

    start: int
    end: int
    fit: Fit
    found: int
    before: "_Group | None" = None


class BeepDetector:
    """T3 and T4 in the bins where smoke and CO alarms sound."""

    def __init__(self) -> None:
        bins = [np.arange(int(low / BIN_HZ), int(high / BIN_HZ) + 1) for low, high in ALARM_TONES_HZ]
        self._bins = np.concatenate(bins)
        self.t3 = Pattern(CadenceKind.T3, T3_TIMEOUT_S)
        self.t4 = Pattern(CadenceKind.T4, T4_TIMEOUT_S)
        self._best: _Group | None = None  # of the groups found within a moment
        self._groups: deque[_Group] = deque(maxlen=T4_REMEMBERED)
        self._t4_tone: tuple[int, int] | None = None  # bin and last sample of the T4 that was sure
        self.patterns = (self.t3, self.t4)
        self.reset()

    def reset(self) -> None:
        """Forget the spectrogram (a gap), not the patterns that sound."""
        self._levels: Decibels = np.full((KEPT_FRAMES, HIGHEST_BIN + 1), FLOOR_DB, np.float32)
        self._tonality: Decibels = np.zeros((KEPT_FRAMES, self._bins.size), np.float32)

    def push(self, levels: Decibels, first_frame: int) -> None:
        """Take frames number `first_frame` and following: float32 [n, 257] dB."""
        around = sum(levels[:, self._bins + step] for step in (-4, -3, 3, 4)) / 4
        wide = np.concatenate([self._levels, levels[:, : HIGHEST_BIN + 1]])
        history = np.take(wide, self._bins, axis=1)
        tones = np.concatenate([self._tonality, levels[:, self._bins] - around])
        for offset in range(levels.shape[0]):
            frame, kept = first_frame + offset, slice(offset + 1, offset + 1 + KEPT_FRAMES)
            now = frame * FRAME_HOP + (FRAME_SAMPLES + FRAME_HOP) // 2
            if frame % T4_EVERY == 0:
                self._look_for_t4(history[kept], tones[kept], now)
            if frame % BLOCK == BLOCK - 1:
                self._look_for_t3(history[kept], tones[kept], wide[kept], now)
            self.t3.tick(now)
            self.t4.tick(now)
        self._levels, self._tonality = wide[levels.shape[0] :], tones[levels.shape[0] :]

    def _look_for_t3(self, recent: Decibels, tones: Decibels, wide: Decibels, now: int) -> None:
        history = History(blocks(recent[-T3_FRAMES:]), blocks(tones[-T3_FRAMES:]), recent)
        found = fit(history, t3_templates())
        if found is not None and not _begins_well(history, found):
            found = None
        if found is not None and (self.t3.onset is not None or found.quality_db >= T3_SURE_DB):
            onset, last = _place(found, now)
            doubtful = self._low(found) and lacks_overtones(wide, self._tone_bin(found), found.choice.on_frames)
            self.t3.confirm(onset, last, DOUBTFUL_SCORE if doubtful else min(1.0, found.quality_db / T3_PLAIN_DB))
        elif self.t3.onset is None:
            group = fit(history, t3_groups())
            if group is not None:
                onset, last = _place(group, now)
                self.t3.propose(onset, last, last + 3 * SAMPLE_RATE)

    def _look_for_t4(self, recent: Decibels, tones: Decibels, now: int) -> None:
        found = fit(History(recent, tones, recent), t4_templates())
        if found is not None:
            group = _Group(*_place(found, now), found, now)
            if self._best is None or group.fit.rank > self._best.fit.rank:
                self._best = group
        if self._best is not None and now - self._best.found >= T4_SETTLED:
            self._take(self._best, recent, now)
            self._best = None

    def _take(self, group: _Group, recent: Decibels, now: int) -> None:
        earlier = [known for known in self._groups if self._a_period_apart(known, group, recent, now)]
        first = next((known for known in earlier if _sure_pair(known, group)), None)
        if first is None:
            first = next((known.before for known in earlier if _sure_row(known, group)), None)
        if first is not None or self._again(group):
            self.t4.confirm((first or group).start, group.end, min(1.0, group.fit.quality_db / 10))
            self._t4_tone = self._tone(group), group.end
        else:
            self.t4.propose(group.start, group.end, group.end + 6 * SAMPLE_RATE)
        self._groups.append(replace(group, before=replace(earlier[-1], before=None) if earlier else None))

    def _again(self, group: _Group) -> bool:
        """Whether it is the tone of a T4 that was sure not long ago."""
        if self._t4_tone is None or (self.t4.onset is None and group.fit.quality_db < T4_SURE_DB):
            return False
        tone, end = self._t4_tone
        return abs(tone - self._tone(group)) <= 1 and group.end - end <= T4_REMINDER_S * SAMPLE_RATE

    def _a_period_apart(self, first: _Group, second: _Group, recent: Decibels, now: int) -> bool:
        """Whether two groups may be a T4's: the right time apart, one tone, and quiet between."""
        apart_s = (second.start - first.start) / SAMPLE_RATE
        if not T4_PERIOD_S[0] <= apart_s <= T4_PERIOD_S[1] or not _same_tone(self._tone(first), self._tone(second)):
            return False
        if first.fit.column == second.fit.column and abs(first.fit.level_db - second.fit.level_db) > 8:
            return False
        between = (group for group in self._groups if first.end < group.start < second.start - SAMPLE_RATE // 4)
        if any(_same_tone(self._tone(group), self._tone(second)) for group in between):
            return False
        ago = [(now - sample) // FRAME_HOP for sample in (first.end + 4000, second.start - 3000)]
        pause = recent[-ago[0] : -ago[1], second.fit.column] - second.fit.level_db
        return bool(np.mean(pause > -4) < T4_BUSY)

    def _tone(self, group: _Group) -> int:
        return self._tone_bin(group.fit)

    def _tone_bin(self, found: Fit) -> int:
        return int(self._bins[found.column])

    def _low(self, found: Fit) -> bool:
        return self._tone_bin(found) * BIN_HZ < SQUARE_BELOW_HZ


def _begins_well(history: History, found: Fit) -> bool:
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


def _sure_pair(first: _Group, second: _Group) -> bool:
    """Whether two groups a period apart are plain enough to be a T4's."""
    least_db = T4_PAIR_DB if first.fit.column == second.fit.column else T4_OTHER_DB
    return first.fit.quality_db + second.fit.quality_db >= least_db


def _sure_row(second: _Group, third: _Group) -> bool:
    """Whether two groups a period apart and the one before them follow one another as evenly as chance does not."""
    first = second.before
    if first is None or sum(group.fit.quality_db for group in (first, second, third)) < T4_ROW_DB:
        return False
    periods = second.start - first.start, third.start - second.start
    return max(periods) <= (1 + T4_STEADY) * min(periods)


def _same_tone(one: int, other: int) -> bool:
    """Whether two bins are of one tone, maybe of different odd harmonics of a square wave."""
    if abs(one - other) <= 2:
        return True
    ratio = max(one, other) / min(one, other)
    return any(abs(ratio / harmonic - 1) <= 0.05 for harmonic in (3, 5, 7))


def _place(found: Fit, now: int) -> tuple[int, int]:
    """First beep's start and last beep's end in samples."""
    return (
        max(0, now - round(found.choice.start_s * SAMPLE_RATE)),
        max(0, now - round(found.choice.end_s * SAMPLE_RATE)),
    )


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


@cache
def t4_templates() -> Templates:
    """One group of four short beeps with silence around it."""
    found = []
    for speed in SPEEDS:
        beeps = [(0.2 * number * speed, (0.2 * number + 0.1) * speed) for number in range(4)]
        found.append(template(beeps, 0.4, 0.3, 0.014, FRAME_RATE))
    return together(found, least_db=6.5, tilt_db=4.0, off_most_db=-3.0, edge_most_db=-6.0, spread_db=2.0)
