"""Alarm patterns in the signal itself: T3 (smoke) and T4 (carbon monoxide) beeps, sirens, tones that stay.

The signal goes through one spectrogram on a fixed grid of frames; each pattern is judged at fixed frames, so that the
chunking of the input changes nothing. A pattern is CANDIDATE, SOUNDING, or OVER (said once).
"""

import numpy as np
from numpy.typing import NDArray

from streamer.sound.patterns.beeps import BeepDetector
from streamer.sound.patterns.sirens import SirenDetector
from streamer.sound.patterns.spectrum import Spectrogram
from streamer.sound.patterns.state import CadenceState
from streamer.sound.patterns.tones import ToneDetector


class CadenceDetector:
    """The patterns in a stream; the same for any chunking.

    `sirens`: whether anybody asks for sirens, which take five times the time of all the others.
    """

    def __init__(self, *, sirens: bool = True) -> None:
        self._spectrogram = Spectrogram()
        self._beeps = BeepDetector()
        self._sirens = SirenDetector() if sirens else None
        self._tones = ToneDetector()

    def step(self, samples: NDArray[np.float32], end_sample: int) -> list[CadenceState]:
        """Take the conditioned samples, float32 [n] at 16 kHz, up to `end_sample` and return the patterns in sight.

        A gap of more than 0.25 s before these samples (`end_sample` tells) makes the patterns start afresh.
        """
        levels, broken = self._spectrogram.push(samples, end_sample)
        if broken:
            self._beeps.reset()
            if self._sirens:
                self._sirens.reset()
            self._tones.reset()
        first = self._spectrogram.next_frame - levels.shape[0]
        self._beeps.push(levels, first)
        self._tones.push(levels, first)
        patterns = [*self._beeps.patterns, self._tones.pattern]
        if self._sirens:
            self._sirens.push(levels, first)
            patterns += self._sirens.patterns
        return [state for pattern in patterns for state in pattern.states()]
