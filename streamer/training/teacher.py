"""A teacher for what nobody labelled: YAMNet's scores over AudioSet's classes, along a window.

YAMNet (https://github.com/tensorflow/models/tree/master/research/audioset/yamnet, Apache 2.0) as a TensorFlow Lite
file: float32 [15600] at 16 kHz in, 521 scores out, all of which are AudioSet classes.
"""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.errors import InputError, UsageError
from streamer.events import SAMPLE_RATE
from streamer.sound.labels import LABEL_COUNT, labels

FRAME, HOP = 15_600, 7_680  # samples
STEP = SAMPLE_RATE * 2 // 5  # samples of a tap step


class Teacher:
    """YAMNet from a `.tflite` with its class map (`*class_map.csv`) beside it. `known`: bool [527].

    Raises UsageError without the library that runs it, InputError for files that are not what they should be.
    """

    def __init__(self, path: Path) -> None:
        """One thread."""
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ModuleNotFoundError:
            raise UsageError("teacher: needs `pip install ai-edge-litert`") from None
        maps = sorted(path.parent.glob("*class_map.csv"))
        if not path.is_file() or not maps:
            raise InputError(f"teacher {path}: YAMNet's .tflite with its …class_map.csv beside it is needed")
        index_of = {label.id: label.index for label in labels()}
        try:
            with maps[0].open(encoding="utf-8") as file:
                self._classes = np.array([index_of[row["mid"]] for row in csv.DictReader(file)])
            self._net: Any = Interpreter(str(path), num_threads=1)
        except (KeyError, ValueError) as error:
            raise InputError(f"teacher {path}: no TensorFlow Lite file of YAMNet with its classes: {error}") from error
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        self._output = self._net.get_output_details()[0]["index"]
        self.known = np.zeros(LABEL_COUNT, np.bool_)
        self.known[self._classes] = True

    def steps(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores [n, 527] in 0..1 of each 0.4 s of float32 [m] at 16 kHz; zeros for classes that it does not know."""
        count = len(samples) // STEP
        padded = np.pad(samples, (0, max(0, FRAME - len(samples))))
        frames = np.stack([self._frame(padded[at : at + FRAME]) for at in range(0, len(padded) - FRAME + 1, HOP)])
        nearest = np.rint(((np.arange(count) + 0.5) * STEP - FRAME / 2) / HOP).astype(int).clip(0, len(frames) - 1)
        found = np.zeros((count, LABEL_COUNT), np.float32)
        found[:, self._classes] = frames[nearest]
        return found

    def _frame(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        self._net.set_tensor(self._input, samples.astype(np.float32))
        self._net.invoke()
        return np.array(self._net.get_tensor(self._output)[0], np.float32)
