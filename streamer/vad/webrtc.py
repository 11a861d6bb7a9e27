"""Frames of 20 ms: is it a voice, how loud is it, and is it louder than the room.

webrtcvad calls noise, sirens, barks and music speech (on recordings of sounds it held the gate open for two thirds of
the time), so it is asked second: silero-vad decides, and where that is of two minds webrtcvad and a level above the
noise floor, the tenth percentile of the last seconds' frame levels, tip the scales. `vad.speech_probability: 0` leaves
silero-vad out.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
import webrtcvad
from numpy.typing import NDArray

from streamer.audio.loudness import dbfs
from streamer.events import SAMPLE_RATE
from streamer.settings.config import VadSettings
from streamer.vad.silero import SpeechProbability

FRAME_SAMPLES = SAMPLE_RATE // 50  # 320 samples: 20 ms
SILENCE_DB = -100.0  # what is quieter counts as digital silence, dB re full scale
FLOOR_FRAMES = 250  # the floor looks back over 5 s
FLOOR_EVERY = 5  # and is looked up anew every 100 ms
FLOOR_PERCENTILE = 10
TWO_MINDS = 0.6  # from this part of `vad.speech_probability` on webrtcvad's word counts
SURE_DOUBT = 0.4  # of the doubt that `vad.speech_probability` leaves a sure frame leaves this part: 0.8 at 0.5


@dataclass(frozen=True, slots=True)
class VoiceFrame:
    """One frame's judgement: `voiced`, its level and the noise floor in dB re full scale; `sure`: without a doubt."""

    voiced: bool
    level_db: float
    floor_db: float
    sure: bool = True


class VoiceDetector:
    """silero-vad and webrtcvad. Owned by the listener; one per stream."""

    def __init__(self, settings: VadSettings) -> None:
        self._vad = webrtcvad.Vad(settings.aggressiveness)
        self._above_floor_db = settings.above_floor_db
        self._likely = settings.speech_probability
        self._sure = 1 - SURE_DOUBT * (1 - self._likely)
        self._speech = SpeechProbability() if self._likely else None
        self._levels: deque[float] = deque(maxlen=FLOOR_FRAMES)
        self._floor_db = SILENCE_DB
        self._count = 0

    def step(self, frame: NDArray[np.float32]) -> VoiceFrame:
        """Judge one frame, float32 [320] in -1..1."""
        level_db = max(SILENCE_DB, dbfs(frame))
        if level_db > SILENCE_DB:
            self._levels.append(level_db)
        if self._count % FLOOR_EVERY == 0 and self._levels:
            ordered = sorted(self._levels)
            self._floor_db = ordered[len(ordered) * FLOOR_PERCENTILE // 100]
        self._count += 1
        # In the first second the floor is not known yet: the loudness of a voice alone must do.
        known = len(self._levels) >= FLOOR_FRAMES // 5
        loud = level_db > self._floor_db + self._above_floor_db if known else level_db > -60
        probability = self._speech.step(frame) if self._speech is not None else None
        voiced = self._voiced(frame, loud, probability)
        return VoiceFrame(voiced, level_db, self._floor_db, probability is None or probability >= self._sure)

    def _voiced(self, frame: NDArray[np.float32], loud: bool, probability: float | None) -> bool:
        if probability is not None and not TWO_MINDS * self._likely <= probability < self._likely:
            return probability >= self._likely
        pcm = np.round(np.clip(frame, -1.0, 32767 / 32768) * 32768).astype("<i2").tobytes()
        return loud and self._vad.is_speech(pcm, SAMPLE_RATE)
