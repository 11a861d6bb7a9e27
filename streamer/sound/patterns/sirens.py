"""Sirens in the signal itself: wail, yelp and hi-lo, as a small network hears them.

Every 128 ms it judges the last four seconds of a spectrogram by a few convolutions: levels of bands from 360 to
3600 Hz, each relative to its neighbours in pitch and to the loudest there was, so that gain does not matter. It is made
by `streamer train sirens` (`streamer.recipes.sirens`) and bundled as `data/sirens.onnx`. A siren sounds when the
network is sure for some looks in a row, and for as long as it hears one at all; that it may be one is worth saying
beside the tagger.

A hi-lo has to have had two tones in turn too. One that begins is one steady tone for half a second, and so is the first
beep of a smoke alarm at 520 Hz: the network cannot tell them apart, and need not.
"""

from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions

from streamer.sound.patterns.spectrum import BIN_HZ, FLOOR_DB, Decibels, known_until
from streamer.sound.patterns.state import CANDIDATE_SCORE, PLAIN_SCORE, SURE_SCORE, CadenceKind, Pattern

Floats = NDArray[np.float32]

LOW_HZ, HIGH_HZ, BANDS = 360.0, 3600.0, 40
STEP_FRAMES = 2  # frames of the spectrogram in a step of 32 ms
STEPS = 128  # 4.1 s
CLASSES = ("none", "wail", "yelp", "hilo")
AROUND = 6  # bands on either side that a level is compared with
CONTRAST_DB, CONTRAST_LEAST, CONTRAST_MOST = 10.0, -1.0, 2.5
LEVEL_DB, LEVEL_LEAST, LEVEL_MOST = 25.0, -2.0, 0.6
LOUD_EVERY, LOUD_QUANTILE = 7, 0.97  # of every seventh level: how loud the loudest is
INPUT = "levels"  # the input's name in the file

WINDOW_FRAMES = STEPS * STEP_FRAMES
LOOK_FRAMES = 8  # 128 ms
SURE, SURE_LOOKS = 0.98, 4  # so sure for so many looks in a row: a siren
PLAIN_LOOKS = 6  # after so many it is plain enough to count while the tagger hears something else
MAYBE = 0.95  # it may be one, worth saying beside the tagger
HEARD = 0.5  # one that sounds goes on
TIMEOUT_S = 2.0  # not heard for so long: over
SEEN_AFTER = 7_200  # samples: so much of a siren the network needs; it began so long before it was seen
CANDIDATE_SAMPLES = 6_400

HILO_STEPS = 31  # of 32 ms: tones in turn are looked for in the last second
HILO_BANDS = 20  # up to 1.1 kHz, where the tones of a hi-lo are; overtones lie higher
HILO_APART = range(2, 9)  # bands of 6 %: from a tone to more than a fourth
HILO_DB = 5.0  # above the neighbours
HILO_OTHER_DB = 4.0  # more than the other tone at the same time
HILO_LEAST_STEPS = 6  # each was heard for 0.2 s at a stretch

_places = LOW_HZ * (HIGH_HZ / LOW_HZ) ** (np.arange(BANDS) / (BANDS - 1)) / BIN_HZ
_below = np.floor(_places).astype(np.intp)
_share = (_places - _below).astype(np.float32)


def band_levels(levels: Decibels) -> Decibels:
    """Levels of bands [n, BANDS] of frames [n, 257], in dB."""
    return levels[:, _below] * (1 - _share) + levels[:, _below + 1] * _share


class SirenDetector:
    """Wail, yelp and hi-lo."""

    def __init__(self) -> None:
        self.patterns = tuple(Pattern(CadenceKind(name), TIMEOUT_S) for name in CLASSES[1:])
        self._net: SirenNet = bundled()
        self._sure = 0  # looks in a row
        self._since: int | None = None  # end of the first of the looks in a row that heard one
        self.reset()

    def reset(self) -> None:
        """Forget the spectrogram (a gap), not the sirens that sound."""
        self._levels: Decibels = np.full((WINDOW_FRAMES, BANDS), FLOOR_DB, np.float32)
        self._sure, self._since = 0, None

    def push(self, levels: Decibels, first_frame: int) -> None:
        """Take frames number `first_frame` and following: float32 [n, 257] dB."""
        found = np.concatenate([self._levels, band_levels(levels)])
        for offset in range(1, levels.shape[0] + 1):
            frame = first_frame + offset - 1
            if frame % LOOK_FRAMES != LOOK_FRAMES - 1:
                continue
            now = known_until(frame)
            self._look(found[offset : offset + WINDOW_FRAMES], now)
            for pattern in self.patterns:
                pattern.tick(now)
        self._levels = found[levels.shape[0] :]

    def _look(self, levels: Decibels, now: int) -> None:
        """Judge the levels [WINDOW_FRAMES, BANDS] up to sample `now`."""
        chances = self._net(levels)
        heard = 1 - float(chances[0])
        self._sure = self._sure + 1 if heard >= SURE else 0
        if heard < HEARD:
            self._since = None
            return
        self._since = now if self._since is None else self._since
        onset = max(0, self._since - SEEN_AFTER)
        likely = self.patterns[int(np.argmax(chances[1:]))]
        if self._sure >= SURE_LOOKS and (likely.kind is not CadenceKind.HILO or has_hilo_tones(levels)):
            likely.confirm(onset, now, PLAIN_SCORE if self._sure >= PLAIN_LOOKS else SURE_SCORE)
        for pattern in self.patterns:
            if pattern.onset is not None:
                pattern.confirm(onset, now, 0.0)
        if heard >= MAYBE and likely.onset is None:
            likely.propose(onset, now, now + CANDIDATE_SAMPLES, CANDIDATE_SCORE)


class SirenNet:
    """The network, one for all streams: it has no memory."""

    def __init__(self, path: Path) -> None:
        options = SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __call__(self, levels: Decibels) -> Floats:
        """Probabilities [4] of CLASSES at the end of the levels of bands [STEP_FRAMES * STEPS, BANDS] of frames."""
        inputs = _inputs(levels.reshape(STEPS, STEP_FRAMES, BANDS).max(axis=1))
        found: Floats = self._session.run(None, {INPUT: inputs[None]})[0][0]
        return found


@cache
def bundled() -> SirenNet:
    """The network that comes with Streamer."""
    with as_file(files("streamer") / "data" / "sirens.onnx") as path:
        return SirenNet(path)


def contrast_db(levels: Decibels) -> NDArray[np.float64]:
    """How far levels of bands [n, BANDS] stand above their neighbours, in dB."""
    padded = np.pad(levels, ((0, 0), (AROUND, AROUND)), mode="edge")
    total = np.cumsum(np.pad(padded, ((0, 0), (1, 0))), axis=1, dtype=np.float64)
    return levels - (total[:, 2 * AROUND + 1 :] - total[:, : -2 * AROUND - 1]) / (2 * AROUND + 1)


def _inputs(levels: Decibels) -> Floats:
    """What the network sees [2, STEPS, BANDS]: how far levels stand above their neighbours, and below the loudest."""
    contrast = np.clip(contrast_db(levels) / CONTRAST_DB, CONTRAST_LEAST, CONTRAST_MOST)
    loudest = np.quantile(levels.ravel()[::LOUD_EVERY], LOUD_QUANTILE)
    level = np.clip((levels - loudest) / LEVEL_DB, LEVEL_LEAST, LEVEL_MOST)
    return np.stack([contrast, level]).astype(np.float32)


def has_hilo_tones(levels: Decibels) -> bool:
    """Whether two tones were heard in turn lately: levels of bands [frames, BANDS] in dB, the latest last."""
    latest = levels[-HILO_STEPS * STEP_FRAMES :].reshape(-1, STEP_FRAMES, BANDS).max(axis=1)
    above = contrast_db(latest)[:, :HILO_BANDS]
    for apart in HILO_APART:
        low, high = above[:, :-apart], above[:, apart:]
        lows, highs = (
            _longest((one > HILO_DB) & (one > other + HILO_OTHER_DB)) for one, other in ((low, high), (high, low))
        )
        if np.minimum(lows, highs).max() >= HILO_LEAST_STEPS:
            return True
    return False


def _longest(heard: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The longest run of True in each column of [steps, columns]."""
    steps = np.arange(1, len(heard) + 1)[:, None]
    since = np.maximum.accumulate(np.where(heard, 0, steps), axis=0)
    longest: NDArray[np.int64] = (steps - since).max(axis=0)
    return longest
