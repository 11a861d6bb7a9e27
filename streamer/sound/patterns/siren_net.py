"""The network that hears sirens: a few convolutions over the last four seconds of a spectrogram.

Made by `streamer train sirens` (`streamer.recipes.sirens`), bundled as `data/sirens.onnx`. It sees levels of bands from
360 to 3600 Hz, each relative to its neighbours in pitch and to the loudest there was, so that gain does not matter.
"""

from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions

from streamer.sound.patterns.spectrum import BIN_HZ, Decibels

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

_places = LOW_HZ * (HIGH_HZ / LOW_HZ) ** (np.arange(BANDS) / (BANDS - 1)) / BIN_HZ
_below = np.floor(_places).astype(np.intp)
_share = (_places - _below).astype(np.float32)


def band_levels(levels: Decibels) -> Decibels:
    """Levels of bands [n, BANDS] of frames [n, 257], in dB."""
    return levels[:, _below] * (1 - _share) + levels[:, _below + 1] * _share


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
