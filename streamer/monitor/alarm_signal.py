"""The signal for a person who would miss an alarm: a low square wave in the pattern of a smoke alarm.

520 Hz, because people with the usual loss of high tones hear and wake from it where they miss 3 kHz (Bruck & Thomas,
Fire Protection Research Foundation, 2007; NFPA 72: low-frequency signal). Three pulses of 0.5 s, 0.5 s apart, then
a rest (T3, ISO 8201), again and again until somebody has seen it or it is over, but three pulses at least: glass breaks
in a second. Where the rest is longer than the standard's 1.5 s one can hear what goes on; the other sound is softer
while the pulses come.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.monitor.audiogram import Audiogram

TONE_HZ: Final = 520
PULSES: Final = ((0.0, 0.5), (1.0, 1.5), (2.0, 2.5))
DUCK_DB: Final = -18.0
_EDGE_S: Final = 0.01  # without clicks
_CHOICES_HZ: Final = (TONE_HZ, 250, 1000, 2000)
_MUCH_WORSE_DB: Final = 20.0  # than the best of them: then 520 Hz is left


def signal_hz(audiogram: Audiogram | None) -> int:
    """520 Hz, unless this person hears another low tone very much better."""
    if audiogram is None:
        return TONE_HZ
    loss = audiogram.better(np.array(_CHOICES_HZ, np.float64))
    best = int(np.argmin(loss))
    return _CHOICES_HZ[best] if loss[0] - loss[best] > _MUCH_WORSE_DB else TONE_HZ


class AlarmSignal:
    """Samples of the signal while it is on. `level`: largest sample of the square wave."""

    def __init__(self, rate: int, tone_hz: int, level: float, pause_s: float) -> None:
        self._rate, self._level, self._cycle_s = rate, level, PULSES[-1][1] + pause_s
        # As many harmonics as the rate holds: a sampled edge would alias into tones that are not there.
        self._harmonics = np.arange(1, max(2, int(0.4 * rate / tone_hz)), 2)
        self._tone_hz, self._place = tone_hz, -1
        self._ending = False  # with the third pulse

    @property
    def on(self) -> bool:
        """Whether it sounds or will again."""
        return self._place >= 0

    def start(self) -> None:
        """From the beginning of the pattern; it goes on where it is on already."""
        self._place, self._ending = max(self._place, 0), False

    def finish(self) -> None:
        """After the three pulses that sound now; nothing more where it rests."""
        self._ending = self.on

    def stop(self) -> None:
        """At once, between two blocks."""
        self._place = -1

    def step(self, count: int) -> NDArray[np.float64] | None:
        """The next samples [n]; None while it is off, or rests between two patterns."""
        if not self.on:
            return None
        at_s = ((self._place + np.arange(count)) / self._rate) % self._cycle_s
        self._place += count
        if at_s[0] > PULSES[-1][1] and at_s[-1] > PULSES[-1][1]:
            if self._ending:
                self.stop()
            return None
        swell = sum(np.clip(np.minimum(at_s - begin, end - at_s) / _EDGE_S, 0.0, 1.0) for begin, end in PULSES)
        if not np.any(swell):
            return np.zeros(count)
        phase = 2 * np.pi * self._tone_hz * at_s
        wave = (np.sin(phase[:, None] * self._harmonics) / self._harmonics).sum(axis=1)
        sounding: NDArray[np.float64] = np.clip(wave * 4 / np.pi, -1.0, 1.0) * swell * self._level
        return sounding
