"""The gate and the planner: voiced frames in, plans out (pure). One `Hop` each hop, openings, closings, beats between.

The gate decides when text is decoded. It never decides whether we listen: every second of audio has one hop with
`judge`, whether anybody speaks or not. A closing never needs a window of its own, because the hangover is at least a
hop long, so the last hop's window already holds the last word.
"""

import logging
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from streamer.events import FRAME_SAMPLES, SAMPLE_RATE
from streamer.events.plans import Beat, Hop, Plan, SegmentClosed, SegmentOpened, SpeechOver
from streamer.settings.config import Settings, VadSettings

BEAT_SAMPLES = 1_600  # 0.1 s: the patterns of alarms need no model, so they need not wait for the hop
DIGITAL_SILENCE = 1.5 / 32768  # nothing but the last bit of 16-bit audio
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


class Gate:
    """QUIET → STARTING → SPEAKING → STOPPING → QUIET, driven by frames in order. One per stream."""

    def __init__(self, settings: VadSettings, start_sample: int = 0) -> None:
        self._onset_samples = settings.onset_ms * SAMPLE_RATE // 1000
        self._hangover_samples = settings.hangover_ms * SAMPLE_RATE // 1000
        self._preroll_samples = settings.preroll_ms * SAMPLE_RATE // 1000
        self.state = GateState.QUIET
        self._position = start_sample  # end of the last frame
        self._voiced_start = 0
        self._voiced_end = 0
        self._voiced_samples = 0  # voiced since STARTING
        self._sure = False  # a frame since STARTING left no doubt
        self._closed_at = start_sample

    @property
    def open(self) -> bool:
        """Whether text is due."""
        return self.state in (GateState.SPEAKING, GateState.STOPPING)

    def step(self, voiced: bool, sure: bool = True) -> SegmentOpened | SegmentClosed | None:
        """Take the next frame of 320 samples; `sure`: there is no doubt that it is a voice.

        An utterance starts with its first voiced sample less the pre-roll, and ends with its last voiced frame.
        """
        start, self._position = self._position, self._position + FRAME_SAMPLES
        if not voiced:
            return self._on_pause()
        self._voiced_end = self._position
        if self.state is GateState.QUIET:
            self._voiced_start, self._voiced_samples, self._sure = start, 0, False
            self._enter(GateState.STARTING)
        if self.state is GateState.STARTING:
            self._voiced_samples += FRAME_SAMPLES
            self._sure |= sure
            if self._sure and self._voiced_samples >= self._onset_samples:
                self._enter(GateState.SPEAKING)
                return SegmentOpened(self._position, max(self._voiced_start - self._preroll_samples, self._closed_at))
        elif self.state is GateState.STOPPING:
            self._enter(GateState.SPEAKING)
        return None

    def close(self) -> SegmentClosed | None:
        """Nobody speaks any more, or the input ended: close at once what is open."""
        if not self.open:
            return None
        self._enter(GateState.QUIET)
        self._closed_at = self._voiced_end
        return SegmentClosed(self._position, self._voiced_end)

    def _on_pause(self) -> SegmentClosed | None:
        silent_samples = self._position - self._voiced_end
        if self.state is GateState.STARTING and silent_samples >= self._onset_samples:
            self._enter(GateState.QUIET)
        elif self.state is GateState.SPEAKING:
            self._enter(GateState.STOPPING)
        if self.state is GateState.STOPPING and silent_samples >= self._hangover_samples:
            return self.close()
        return None

    def _enter(self, state: GateState) -> None:
        log.debug("gate %s -> %s at sample %d", self.state.name, state.name, self._position)
        self.state = state


class Planner:
    """One per stream. `step` takes conditioned frames of 320 samples with the detector's judgement."""

    def __init__(self, settings: Settings, start_sample: int = 0) -> None:
        """`start_sample`: where the first frame begins."""
        self._gate = Gate(settings.vad, start_sample)
        self._hop_samples = round(settings.window.hop_s * SAMPLE_RATE)
        self._pause_samples = settings.policy.segment_pause_ms * SAMPLE_RATE // 1000
        self._position = start_sample
        self._frames: list[NDArray[np.float32]] = []
        self._voices: list[VoiceFrame] = []
        self._sound_since_judgement = False
        self.level_db: float | None = None  # of the last hop
        self._speech_end: int | None = None  # of an utterance that is closed and may go on

    def step(self, frame: NDArray[np.float32], voice: VoiceFrame) -> list[Plan]:
        """Plans that are due at the end of this frame, in the order in which they must be carried out."""
        self._position += len(frame)
        self._frames.append(frame)
        self._voices.append(voice)
        plans: list[Plan] = []
        change = self._gate.step(voice.voiced, voice.sure)
        if change is not None:
            plans.append(change)
            self._speech_end = change.speech_end_sample if isinstance(change, SegmentClosed) else None
        if self._speech_end is not None and self._position - self._speech_end >= self._pause_samples:
            plans.append(SpeechOver(self._position, self._speech_end))
            self._speech_end = None
        if self._position % self._hop_samples == 0:
            plans.append(self._hop())
        elif self._position % BEAT_SAMPLES == 0:
            plans.append(Beat(self._position, np.concatenate(self._frames[-BEAT_SAMPLES // len(frame) :])))
        return plans

    def finish(self, rest: NDArray[np.float32]) -> list[Plan]:
        """The input ended with `rest` (fewer than 320 samples): one last, shorter hop, then the gate closes."""
        if len(rest):
            self._frames.append(rest)
            self._position += len(rest)
        plans: list[Plan] = [self._hop()] if self._frames else []
        if (change := self._gate.close()) is not None:
            self._speech_end = change.speech_end_sample
            plans.append(SegmentClosed(self._position, change.speech_end_sample))
        if self._speech_end is not None:  # nobody will go on
            plans.append(SpeechOver(self._position, self._speech_end))
        return plans

    def _hop(self) -> Hop:
        samples = np.concatenate(self._frames)
        self._sound_since_judgement |= bool(np.max(np.abs(samples)) > DIGITAL_SILENCE)
        judge = self._position % SAMPLE_RATE == 0
        hop = Hop(
            end_sample=self._position,
            samples=samples,
            voiced=tuple(voice.voiced for voice in self._voices),
            text=self._gate.open,
            judge=judge,
            silent=not self._sound_since_judgement,
            level_db=max((voice.level_db for voice in self._voices), default=SILENCE_DB),
        )
        self.level_db = hop.level_db
        self._frames, self._voices = [], []
        if judge:
            self._sound_since_judgement = False
        return hop
