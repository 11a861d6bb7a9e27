"""The network that hears sirens: a few convolutions over the last four seconds of a spectrogram, computed with numpy.

Made by `streamer train sirens` (`streamer.recipes.sirens`), bundled as `data/sirens.npz`. It sees levels of bands from
360 to 3600 Hz, each relative to its neighbours in pitch and to the loudest there was, so that gain does not matter.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

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
STRIDES = ((1, 2), (2, 2), (2, 1), (2, 2))  # of the convolutions, in time and pitch

_places = LOW_HZ * (HIGH_HZ / LOW_HZ) ** (np.arange(BANDS) / (BANDS - 1)) / BIN_HZ
_below = np.floor(_places).astype(np.intp)
_share = (_places - _below).astype(np.float32)


def band_levels(levels: Decibels) -> Decibels:
    """Levels of bands [n, BANDS] of frames [n, 257], in dB."""
    return levels[:, _below] * (1 - _share) + levels[:, _below + 1] * _share


@dataclass(frozen=True, slots=True)
class SirenNet:
    """Weights: of the convolutions [out, in, time, pitch], of the dense layers [out, in]; a bias [out] each."""

    convolutions: tuple[tuple[Floats, Floats], ...]
    dense: tuple[tuple[Floats, Floats], ...]

    def __call__(self, levels: Decibels) -> Floats:
        """Probabilities [4] of CLASSES at the end of the levels of bands [STEP_FRAMES * STEPS, BANDS] of frames."""
        x = _inputs(levels.reshape(STEPS, STEP_FRAMES, BANDS).max(axis=1))
        for (weight, bias), stride in zip(self.convolutions, STRIDES, strict=True):
            x = np.maximum(_convolved(x, weight, bias, stride), 0)
        (first, first_bias), (last, last_bias) = self.dense
        logits = last @ np.maximum(first @ x.ravel() + first_bias, 0) + last_bias
        odds = np.exp(logits - logits.max())
        found: Floats = odds / odds.sum()
        return found


@cache
def bundled() -> SirenNet:
    """The network that comes with Streamer."""
    with as_file(files("streamer") / "data" / "sirens.npz") as path, np.load(path) as stored:
        layers = [
            tuple(stored[f"{name}.{part}"].astype(np.float32) for part in ("weight", "bias"))
            for name in ("conv1", "conv2", "conv3", "conv4", "dense1", "dense2")
        ]
    return SirenNet(tuple(layers[:4]), tuple(layers[4:]))


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


def _convolved(x: Floats, weight: Floats, bias: Floats, stride: tuple[int, int]) -> Floats:
    """x [in, time, pitch] under weight [out, in, n, n] with zeros around: [out, time', pitch']."""
    size = weight.shape[2]
    edge = size // 2
    padded = np.pad(x, ((0, 0), (edge, edge), (edge, edge)))
    views = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    views = views[:, :: stride[0], :: stride[1]]  # [in, time', pitch', n, n]
    _, time, pitch, _, _ = views.shape
    columns = views.transpose(0, 3, 4, 1, 2).reshape(-1, time * pitch)
    found: Floats = (weight.reshape(len(weight), -1) @ columns + bias[:, None]).reshape(-1, time, pitch)
    return found
