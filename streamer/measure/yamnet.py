"""YAMNet as a TensorFlow Lite file: float32 [15600] at 16 kHz in, 521 scores of AudioSet classes out.

Source: github.com/tensorflow/models, research/audioset/yamnet (Apache 2.0). A peer to measure against and a teacher.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.errors import UsageError

FRAME_SAMPLES, HOP_SAMPLES = 15_600, 7_680  # 0.975 s, one every 0.48 s
RUNTIMES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")


class Network:
    """The network on one thread. `inputs`, `outputs`: the shapes that it takes and gives."""

    def __init__(self, path: Path, option: str) -> None:
        """Raises UsageError without a runtime, naming the option; OSError, RuntimeError or ValueError for the file."""
        self._net: Any = runtime(option).Interpreter(model_path=str(path), num_threads=1)
        self._net.allocate_tensors()
        (given,), (found,) = self._net.get_input_details(), self._net.get_output_details()[:1]
        self.inputs, self.outputs = list(given["shape"]), list(found["shape"])
        self._input, self._output = given["index"], found["index"]

    def scores(self, frame: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores [classes] in 0..1 of one frame, float32 [15600]."""
        self._net.set_tensor(self._input, frame)
        self._net.invoke()
        scores: NDArray[np.float32] = self._net.get_tensor(self._output)[0].copy()
        return scores


def runtime(option: str) -> Any:
    """The module that runs such files. Raises UsageError, naming the option that needs it."""
    for name in RUNTIMES:
        try:
            return import_module(name)
        except ImportError:
            continue
    raise UsageError(f"{option}: needs a TensorFlow Lite runtime: pip install ai-edge-litert")
