"""What a person hears: thresholds of both ears in dB HL, presets, and how loud a sound must be in the room for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.settings.monitor import MonitorSettings

# Bisgaard, Vlaming, Dahlquist: Standard audiograms for the IEC 60118-15 measurement procedure (2010): N2, N3, S2.
PRESETS: Final[Mapping[str, Mapping[int, float]]] = {
    "mild": {250: 20, 500: 20, 750: 22.5, 1000: 25, 1500: 30, 2000: 35, 3000: 40, 4000: 45, 6000: 50},
    "moderate": {250: 35, 500: 35, 750: 35, 1000: 40, 1500: 45, 2000: 50, 3000: 55, 4000: 60, 6000: 65},
    "sloping": {250: 20, 500: 20, 750: 22.5, 1000: 25, 1500: 35, 2000: 55, 3000: 75, 4000: 95, 6000: 95},
}

# dB SPL of 0 dB HL in a free field, from the front, both ears (ISO 389-7).
_FREE_FIELD: Final = {
    250: 11.4,
    500: 4.4,
    750: 2.4,
    1000: 2.4,
    1500: 2.4,
    2000: -1.3,
    3000: -5.8,
    4000: -5.4,
    6000: 4.3,
}
_FREE_FIELD_8K: Final = 12.6


@dataclass(frozen=True, slots=True)
class Audiogram:
    """Thresholds in dB HL by frequency in Hz, left and right; frequencies between those given are interpolated."""

    left: Mapping[int, float]
    right: Mapping[int, float]

    def ear(self, ear: int, at_hz: NDArray[np.float64]) -> NDArray[np.float64]:
        """Thresholds of ear 0 (left) or 1 (right) at these frequencies: linear over octaves, level at the ends."""
        return _interpolated(self.left if ear == 0 else self.right, at_hz)

    def better(self, at_hz: NDArray[np.float64]) -> NDArray[np.float64]:
        """Those of the better ear."""
        return np.minimum(self.ear(0, at_hz), self.ear(1, at_hz))


def audiogram_of(settings: MonitorSettings) -> Audiogram | None:
    """That of the settings; None: none is given."""
    given = settings.audiogram
    if given is None:
        return None
    return preset(given) if isinstance(given, str) else Audiogram(given.left, given.right)


def preset(name: str) -> Audiogram:
    """Both ears as the standard audiogram of that name."""
    return Audiogram(PRESETS[name], PRESETS[name])


def sound_pressure_level(hearing_level: NDArray[np.float64], at_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """dB SPL in the room of a threshold in dB HL."""
    return hearing_level + _interpolated(_FREE_FIELD | {8000: _FREE_FIELD_8K}, at_hz)


def _interpolated(values: Mapping[int, float], at_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    known = sorted(values)
    found: NDArray[np.float64] = np.interp(np.log2(at_hz), np.log2(known), [values[hz] for hz in known])
    return found
