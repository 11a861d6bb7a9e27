"""YAMNet, a peer for sounds: MobileNet v1 on AudioSet, 521 classes, a TensorFlow Lite file with its class map beside.

Frames of 0.975 s (15,600 samples), one every 0.48 s. A rule counts as raised, once, when the best label of what raises
it reaches 0.5 in one frame, at the end of that frame. A second's score is the best of the frames whose middle it holds.
Source: github.com/tensorflow/models, research/audioset/yamnet (Apache 2.0).
"""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamer.bench.sound_scores import LABELS, Raised
from streamer.errors import UsageError
from streamer.events import SAMPLE_RATE
from streamer.measure.recordings import BEFORE_S
from streamer.measure.yamnet import FRAME_SAMPLES, HOP_SAMPLES, Network

FIRST_SAMPLE = round((BEFORE_S - 0.5) * SAMPLE_RATE) % HOP_SAMPLES  # a frame begins 0.5 s before the recording
THRESHOLD = 0.5


class YamNet:
    """The network and its classes. `rules`: severity by id; those without labels here are not raised."""

    def __init__(self, path: Path, rules: Mapping[str, str]) -> None:
        """Raises UsageError, one line: no runtime, no file, no class map, or not this network."""
        self.name = path.stem
        self._rules = rules
        names = _classes(path.with_name(f"{path.stem}_class_map.csv"))
        try:
            self._network = Network(path, "--peer")
        except (OSError, RuntimeError, ValueError) as error:
            said = str(error).partition("\n")[0]
            raise UsageError(f"--peer {path}: is no TensorFlow Lite file that can be read: {said}") from None
        if self._network.inputs != [FRAME_SAMPLES] or self._network.outputs[-1] != len(names):
            raise UsageError(
                f"--peer {path}: must take {FRAME_SAMPLES} samples and give {len(names)} scores, as its class map has"
            )
        places = {
            rule: [names.index(name) for name in wanted if name in names]
            for rule, wanted in LABELS.items()
            if rule in rules
        }
        self._places = {rule: found for rule, found in places.items() if found}

    def listen(self, room: NDArray[np.float32]) -> tuple[list[Raised], dict[str, NDArray[np.float32]]]:
        """The alerts on samples, float32 [n] at 16 kHz, and by rule a score each second."""
        starts = range(FIRST_SAMPLE, len(room) - FRAME_SAMPLES + 1, HOP_SAMPLES)
        frames = np.array([self._network.scores(room[start : start + FRAME_SAMPLES]) for start in starts])
        middles = [(start + FRAME_SAMPLES // 2) // SAMPLE_RATE for start in starts]
        raised, seconds = [], {}
        for rule, places in self._places.items():
            best = frames[:, places].max(axis=1)
            seconds[rule] = np.zeros(-(-len(room) // SAMPLE_RATE), np.float32)
            np.maximum.at(seconds[rule], middles, best)
            over = np.flatnonzero(best >= THRESHOLD)
            if len(over):
                end_s = (starts[over[0]] + FRAME_SAMPLES) / SAMPLE_RATE
                raised.append(Raised(rule, self._rules[rule], end_s, round(float(best[over[0]]), 3)))
        return sorted(raised, key=lambda one: one.at_s), seconds


def _classes(path: Path) -> list[str]:
    """The display names in their order."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [row["display_name"] for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, KeyError):
        raise UsageError(f"--peer: {path} must hold the classes, a CSV with the column `display_name`") from None
