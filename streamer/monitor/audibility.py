"""Whether a person would have heard a sound without help: how loud it was where it sounds, against the audiogram.

Levels are those at the microphone, in dB SPL as far as `input_full_scale_db_spl` is right; thresholds are those of the
better ear, in a free field. A sound is too quiet where no band that it is known to fill comes above the threshold.
"""

from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.events import SAMPLE_RATE, AlertState
from streamer.monitor.audiogram import Audiogram, sound_pressure_level

MEMORY_S: Final = 3.0
CENTRES_HZ: Final = np.array([250.0, 500.0, 1000.0, 2000.0, 3000.0, 4000.0, 6000.0])
_EDGES_HZ: Final = np.array([177.0, 354.0, 707.0, 1414.0, 2450.0, 3464.0, 4899.0, 8000.0])

# Where the sounds of the default rules have their power, in Hz; all others may have it anywhere.
SOUNDS_HZ: Final[Mapping[str, tuple[float, float]]] = {
    "smoke_alarm": (2500, 4000),  # most; those of 520 Hz are heard by this person anyway
    "co_alarm": (2500, 4000),
    "siren": (500, 2000),
    "alarm_clock": (1000, 4500),
    "doorbell": (500, 4000),
    "telephone": (500, 4000),
    "knock": (200, 2000),
    "baby_cry": (350, 4500),
    "dog": (350, 2500),
    "car_horn": (300, 4000),
    "glass": (2000, 8000),
}


class Audibility:
    """One session's. `full_scale_db_spl`: as in the settings; `soundless`: rules whose alerts nobody could hear."""

    def __init__(self, audiogram: Audiogram, full_scale_db_spl: float, soundless: frozenset[str] = frozenset()) -> None:
        self._soundless = soundless
        self._standing: dict[int, bool] = {}  # alerts: whether each was missed so far
        self._thresholds = sound_pressure_level(audiogram.better(CENTRES_HZ), CENTRES_HZ)
        self._full_scale_db = full_scale_db_spl
        self._levels: deque[tuple[int, NDArray[np.float64]]] = deque()  # samples, dB SPL of each band

    def hear(self, samples: NDArray[np.float32]) -> None:
        """A hop of 16 kHz, float32 [n]."""
        if not len(samples):
            return
        # Parseval: the mean square is that of the bins, the one-sided ones twice.
        power = 2 * np.abs(np.fft.rfft(samples.astype(np.float64))) ** 2 / len(samples) ** 2
        edges = np.searchsorted(np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE), _EDGES_HZ)
        bands = np.array([power[low:high].sum() for low, high in pairwise(edges)])
        self._levels.append((len(samples), 10 * np.log10(bands + 1e-20) + self._full_scale_db))
        while sum(count for count, _ in self._levels) - self._levels[0][0] >= MEMORY_S * SAMPLE_RATE:
            self._levels.popleft()

    def missed(self, alert: int, rule: str, state: AlertState) -> bool:
        """Whether this person would not have heard an alert of this id, from its beginning until there was news of it.

        Asked at each change. That it is seen or over says nothing about how loud it was.
        """
        if rule in self._soundless:
            return False
        missed = self._standing.pop(alert, True)
        if state in ("raised", "updated"):
            missed = missed and self.too_quiet(rule)
        if state != "cleared":
            self._standing[alert] = missed
        return missed

    def too_quiet(self, rule: str) -> bool:
        """Whether nothing that this rule is about was loud enough in the last seconds."""
        if not self._levels:
            return False
        low, high = SOUNDS_HZ.get(rule, (0.0, np.inf))
        inside = (low <= CENTRES_HZ) & (high >= CENTRES_HZ)
        loudest = np.max([level for _, level in self._levels], axis=0)
        return bool(np.all(loudest[inside] < self._thresholds[inside]))
