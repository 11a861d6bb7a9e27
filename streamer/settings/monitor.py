"""The settings of the hearing aid: where it plays, how loud at most, whose ears, and how alarms are told to them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from streamer.events import SceneName, Severity
from streamer.settings.section import Section, refusal

HEARING_LEVELS: Final = (-10.0, 120.0)  # dB HL that an audiometer measures
AUDIOGRAM_HZ: Final = (250, 500, 750, 1000, 1500, 2000, 3000, 4000, 6000, 8000)
Preset = Literal["mild", "moderate", "sloping"]
_PRESETS: Final = ("mild", "moderate", "sloping")
_NEEDED_HZ: Final = (500, 1000, 2000, 4000)
_FORM: Final = "{left: {500: 20, 1000: 25, 2000: 40, 4000: 55}, right: {…}}"


class EarsSettings(Section):
    """An audiogram: thresholds in dB HL by frequency in Hz, of both ears."""

    USUAL = ("left", "right")
    left: dict[int, float] = Field(description="dB HL at 250 to 8000 Hz; 500, 1000, 2000 and 4000 at least")
    right: dict[int, float] = Field(description="as left")

    @field_validator("left", "right")
    @classmethod
    def _thresholds(cls, value: dict[int, float]) -> dict[int, float]:
        least, most = HEARING_LEVELS
        for hz, level in value.items():
            if hz not in AUDIOGRAM_HZ:
                raise ValueError(f"must have frequencies out of {', '.join(map(str, AUDIOGRAM_HZ))}; {hz} is none")
            if not least <= level <= most:
                raise ValueError(f"must have {least:g} to {most:g} dB HL; {level:g} at {hz} Hz is not")
        if missing := [hz for hz in _NEEDED_HZ if hz not in value]:
            raise ValueError(f"must have a threshold at {missing[0]} Hz too")
        return value


class AlarmSettings(Section):
    """The signal that an alert makes in the headphones."""

    USUAL = ("enabled", "severity")
    enabled: bool = Field(True, description="alerts sound in the headphones until somebody has seen them")
    severity: Severity = Field("warning", description="of alerts from which on")
    tone_hz: int | None = Field(
        None, ge=200, le=4000, description="null: 520, or a lower or higher tone that is heard much better"
    )
    level_dbfs: float = Field(-24.0, ge=-60, le=0, description="largest sample of the tone before the audiogram's gain")
    pause_s: float = Field(6.0, ge=1, le=120, description="between two patterns, so that one can listen")


class MonitorSettings(Section):
    """The hearing aid: the microphone's sound in headphones, at once. Not a medical device."""

    USUAL = ("output", "headphones", "volume_db", "limit_dbfs", "audiogram", "program", "noise_reduction", "alarm")
    output: int | str | None = Field(None, description="index or a part of the output's name; null: off")
    headphones: bool = Field(False, description="the output is headphones; asked for once, then remembered")
    volume_db: float = Field(0.0, ge=-60, le=30, description="on top of what the audiogram asks for")
    limit_dbfs: float = Field(-12.0, ge=-60, le=-1, description="no sample is ever above; cannot be switched off")
    limit_db_spl: float | None = Field(
        None, ge=60, le=110, description="the same in the ear; needs output_full_scale_db_spl"
    )
    input_full_scale_db_spl: float = Field(
        100.0, ge=60, le=140, description="dB SPL in the room that the microphone makes 0 dBFS of; a guess"
    )
    output_full_scale_db_spl: float | None = Field(
        None, ge=60, le=150, description="dB SPL in the ear of 0 dBFS; null: not known, full scale in is full scale out"
    )
    audiogram: Preset | EarsSettings | None = Field(
        None, description=f"mild, moderate, sloping, {_FORM}, or a YAML file with that; null: no correction"
    )
    program: Literal["auto", SceneName] = Field("auto", description="auto: as the scene asks for; else held")
    noise_reduction: bool = Field(True, description="as much as the program asks for")
    block_ms: float = Field(5.0, ge=2, le=5, description="of sound that is worked on at a time")
    reserve_ms: float = Field(5.0, ge=0, le=100, description="kept in the output; more drops out less and comes later")
    scenes: bool | None = Field(None, description="`scene` events; null: while the monitor is on")
    alarm: AlarmSettings = AlarmSettings()

    @field_validator("audiogram", mode="before")
    @classmethod
    def _audiogram(cls, value: object) -> object:
        """A preset, an audiogram, or a file that holds one: read here, once."""
        if isinstance(value, str):
            value = value if value in _PRESETS else _read(value)
        if isinstance(value, Mapping):
            try:
                return EarsSettings.model_validate({key: _ear(ear) for key, ear in value.items()})
            except ValidationError as error:
                raise ValueError(refusal(error, EarsSettings, "monitor.audiogram")) from None
        if value is not None and not isinstance(value, str | EarsSettings):
            raise ValueError(f"must be mild, moderate, sloping, a file, or {_FORM}")
        return value

    @model_validator(mode="after")
    def _limit_in_the_ear(self) -> "MonitorSettings":
        if self.limit_db_spl is not None and self.output_full_scale_db_spl is None:
            raise ValueError("monitor.limit_db_spl: needs output_full_scale_db_spl, what 0 dBFS is in the ear")
        return self

    @property
    def enabled(self) -> bool:
        """Whether it plays at all."""
        return self.output is not None

    @property
    def tells_scenes(self) -> bool:
        """Whether there are `scene` events."""
        return self.enabled if self.scenes is None else self.scenes

    @property
    def ceiling_dbfs(self) -> float:
        """The largest sample that may come out, the stricter of both limits."""
        if self.limit_db_spl is None or self.output_full_scale_db_spl is None:
            return self.limit_dbfs
        return min(self.limit_dbfs, self.limit_db_spl - self.output_full_scale_db_spl)


def _ear(value: object) -> object:
    """One ear; YAML from web pages and older tools has its frequencies as text."""
    if not isinstance(value, Mapping):
        return value
    return {int(hz) if isinstance(hz, str) and hz.strip().isdecimal() else hz: level for hz, level in value.items()}


def _read(given: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(Path(given).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"must be mild, moderate, sloping, or a file that can be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise ValueError("must be a file with YAML in it") from None
    if isinstance(found, dict) and set(found) == {"audiogram"}:
        found = found["audiogram"]
    if not isinstance(found, dict):
        raise ValueError(f"must be a file with {_FORM}")
    return found
