"""What the hearing aid does by its settings, to be looked at: audiogram, gains, the loudest that comes out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from streamer.events import SceneName
from streamer.monitor.audiogram import audiogram_of
from streamer.monitor.compression import FIT_HZ, FilterBank, fit
from streamer.monitor.prescription import SPEECH_DB
from streamer.settings.monitor import MonitorSettings

_RATE: Final = 48_000  # devices differ, and gains hardly with them
_SPEECH_LEVELS_DB: Final = (50, 65, 80)


@dataclass(frozen=True, slots=True)
class Gains:
    """Gain in dB that speech at `speech_db` (dB SPL in the room) is given at each frequency, all bands together."""

    speech_db: int
    left: tuple[float, ...]
    right: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Fitting:
    """What is in use. `audiogram`: dB HL by Hz of `left` and `right`; None: none, and no `gains`. `at_hz`: where
    the gains are. `limit_dbfs`: no sample is above. `limit_db_spl`: that in the ear, where it is known.
    """

    audiogram: Mapping[str, Mapping[int, float]] | None
    at_hz: tuple[int, ...]
    gains: tuple[Gains, ...]
    volume_db: float
    limit_dbfs: float
    limit_db_spl: float | None
    program: SceneName | Literal["auto"]


def fitting_of(settings: MonitorSettings) -> Fitting:
    """What these settings make."""
    audiogram = audiogram_of(settings)
    gains: list[Gains] = []
    if audiogram is not None:
        bank = FilterBank(_RATE, 1)
        found = fit(audiogram, bank, _RATE)
        response = bank.response(FIT_HZ, _RATE)  # bands overlap: a band's own gain is not what is heard in its middle
        for level in _SPEECH_LEVELS_DB:
            of_bands = 10 ** (found.gain(found.speech_db + level - SPEECH_DB) / 20)
            left, right = np.round(20 * np.log10(np.abs(of_bands @ response)), 1).tolist()
            gains.append(Gains(level, tuple(left), tuple(right)))
    full_scale = settings.output_full_scale_db_spl
    return Fitting(
        audiogram=None if audiogram is None else {"left": dict(audiogram.left), "right": dict(audiogram.right)},
        at_hz=tuple(round(one) for one in FIT_HZ.tolist()),
        gains=tuple(gains),
        volume_db=settings.volume_db,
        limit_dbfs=settings.ceiling_dbfs,
        limit_db_spl=None if full_scale is None else settings.ceiling_dbfs + full_scale,
        program=settings.program,
    )
