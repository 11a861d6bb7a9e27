"""The network that tells two groups of a CO alarm's beeps from what is like them: three dense layers, with numpy.

Made by `streamer train t4` (`streamer.recipes.t4`), bundled as `data/t4.npz`. What it sees is described in
`streamer.sound.patterns.t4.pair_inputs`.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

PAUSE_PARTS = 24
LAYERS = ("dense1", "dense2", "dense3")


@dataclass(frozen=True, slots=True)
class BeepNet:
    """Weights [out, in] and a bias [out] of each layer."""

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
