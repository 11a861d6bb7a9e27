"""T3, the three beeps of smoke alarms (ISO 8201, UL 217), and the templates by which T3 and T4 are found.

A template is a row of segments, on or off, compared with the levels of a few bins. What tells an alarm in loud speech
from the speech itself: in every `on` segment the level is the same and never lower, in every `off` segment it is mostly
much lower. Speech on top of an `off` is forgiven, a segment that is `on` where it should be off (a reversing beeper in
the long pause) is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from streamer.events import SAMPLE_RATE
from streamer.sound.patterns.spectrum import ALARM_BINS, BIN_HZ, FLOOR_DB, FRAME_RATE, Decibels
from streamer.sound.patterns.state import DOUBTFUL_SCORE, CadenceKind, Pattern

SPEEDS = (0.93, 0.965, 1.0, 1.035, 1.07)
PIECE_S = 0.45  # length of the pieces that a pause is judged in
BLOCK = 4  # slow patterns are judged on means of 4 frames: 64 ms
JUDGED_COLUMNS = 4  # bins with the strongest contrast
LOWEST_DB, HIGHEST_DB = 14.0, 3.0  # levels count from 14 dB below to 3 dB above that of the beeps
ON_LEAST_DB = -4.0  # the mean of each beep
DIP_DB, HOLE_DB = 5.0, 12.0  # few frames of the beeps may lie so far below their level
WIDEST = 12.0  # no need to look closer where the beeps lie further apart than so many times their spread
TONE_LEAST_DB, TONE_MEAN_DB = 2.0, 4.0  # each beep, and all of them, above the bins around

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


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a template in seconds before its end, on or off; what lies between segments does not matter."""

    start_s: float
    end_s: float
    on: bool


@dataclass(frozen=True, slots=True)
class Template:
    """Rows of weights that average each segment: float32 [segments, frames]; the last frame is now."""

    weights: NDArray[np.float32]
    on: NDArray[np.bool_]
    on_weights: NDArray[np.float32]  # the rows that are on
    contrast: NDArray[np.float32]  # [frames]: mean of on minus mean of off
    tilt: NDArray[np.float32]  # [frames]: mean of the first halves of the beeps minus mean of the second halves
    on_frames: NDArray[np.bool_]  # the same at the spectrogram's frame rate: which frames are on
    start_s: float  # from the first beep's start to now
    end_s: float  # from the last beep's end to now


@dataclass(frozen=True, slots=True)
class Templates:
    """The choices of one pattern; `contrasts` float32 [templates, frames].

    `least_db`: between beeps and pauses; `off_most_db`: the mean of each pause, against the beeps; `edge_most_db`: of
    the silence before and after. `spread_db`: standard deviation between the beeps. `tilt_db`: so much a
    beep may fall or rise from half to half (a note decays). `dips_most`, `holes_most`: part of the beeps' frames
    that may lie DIP_DB and HOLE_DB below their level.
    """

    each: tuple[Template, ...]
    contrasts: NDArray[np.float32]
    least_db: float
    tilt_db: float
    off_most_db: float
    edge_most_db: float
    spread_db: float
    dips_most: float = 0.08
    holes_most: float = 0.02


@dataclass(frozen=True, slots=True)
class LevelHistory:
    """The latest levels in dB at the templates' rate [rows, bins], how far each stands above the bins around, and the
    levels frame by frame."""

    levels: Decibels
    tonality: Decibels
    frames: Decibels


@dataclass(frozen=True, slots=True)
class Fit:
    """A template that fits in one column (a bin): level of the beeps in dB, dB between on and off."""

    column: int
    choice: Template
    level_db: float
    quality_db: float

    @property
    def rank(self) -> float:
        """Better fits first; of those that fit alike the loudest, which is the tone and not the skirt of its bins."""
        return self.quality_db + 0.2 * self.level_db

    def span(self, now: int) -> tuple[int, int]:
        """Samples of the first beep's start and of the last one's end, where the template ends at sample `now`."""
        start, end = (max(0, now - round(ago * SAMPLE_RATE)) for ago in (self.choice.start_s, self.choice.end_s))
        return start, end


def template(
    beeps: Sequence[tuple[float, float]], before_s: float, after_s: float, guard_s: float, rate: float
) -> Template:
    """A template from beeps (start, end in seconds from the first one) with silence around; `rate`: rows a second."""
    now = beeps[-1][1] + after_s
    edges: list[Segment] = []
    if before_s > guard_s:
        edges.append(Segment(now + before_s, now, False))
    for (start, end), following in zip(beeps, [*beeps[1:], None], strict=True):
        edges.append(Segment(now - start, now - end, True))
        edges += _pieces(now - end, now - following[0] if following else 0.0)
    frames = int(np.ceil((now + before_s) * rate)) + 1
    middle_s = (np.arange(frames)[::-1] + 0.5) / rate  # before now, of each frame
    rows = []
    for edge in edges:
        inside = (middle_s <= edge.start_s - guard_s) & (middle_s >= edge.end_s + (guard_s if edge.end_s > 0 else 0))
        if not inside.any():
            inside = np.abs(middle_s - (edge.start_s + edge.end_s) / 2) <= 0.5 / rate
        rows.append(inside / inside.sum())
    weights, on = np.array(rows, np.float32), np.array([edge.on for edge in edges])
    contrast = weights[on].mean(axis=0) - weights[~on].mean(axis=0)
    tilt = np.mean([_tilt(row) for row in weights[on]], axis=0).astype(np.float32)
    on_frames = np.repeat(weights[on].sum(axis=0) > 0, round(FRAME_RATE / rate))
    return Template(weights, on, weights[on], contrast, tilt, on_frames, now, after_s)


def fit(history: LevelHistory, choices: Templates) -> Fit | None:
    """The column and the template that fit the end of the history best, if any does."""
    recent = history.levels[-choices.contrasts.shape[1] :]
    rough = choices.contrasts @ recent  # [templates, bins]
    row_of = rough.argmax(axis=0)
    strength = rough.max(axis=0)
    best = None
    for column in np.argsort(strength)[-JUDGED_COLUMNS:]:
        if strength[column] < choices.least_db:
            continue
        found = _judge(recent[:, column], int(column), choices.each[int(row_of[column])], choices)
        if found is None or (best is not None and found.rank <= best.rank):
            continue
        if _steady(history, found, choices):
            best = found
    return best


def _steady(history: LevelHistory, found: Fit, choices: Templates) -> bool:
    """Whether the beeps are one tone: above the bins around, and hardly ever lower than their own level."""
    weights, column = found.choice.weights, found.column
    tones = weights[found.choice.on] @ history.tonality[-weights.shape[1] :, column]
    if tones.min() < TONE_LEAST_DB or tones.mean() < TONE_MEAN_DB:
        return False
    frames = history.frames[-found.choice.on_frames.size :, column][found.choice.on_frames]
    dips, holes = frames < found.level_db - DIP_DB, frames < found.level_db - HOLE_DB
    return bool(np.mean(dips) <= choices.dips_most and np.mean(holes) <= choices.holes_most)


def _judge(levels: NDArray[np.float32], column: int, choice: Template, choices: Templates) -> Fit | None:
    recent = levels[-choice.weights.shape[1] :]
    beeps = np.sort(choice.on_weights @ recent)
    if beeps[-1] - beeps[0] > WIDEST * choices.spread_db:
        return None
    level = float(beeps[beeps.size // 2])
    clipped = np.minimum(np.maximum(recent - level, -LOWEST_DB), HIGHEST_DB)
    quality = float(choice.contrast @ clipped)
    if quality < choices.least_db:
        return None
    means = choice.weights @ clipped
    on, off = means[choice.on], means[~choice.on]
    if off.max() > choices.off_most_db or on.min() < ON_LEAST_DB or np.std(on) > choices.spread_db:
        return None
    edges = [float(means[place]) for place in (0, -1) if not choice.on[place]]
    if max(edges) > choices.edge_most_db or abs(float(choice.tilt @ clipped)) > choices.tilt_db:
        return None
    return Fit(column, choice, level, quality)


def together(found: Sequence[Template], **limits: float) -> Templates:
    """The templates of one pattern, their contrasts in one matrix; `limits`: the other fields of Templates."""
    contrasts = np.zeros((len(found), max(choice.contrast.size for choice in found)), np.float32)
    for row, choice in zip(contrasts, found, strict=True):
        row[row.size - choice.contrast.size :] = choice.contrast
    return Templates(tuple(found), contrasts, **limits)


def _pieces(start_s: float, end_s: float) -> list[Segment]:
    """A pause, a long one in overlapping pieces, so that a beep within it cannot hide in the mean."""
    if start_s - end_s <= 1.5 * PIECE_S:
        return [Segment(start_s, end_s, False)]
    count = int(np.ceil((start_s - end_s - PIECE_S) / (PIECE_S / 2)))
    starts = np.linspace(start_s, end_s + PIECE_S, count + 1)
    return [Segment(float(start), float(start) - PIECE_S, False) for start in starts]


def _tilt(row: NDArray[np.float32]) -> NDArray[np.float32]:
    inside = np.flatnonzero(row)
    halves = np.zeros_like(row)
    if inside.size >= 2:
        half = inside.size // 2
        halves[inside[:half]], halves[inside[-half:]] = 1 / half, -1 / half
    return halves


class T3Detector:
    """The pattern T3, in the bins where smoke alarms sound."""

    def __init__(self) -> None:
        self.pattern = Pattern(CadenceKind.T3, T3_TIMEOUT_S)
        self.reset()

    def reset(self) -> None:
        """Forget the levels (a gap), not the pattern that sounds."""
        self._blocks: Decibels = np.full((T3_FRAMES // BLOCK, ALARM_BINS.size), FLOOR_DB, np.float32)
        self._tone_blocks: Decibels = np.zeros_like(self._blocks)

    def look(self, recent: Decibels, tones: Decibels, wide: Decibels, now: int) -> None:
        """Take BLOCK more frames up to sample `now`: levels [frames, ALARM_BINS], how far each stands out, all bins."""
        self._blocks = np.concatenate([self._blocks[1:], recent[-BLOCK:].mean(axis=0, keepdims=True)])
        self._tone_blocks = np.concatenate([self._tone_blocks[1:], tones[-BLOCK:].mean(axis=0, keepdims=True)])
        history = LevelHistory(self._blocks, self._tone_blocks, recent)
        found = fit(history, t3_templates())
        if found is not None and not _begins_well(history, found):
            found = None
        if found is not None and (self.pattern.onset is not None or found.quality_db >= T3_SURE_DB):
            tone = int(ALARM_BINS[found.column])
            low = tone * BIN_HZ < SQUARE_BELOW_HZ
            doubtful = low and lacks_overtones(wide, tone, found.choice.on_frames)
            score = DOUBTFUL_SCORE if doubtful else min(1.0, found.quality_db / T3_PLAIN_DB)
            self.pattern.confirm(*found.span(now), score)
        elif self.pattern.onset is None and (group := fit(history, t3_groups())) is not None:
            onset, last = group.span(now)
            self.pattern.propose(onset, last, last + 3 * SAMPLE_RATE)


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
