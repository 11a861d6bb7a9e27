"""A teacher for what nobody labelled: YAMNet's scores over AudioSet's classes, along a window."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamer.errors import InputError
from streamer.events import SAMPLE_RATE
from streamer.measure.yamnet import FRAME_SAMPLES, HOP_SAMPLES, Network, runtime
from streamer.sound.labels import LABEL_COUNT, labels

STEP = SAMPLE_RATE * 2 // 5  # samples of a tap step


class Teacher:
    """YAMNet from a `.tflite` with its class map (`*class_map.csv`) beside it.

    Raises UsageError without the library that runs it, InputError for files that are not what they should be.
    """

    def __init__(self, path: Path) -> None:
        """One thread."""
        runtime("teacher")  # what is missing is said before what is wrong
        maps = sorted(path.parent.glob("*class_map.csv"))
        if not path.is_file() or not maps:
            raise InputError(f"teacher {path}: YAMNet's .tflite with its …class_map.csv beside it is needed")
        index_of = {label.id: label.index for label in labels()}
        try:
            with maps[0].open(encoding="utf-8") as file:
                self._classes = np.array([index_of[row["mid"]] for row in csv.DictReader(file)])
            self._network = Network(path, "teacher")
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise InputError(f"teacher {path}: no TensorFlow Lite file of YAMNet with its classes: {error}") from error

    def steps(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores [n, 527] in 0..1 of each 0.4 s of float32 [m] at 16 kHz; zeros for classes that it does not know."""
        count = len(samples) // STEP
        padded = np.pad(samples, (0, max(0, FRAME_SAMPLES - len(samples)))).astype(np.float32)
        starts = range(0, len(padded) - FRAME_SAMPLES + 1, HOP_SAMPLES)
        frames = np.stack([self._network.scores(padded[at : at + FRAME_SAMPLES]) for at in starts])
        middles = ((np.arange(count) + 0.5) * STEP - FRAME_SAMPLES / 2) / HOP_SAMPLES
        found = np.zeros((count, LABEL_COUNT), np.float32)
        found[:, self._classes] = frames[np.rint(middles).astype(int).clip(0, len(frames) - 1)]
        return found
