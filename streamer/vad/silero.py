"""How likely it is that somebody speaks, by silero-vad (v6, MIT; its network ships in the wheel of that name).

It judges pieces of 32 ms with a memory of what came before; frames of 20 ms get the newest judgement that their end
allows. ONNX Runtime computes it: about 1 % of a core.
"""

import functools
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions

PIECE_SAMPLES = 512  # 32 ms at 16 kHz, the only length that the network takes
BEFORE_SAMPLES = 64  # of the piece before, which it wants in front
STATE_SHAPE = (2, 1, 128)
RATE = np.array(16_000)


@functools.cache
def _network() -> InferenceSession:
    """The network, one for all streams: they bring their own states."""
    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    package = find_spec("silero_vad")  # which is not imported: it would set the number of torch's threads
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "data" / "silero_vad_16k_op15.onnx"
    return InferenceSession(path, options, providers=["CPUExecutionProvider"])


class SpeechProbability:
    """One per stream. `step` takes frames in order, of any length."""

    def __init__(self) -> None:
        self._network = _network()
        self._state = np.zeros(STATE_SHAPE, np.float32)
        self._waiting = np.zeros(BEFORE_SAMPLES, np.float32)  # the end of the last piece and what came since
        self._probability = 0.0

    def step(self, frame: NDArray[np.float32]) -> float:
        """The probability of speech, 0..1, in the newest whole piece of 512 samples; frame: float32 [n] in -1..1."""
        self._waiting = np.concatenate([self._waiting, frame])
        while len(self._waiting) >= BEFORE_SAMPLES + PIECE_SAMPLES:
            piece = self._waiting[None, : BEFORE_SAMPLES + PIECE_SAMPLES]
            self._waiting = self._waiting[PIECE_SAMPLES:]
            given = {"input": piece, "state": self._state, "sr": RATE}
            probability, self._state = self._network.run(None, given)
            self._probability = float(probability[0, 0])
        return self._probability
