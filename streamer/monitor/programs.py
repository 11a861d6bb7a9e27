"""What each scene changes about the sound, and the way from one to the next: a cross-fade of all that changes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from streamer.events import SceneName

FADE_S: Final = 0.4


@dataclass(frozen=True, slots=True)
class Program:
    """`noise_db`: noise comes out up to so much softer. `gain_db`: on top of the prescription. `compression`: 1 as
    prescribed, 0 none.
    """

    noise_db: float
    gain_db: float
    compression: float


# Where somebody speaks no more than 6 dB: of 270 words in noise (SNR 0 and 5 dB) `base` has 81 wrong behind it, 89
# without it, and 90 or more with 8 or 12. Music keeps its dynamics and is not touched by noise reduction; an alarm must
# not be taken for noise.
PROGRAMS: Final[Mapping[SceneName, Program]] = {
    "quiet": Program(noise_db=6.0, gain_db=0.0, compression=1.0),
    "speech": Program(noise_db=6.0, gain_db=0.0, compression=1.0),
    "speech_in_noise": Program(noise_db=6.0, gain_db=0.0, compression=1.0),
    "noise": Program(noise_db=12.0, gain_db=-4.0, compression=1.0),
    "music": Program(noise_db=0.0, gain_db=0.0, compression=0.3),
    "alarm": Program(noise_db=0.0, gain_db=0.0, compression=1.0),
}


class Fader:
    """The program in force at each block, on its way from one to the next within FADE_S."""

    def __init__(self, block_s: float, scene: SceneName = "speech") -> None:
        self._steps = max(1, round(FADE_S / block_s))
        self._from = self._to = PROGRAMS[scene]
        self._done = self._steps

    def choose(self, scene: SceneName) -> None:
        """Go there from where it is now."""
        if PROGRAMS[scene] is not self._to:
            self._from, self._to, self._done = self._now(), PROGRAMS[scene], 0

    def step(self) -> Program:
        """The program of the next block."""
        self._done = min(self._steps, self._done + 1)
        return self._now()

    def _now(self) -> Program:
        if self._done >= self._steps:
            return self._to
        share = self._done / self._steps
        one, other = self._from, self._to
        return Program(
            one.noise_db + share * (other.noise_db - one.noise_db),
            one.gain_db + share * (other.gain_db - one.gain_db),
            one.compression + share * (other.compression - one.compression),
        )
