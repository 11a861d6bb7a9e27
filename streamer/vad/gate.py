"""The gate: QUIET → STARTING → SPEAKING → STOPPING → QUIET, driven by voiced frames (pure).

It decides when text is decoded. It never decides whether we listen: encoder and tagging head run without asking it.
"""

import logging
from dataclasses import dataclass
from enum import Enum, auto

from streamer.events import FRAME_SAMPLES, SAMPLE_RATE
from streamer.settings.config import VadSettings

SILENCE_DB = -100.0  # level of digital silence, dB re full scale

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VoiceFrame:
    """One frame's judgement: `voiced`, its level in dB re full scale; `sure`: without a doubt."""

    voiced: bool
    level_db: float
    sure: bool = True


class GateState(Enum):
    """STARTING: voiced, but not surely or for long enough yet; STOPPING: unvoiced, but not for long enough yet."""

    QUIET = auto()
    STARTING = auto()
    SPEAKING = auto()
    STOPPING = auto()


@dataclass(frozen=True, slots=True)
class GateOpened:
    """Speech began: `speech_start` is the first voiced sample less the pre-roll, decided at `at_sample`."""

    at_sample: int
    speech_start: int


@dataclass(frozen=True, slots=True)
class GateClosed:
    """Speech ended: `speech_end` is the end of the last voiced frame, decided at `at_sample`."""

    at_sample: int
    speech_end: int


GateChange = GateOpened | GateClosed


class Gate:
    """One per stream; `step` takes frames in order."""

    def __init__(self, settings: VadSettings) -> None:
        self._onset_samples = settings.onset_ms * SAMPLE_RATE // 1000
        self._hangover_samples = settings.hangover_ms * SAMPLE_RATE // 1000
        self._preroll_samples = settings.preroll_ms * SAMPLE_RATE // 1000
        self.reset()

    def reset(self) -> None:
        """Back to QUIET at sample 0."""
        self.state = GateState.QUIET
        self._position = 0  # end of the last frame
        self._voiced_start = 0
        self._voiced_end = 0
        self._voiced_samples = 0  # voiced since STARTING
        self._sure = False  # a frame since STARTING left no doubt
        self._closed_at = 0

    @property
    def open(self) -> bool:
        """Whether text is due."""
        return self.state in (GateState.SPEAKING, GateState.STOPPING)

    def step(self, voiced: bool, sure: bool = True) -> GateChange | None:
        """Take the next frame of 320 samples; `sure`: there is no doubt that it is a voice."""
        start, self._position = self._position, self._position + FRAME_SAMPLES
        if voiced:
            return self._on_voice(start, sure)
        return self._on_pause()

    def finish(self) -> GateChange | None:
        """The input ended: close at once."""
        return self._close() if self.open else None

    def _on_voice(self, start: int, sure: bool) -> GateChange | None:
        self._voiced_end = self._position
        if self.state is GateState.QUIET:
            self._voiced_start, self._voiced_samples, self._sure = start, 0, False
            self._enter(GateState.STARTING)
        if self.state is GateState.STARTING:
            self._voiced_samples += FRAME_SAMPLES
            self._sure |= sure
            if self._sure and self._voiced_samples >= self._onset_samples:
                self._enter(GateState.SPEAKING)
                return GateOpened(self._position, max(self._voiced_start - self._preroll_samples, self._closed_at))
        elif self.state is GateState.STOPPING:
            self._enter(GateState.SPEAKING)
        return None

    def _on_pause(self) -> GateChange | None:
        silent_samples = self._position - self._voiced_end
        if self.state is GateState.STARTING and silent_samples >= self._onset_samples:
            self._enter(GateState.QUIET)
        elif self.state is GateState.SPEAKING:
            self._enter(GateState.STOPPING)
        if self.state is GateState.STOPPING and silent_samples >= self._hangover_samples:
            return self._close()
        return None

    def _close(self) -> GateClosed:
        self._enter(GateState.QUIET)
        self._closed_at = self._voiced_end
        return GateClosed(self._position, self._voiced_end)

    def _enter(self, state: GateState) -> None:
        log.debug("gate %s -> %s at sample %d", self.state.name, state.name, self._position)
        self.state = state
