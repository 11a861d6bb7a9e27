"""Wail: slow siren sweeps, followed as lines in the spectrogram (time against log frequency).

Every 128 ms the strongest straight lines of the last 0.26 s are found. Lines that continue one another, or turn back
where the last one ended, make a chain. A chain is a wail when it went up and came down again (or the other way round)
by about the same interval, on a smooth course, without resting on a note: what whistles and melodies do is rest.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from streamer.sound.cadence_state import IRREGULAR_SCORE, REGULAR_SCORE, Pattern
from streamer.sound.spectrum import BIN_HZ, FRAME_HOP, FRAME_RATE, Decibels

LOW_HZ, HIGH_HZ = 500.0, 2300.0
LINE_FRAMES = 16  # 0.26 s
LINE_SAMPLES = LINE_FRAMES * FRAME_HOP
GRID_OCTAVES = 0.06  # between the ends of the lines that are tried
SLOPES = np.arange(-12, 13) * 0.25  # octaves a second
LINES = 3  # the strongest per look
APART_OCTAVES = 0.2
STRENGTH_WEIGHT = 0.02  # octaves of error that a dB more outweighs
LINE_DB = 6.0  # a line stands so far above its surroundings, and a chain of them so far:
CHAIN_DB = 9.0
FOLLOW_OCTAVES, FOLLOW_SLOPE, TURN_OCTAVES = 0.13, 1.3, 0.2  # how lines may continue one another
MISSES = 3  # looks without a line that a chain outlives
KEPT_LOOKS = 72  # 9 s
RESTING = 0.25  # octaves a second: slower is a note
REVERSAL_OCTAVES = 0.3
SWEEP_LOOKS = (4, 36)  # 0.5 to 4.6 s from one turn to the next
CYCLE_LOOKS = 14  # 1.8 s up and down: no more than 30 a minute, and slower than two beats of music
MOVING, MOVING_LEAST = 0.65, 0.5  # part of the looks
RHYTHM = 1.5  # sweeps in the same direction take about the same time
LOPSIDED = 2.6  # up and down are so differently fast at most
ALIKE = 1.3  # sweeps of one siren are so much alike
CANDIDATE_LOOKS, CANDIDATE_SAMPLES = 4, 6400
RECENT = 12  # looks: 1.5 s
REGULAR_TURNS, REGULAR_OCTAVES, REGULAR_EXTENT = 4, 0.15, 0.7
LASTING_DB, LASTING_OCTAVES, SEEN = 11.0, 0.3, 0.75  # what keeps a wail going
QUIETER_DB = 12.0  # what is so much quieter than a wail a moment ago is another sound: a siren fades as it drives away,
FADING_DB = 0.5  # so much a look (4 dB a second) at most


@dataclass(frozen=True, slots=True)
class Demand:
    """How plain so many sweeps in a row must be: octaves of each and of the complete ones, dB, part of the looks that
    show them, error, looks of each.
    """

    sweeps: int
    extent: float
    whole_extent: float
    strength_db: float
    seen: float
    error: float
    looks: int = SWEEP_LOOKS[0]


@dataclass(frozen=True, slots=True)
class Glide:
    """One smooth sweep over so many looks: octaves, dB, error. Whistlers and melodies reach the next note sooner."""

    looks: int
    extent: float
    strength_db: float
    error: float


GLIDES = (Glide(looks=9, extent=0.5, strength_db=12.0, error=0.08), Glide(10, 0.45, 11.0, 0.1))
ONE_WAY = 0.8  # part of a glide's looks that move its way
THREE_SWEEPS = Demand(sweeps=3, extent=0.55, whole_extent=0.65, strength_db=10.0, seen=0.65, error=0.12)
TWO_SWEEPS = Demand(sweeps=2, extent=0.6, whole_extent=0.8, strength_db=14.5, seen=0.8, error=0.085)
SLOW_SWEEPS = Demand(sweeps=2, extent=0.7, whole_extent=0.7, strength_db=11.0, seen=0.7, error=0.06, looks=7)


@dataclass(frozen=True, slots=True)
class Line:
    """A straight sweep over the last LINE_FRAMES: its end in octaves above LOW_HZ, octaves a second, dB.

    `strength_db`: above its surroundings; `level_db`: 0 is a full-scale sine.
    """

    end: float
    slope: float
    strength_db: float
    level_db: float


@dataclass(slots=True)
class Chain:
    """Lines that continue one another; `looks` counts time, one entry per look in which it was seen."""

    start: int  # sample where the first line begins
    last: int = 0
    missed: int = 0
    looks: list[int] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    def distance(self, line: Line, look_s: float) -> float | None:
        """How badly a line continues the chain, in octaves; None: not at all."""
        before = self.lines[-1]
        expected = before.end + (before.slope + line.slope) / 2 * look_s * (1 + self.missed)
        error = abs(line.end - expected)
        if error <= FOLLOW_OCTAVES + 0.04 * self.missed and abs(line.slope - before.slope) <= FOLLOW_SLOPE:
            return error
        turn = abs(line.end - before.end)
        if line.slope * before.slope < 0 and turn <= TURN_OCTAVES + 0.1 * self.missed:
            return turn / 2
        return None

    def add(self, look: int, line: Line, now: int) -> None:
        """Continue with a line."""
        self.looks, self.lines = [*self.looks[1 - KEPT_LOOKS :], look], [*self.lines[1 - KEPT_LOOKS :], line]
        self.last, self.missed = now, 0


def apart(one: Line, other: Line) -> bool:
    """Whether two lines neither meet nor cross: a line that touches a stronger one is only its skirt."""
    now = one.end - other.end
    before = now - (one.slope - other.slope) * LINE_FRAMES / FRAME_RATE
    return now * before > 0 and min(abs(now), abs(before)) > APART_OCTAVES


class LineFinder:
    """The strongest lines in the tonality of the last frames."""

    def __init__(self) -> None:
        first, span = int(LOW_HZ / BIN_HZ), float(np.log2(HIGH_HZ / LOW_HZ))
        self.bins = np.arange(first, int(HIGH_HZ / BIN_HZ) + 2)
        ends = np.arange(0.0, span, GRID_OCTAVES)
        ago_s = np.arange(LINE_FRAMES)[::-1] / FRAME_RATE
        octaves = ends[:, None, None] - SLOPES[None, :, None] * ago_s  # [ends, slopes, frames]
        inside = ((octaves >= -0.02) & (octaves <= span + 0.02)).all(axis=2)
        paths = np.clip(np.round(LOW_HZ * 2 ** octaves[inside] / BIN_HZ).astype(np.intp) - first, 0, self.bins.size - 1)
        which = np.argwhere(inside)
        self._ends, self._slopes = ends[which[:, 0]], SLOPES[which[:, 1]]
        self._flat = paths + np.arange(LINE_FRAMES) * self.bins.size

    def find(self, tonality: Decibels, levels: Decibels) -> list[Line]:
        """Up to LINES lines in `tonality` and `levels` [LINE_FRAMES, bins], strongest first, apart from one another."""
        strength = np.take(tonality, self._flat).mean(axis=1)
        found: list[Line] = []
        for index in np.argsort(strength)[:-60:-1]:
            if strength[index] < LINE_DB or len(found) == LINES:
                break
            level = float(np.take(levels, self._flat[index]).mean())
            line = Line(float(self._ends[index]), float(self._slopes[index]), float(strength[index]), level)
            if all(apart(line, other) for other in found):
                found.append(line)
        return found


class WailDetector:
    """Chains of lines, and whether one of them is a wail."""

    def __init__(self, pattern: Pattern, look_frames: int) -> None:
        self.pattern = pattern
        self._look_s = look_frames / FRAME_RATE
        self._finder = LineFinder()
        self.bins = self._finder.bins
        self._chains: list[Chain] = []
        self._look = 0
        self._level_db = 0.0  # of the wail that sounds

    def reset(self) -> None:
        """Forget the chains (a gap)."""
        self._chains.clear()

    def look(self, tonality: Decibels, levels: Decibels, now: int) -> None:
        """Take the clipped tonality and the levels of the last frames [LINE_FRAMES, bins]."""
        self._look += 1
        self._follow(self._finder.find(tonality, levels), now)
        for chain in self._chains:
            if chain.missed == 0 and len(chain.lines) >= CANDIDATE_LOOKS:
                self._judge(chain)

    def _follow(self, lines: list[Line], now: int) -> None:
        pairs = [
            (error - STRENGTH_WEIGHT * line.strength_db - 0.001 * len(chain.lines), place, number)
            for place, chain in enumerate(self._chains)
            for number, line in enumerate(lines)
            if (error := chain.distance(line, self._look_s)) is not None
        ]
        taken: dict[int, int] = {}  # line: chain
        for _, place, number in sorted(pairs):
            if number not in taken and place not in taken.values():
                taken[number] = place
        for number, place in taken.items():
            self._chains[place].add(self._look, lines[number], now)
        for place, chain in enumerate(self._chains):
            if place not in taken.values():
                chain.missed += 1
        free = [line for number, line in enumerate(lines) if number not in taken]
        self._chains = [chain for chain in self._chains if chain.missed <= MISSES]
        for line in free:
            chain = Chain(max(0, now - LINE_SAMPLES))
            chain.add(self._look, line, now)
            self._chains.append(chain)

    def _judge(self, chain: Chain) -> None:
        course = Course.of(chain)
        recent = course.part(max(0, len(course.ends) - RECENT), len(course.ends))
        if recent.strength_db < CHAIN_DB or recent.moving < MOVING_LEAST:
            return
        extent = float(np.ptp(recent.ends))
        if self.pattern.onset is not None:
            plain = recent.strength_db >= LASTING_DB and recent.seen >= SEEN and recent.moving >= MOVING
            if plain and extent >= LASTING_OCTAVES and recent.level_db > self._level_db - QUIETER_DB:
                known = self.pattern.score >= REGULAR_SCORE  # said once, it stays
                regular = known or is_regular(course) or is_slow(course)
                self.pattern.confirm(chain.start, chain.last, REGULAR_SCORE if regular else 0.0)
                self._level_db = max(recent.level_db, self._level_db - FADING_DB)
            return
        if is_slow(course):
            self._confirm(chain, recent, REGULAR_SCORE)
        elif is_wail(course):
            self._confirm(chain, recent, min(IRREGULAR_SCORE, recent.strength_db / 15))
        elif any(is_glide(course, wanted) for wanted in GLIDES):
            self.pattern.propose(chain.start, chain.last, chain.last + CANDIDATE_SAMPLES)

    def _confirm(self, chain: Chain, recent: "Course", score: float) -> None:
        self.pattern.confirm(chain.start, chain.last, score)
        self._level_db = recent.level_db


@dataclass(frozen=True, slots=True)
class Course:
    """A chain as arrays: times in looks, ends in octaves, slopes in octaves a second, strengths and levels in dB."""

    looks: NDArray[np.int_]
    ends: NDArray[np.float64]
    slopes: NDArray[np.float64]
    strengths: NDArray[np.float64]
    levels: NDArray[np.float64]

    @classmethod
    def of(cls, chain: Chain) -> "Course":
        """The course of a chain."""
        lines = np.array([(line.end, line.slope, line.strength_db, line.level_db) for line in chain.lines])
        return cls(np.array(chain.looks), lines[:, 0], lines[:, 1], lines[:, 2], lines[:, 3])

    def part(self, first: int, last: int) -> "Course":
        """Entries `first` to `last` (exclusive)."""
        kept = slice(first, last)
        return Course(self.looks[kept], self.ends[kept], self.slopes[kept], self.strengths[kept], self.levels[kept])

    @property
    def strength_db(self) -> float:
        """Mean strength."""
        return float(np.mean(self.strengths))

    @property
    def level_db(self) -> float:
        """Mean level."""
        return float(np.mean(self.levels))

    @property
    def moving(self) -> float:
        """Part of the looks in which it does not rest."""
        return float(np.mean(np.abs(self.slopes) >= RESTING))

    @property
    def seen(self) -> float:
        """Part of the looks in which a line was found."""
        return len(self.looks) / float(self.looks[-1] - self.looks[0] + 1)

    @property
    def error(self) -> float:
        """RMS distance from a straight or half-cosine course between its ends, as a part of its extent."""
        time = (self.looks - self.looks[0]) / max(self.looks[-1] - self.looks[0], 1)
        way = (self.ends - self.ends[0]) / ((self.ends[-1] - self.ends[0]) or 1.0)
        half_cosine = 0.5 - 0.5 * np.cos(np.pi * time)
        shapes = (time, half_cosine, (time + half_cosine) / 2)
        return min(float(np.sqrt(np.mean((way - shape) ** 2))) for shape in shapes)


def is_glide(course: Course, wanted: Glide) -> bool:
    """Whether a course ends in one smooth sweep that went on for long enough to be part of a wail."""
    if len(course.ends) < wanted.looks:
        return False
    part = course.part(len(course.ends) - wanted.looks, len(course.ends))
    extent = float(part.ends[-1] - part.ends[0])
    return bool(
        part.looks[-1] - part.looks[0] <= wanted.looks
        and abs(extent) >= wanted.extent
        and part.strength_db >= wanted.strength_db
        and np.mean(part.slopes * np.sign(extent) >= RESTING) >= ONE_WAY
        and part.error <= wanted.error
    )


def is_wail(course: Course) -> bool:
    """Whether a course shows three sweeps of a siren in a row, or two that leave no doubt; the last may be going on."""
    turns = turning_points(course.ends)
    return _sweeps(course, turns, THREE_SWEEPS) or _sweeps(course, turns, TWO_SWEEPS)


def is_slow(course: Course) -> bool:
    """Whether it glides so far, slowly and smoothly up and down again as notes that follow one another never do."""
    return _sweeps(course, turning_points(course.ends), SLOW_SWEEPS)


def is_regular(course: Course) -> bool:
    """Whether two whole cycles in a row turned at the same pitches: a siren's do, those of a voice or a lead hardly."""
    turns = course.ends[turning_points(course.ends)[:-1]]  # the last one may be going on
    for first in range(len(turns) - REGULAR_TURNS + 1):
        some = turns[first : first + REGULAR_TURNS]
        alike = np.abs(some[2:] - some[:-2]).max() <= REGULAR_OCTAVES
        if alike and np.abs(np.diff(some)).min() >= REGULAR_EXTENT:
            return True
    return False


def _sweeps(course: Course, turns: list[int], wanted: Demand) -> bool:
    if len(turns) <= wanted.sweeps:
        return False
    turns = turns[-wanted.sweeps - 1 :]
    whole = course.part(turns[0], turns[-1] + 1)
    if whole.strength_db < wanted.strength_db or whole.seen < wanted.seen or whole.moving < MOVING:
        return False
    sweeps = [course.part(first, last + 1) for first, last in pairwise(turns)]
    extents = [abs(float(sweep.ends[-1] - sweep.ends[0])) for sweep in sweeps]
    lengths = [int(sweep.looks[-1] - sweep.looks[0]) for sweep in sweeps]
    if min(extents) < wanted.extent or max(extents[:-1]) < wanted.whole_extent:
        return False
    if max(extents[:-1]) > ALIKE * min(extents[:-1]) or extents[-1] > ALIKE * extents[-2]:
        return False
    if min(lengths) < wanted.looks or max(lengths) > SWEEP_LOOKS[1]:
        return False
    if any(one + other < CYCLE_LOOKS for one, other in pairwise(lengths)):
        return False
    rates = [extent / length for extent, length in zip(extents, lengths, strict=True)]
    if any(max(pair) > LOPSIDED * min(pair) for pair in pairwise(rates)):
        return False
    if any(max(pair) > RHYTHM * min(pair) for pair in zip(lengths, lengths[2:], strict=False)):
        return False
    return max(sweep.error for sweep in sweeps) <= wanted.error


def turning_points(ends: NDArray[np.float64]) -> list[int]:
    """Indices of the turns of a course: every extreme that it left by REVERSAL_OCTAVES, and the furthest since."""
    high = low = direction = 0
    turns: list[int] = []
    for index, end in enumerate(ends):
        if direction >= 0 and end >= ends[high]:
            high = index
        if direction <= 0 and end <= ends[low]:
            low = index
        if direction >= 0 and ends[high] - end >= REVERSAL_OCTAVES:
            turns.append(high)
            direction, low = -1, index
        elif direction <= 0 and end - ends[low] >= REVERSAL_OCTAVES:
            turns.append(low)
            direction, high = 1, index
    return [*turns, high if direction > 0 else low] if turns else []
