"""The planner: frames in, plans out (pure). One `Hop` each hop; the gate's openings and closings and beats in between.

What it promises: every second of audio has one hop with `judge`, whether anybody speaks or not; a closing never needs a
window of its own, because the hangover is at least a hop long, so the last hop's window already holds the last word.
"""

import numpy as np
from numpy.typing import NDArray

from streamer.events import SAMPLE_RATE
from streamer.plans import Beat, Hop, Plan, SegmentClosed, SegmentOpened, SpeechOver
from streamer.settings.config import Settings
from streamer.vad.gate import SILENCE_DB, Gate, GateClosed, GateOpened, VoiceFrame

BEAT_SAMPLES = 1_600  # 0.1 s: the patterns of alarms need no model, so they need not wait for the hop
DIGITAL_SILENCE = 1.5 / 32768  # nothing but the last bit of 16-bit audio


class Planner:
    """One per stream. `step` takes conditioned frames of 320 samples with the detector's judgement."""

    def __init__(self, settings: Settings) -> None:
        self._gate = Gate(settings.vad)
        self._hop_samples = round(settings.window.hop_s * SAMPLE_RATE)
        self._pause_samples = settings.policy.segment_pause_ms * SAMPLE_RATE // 1000
        self.reset()

    def reset(self) -> None:
        """Back to sample 0 with a closed gate."""
        self._gate.reset()
        self._position = 0
        self._frames: list[NDArray[np.float32]] = []
        self._voices: list[VoiceFrame] = []
        self._sound_since_judgement = False
        self.level_db: float | None = None  # of the last hop
        self._speech_end: int | None = None  # of an utterance that is closed and may go on

    @property
    def speaking(self) -> bool:
        """Whether the gate is open."""
        return self._gate.open

    def step(self, frame: NDArray[np.float32], voice: VoiceFrame) -> list[Plan]:
        """Plans that are due at the end of this frame, in the order in which they must be carried out."""
        self._position += len(frame)
        self._frames.append(frame)
        self._voices.append(voice)
        plans: list[Plan] = []
        change = self._gate.step(voice.voiced, voice.sure)
        if isinstance(change, GateOpened):
            self._speech_end = None
            plans.append(SegmentOpened(change.at_sample, change.speech_start))
        elif isinstance(change, GateClosed):
            self._speech_end = change.speech_end
            plans.append(SegmentClosed(change.at_sample, change.speech_end))
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
        change = self._gate.finish()
        if isinstance(change, GateClosed):
            self._speech_end = change.speech_end
            plans.append(SegmentClosed(self._position, change.speech_end))
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
