"""Frames of 20 ms: is it a voice, how loud is it, and is it louder than the room.

silero-vad (v6, MIT; its network ships in the wheel of that name) says how likely it is that somebody speaks. It judges
pieces of 32 ms with a memory of what came before; frames get the newest judgement that their end allows. ONNX Runtime
computes it: about 1 % of a core. webrtcvad calls noise, sirens, barks and music speech (on recordings of sounds it held
the gate open for two thirds of the time), so it is asked second: where silero-vad is of two minds, webrtcvad and a
level above the noise floor, the tenth percentile of the last seconds' frame levels, tip the scales.
`vad.speech_probability: 0` leaves silero-vad out.
"""

import functools
from collections import deque
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import webrtcvad
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions

from streamer.audio.block import dbfs
from streamer.events import SAMPLE_RATE
from streamer.settings.config import VadSettings
from streamer.vad.planner import SILENCE_DB, VoiceFrame

PIECE_SAMPLES = 512  # 32 ms at 16 kHz, the only length that the network takes
BEFORE_SAMPLES = 64  # of the piece before, which it wants in front
STATE_SHAPE = (2, 1, 128)
RATE = np.array(16_000)
FLOOR_FRAMES = 250  # the floor looks back over 5 s
FLOOR_EVERY = 5  # and is looked up anew every 100 ms
FLOOR_PERCENTILE = 10
QUIET_DB = -60.0  # while the floor is not known yet, what is louder may be a voice
# With `vad.speech_probability` p: from 0.6 p up to p webrtcvad and the level decide, at 0.5 from 0.3 on; a frame is a
# voice beyond doubt from 1 - 0.4 (1 - p) on, at 0.5 from 0.8 on.
UNSURE_PART, SURE_DOUBT_PART = 0.6, 0.4


@functools.cache
def _network() -> InferenceSession:
    """The network, one for all streams: they bring their own states."""
    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    package = find_spec("silero_vad")  # which is not imported: it would set the number of torch's threads
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "data" / "silero_vad_16k_op15.onnx"
    return InferenceSession(path, options, providers=["CPUExecutionProvider"])


class SpeechProbability:
    """One per stream. `step` takes frames in order, of any length."""

    def __init__(self) -> None:
        self._network = _network()
        self._state = np.zeros(STATE_SHAPE, np.float32)
        self._waiting = np.zeros(BEFORE_SAMPLES, np.float32)  # the end of the last piece and what came since
        self._probability = 0.0

    def step(self, frame: NDArray[np.float32]) -> float:
        """The probability of speech, 0..1, in the newest whole piece of 512 samples; frame: float32 [n] in -1..1."""
        self._waiting = np.concatenate([self._waiting, frame])
        while len(self._waiting) >= BEFORE_SAMPLES + PIECE_SAMPLES:
            piece = self._waiting[None, : BEFORE_SAMPLES + PIECE_SAMPLES]
            self._waiting = self._waiting[PIECE_SAMPLES:]
            given = {"input": piece, "state": self._state, "sr": RATE}
            probability, self._state = self._network.run(None, given)
            self._probability = float(probability[0, 0])
        return self._probability


class VoiceDetector:
    """silero-vad and webrtcvad. Owned by the listener; one per stream."""

    def __init__(self, settings: VadSettings) -> None:
        self._vad = webrtcvad.Vad(settings.aggressiveness)
        self._above_floor_db = settings.above_floor_db
        self._likely = settings.speech_probability
        self._sure = 1 - SURE_DOUBT_PART * (1 - self._likely)
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
        floor_is_known = len(self._levels) >= FLOOR_FRAMES // 5
        loud = level_db > (self._floor_db + self._above_floor_db if floor_is_known else QUIET_DB)
        probability = self._speech.step(frame) if self._speech is not None else None
        voiced = self._voiced(frame, loud, probability)
        return VoiceFrame(voiced, level_db, probability is None or probability >= self._sure)

    def _voiced(self, frame: NDArray[np.float32], loud: bool, probability: float | None) -> bool:
        if probability is not None and not UNSURE_PART * self._likely <= probability < self._likely:
            return probability >= self._likely
        pcm = np.round(np.clip(frame, -1.0, 32767 / 32768) * 32768).astype("<i2").tobytes()
        return loud and self._vad.is_speech(pcm, SAMPLE_RATE)
