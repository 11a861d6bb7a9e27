"""What kind of surroundings these are: a state machine over tags, levels and voice activity, one judgement a second.

Levels are those of frames of 20 ms over the last seconds: speech has pauses, so the soft frames tell the noise behind
it. A scene is left when another was better by a margin for two judgements in a row; an alarm is one at once, and stays
one until nothing speaks for it for some seconds.
"""

import logging
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.events import FRAME_SAMPLES, SAMPLE_RATE, Scene, SceneName, SceneScores, Stamp, seconds
from streamer.sound.labels import group

MEMORY_S: Final = 4.0
SMOOTHING: Final = 0.5  # weight of the newest second
MARGIN: Final = 0.1
CONFIRM: Final = 2  # judgements in a row
ALARM_ON: Final = 0.6
ALARM_OFF: Final = 0.3
ALARM_STAYS: Final = 3  # judgements without it
NOISY_DEPTH_DB: Final = 18.0  # loud frames stand less than this above soft ones: somebody speaks in noise
QUIET_DB_SPL: Final = 42.0  # of the loud frames; a quiet room at night has 30, one with people in it 50
SILENCE_DB: Final = -120.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SceneChange:
    """Another scene from this sample on."""

    scene: SceneName
    start_sample: int
    scores: SceneScores

    def event(self, stamp: Stamp) -> Scene:
        """The protocol's `scene`, in seconds."""
        return Scene(**stamp, scene=self.scene, start=seconds(self.start_sample), scores=self.scores)


class SceneMachine:
    """One session's. `full_scale_db_spl`: dB SPL in the room that the microphone makes 0 dBFS of."""

    def __init__(self, full_scale_db_spl: float) -> None:
        self._quiet_dbfs = QUIET_DB_SPL - full_scale_db_spl
        frames = round(MEMORY_S * SAMPLE_RATE / FRAME_SAMPLES)
        self._levels: deque[float] = deque(maxlen=frames)
        self._voiced: deque[bool] = deque(maxlen=frames)
        self._music, self._singing = sorted(group("music")), sorted(group("singing"))
        self._speech, self._alarms = sorted(group("speech")), sorted(group("every_alarm"))
        self._smooth: dict[SceneName, float] = {}
        self.scene: SceneName | None = None
        self._candidate: tuple[SceneName, int, int] | None = None  # scene, since which sample, judgements
        self._without_alarm = 0

    def hear(self, samples: NDArray[np.float32], voiced: Sequence[bool]) -> None:
        """A hop: float32 [n] and whether each of its frames is a voice."""
        frames = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
        power = np.mean(np.square(frames, dtype=np.float64), axis=1)
        self._levels.extend((10 * np.log10(np.maximum(power, 1e-12))).tolist())
        self._voiced.extend(voiced)

    def judge(self, scores: NDArray[np.float32] | None, at_sample: int, *, alarm: bool = False) -> SceneChange | None:
        """A second is over. `scores` [527]: what the tagger says, None: there is none; `alarm`: a rule knows of one."""
        now = self._evidence(scores, alarm)
        self._smooth = {
            name: score if not self._smooth else self._smooth[name] + SMOOTHING * (score - self._smooth[name])
            for name, score in now.items()
        }
        self._without_alarm = 0 if now["alarm"] >= ALARM_OFF else self._without_alarm + 1
        if now["alarm"] >= ALARM_ON:
            return self._enter("alarm", at_sample - SAMPLE_RATE)
        if self.scene == "alarm" and self._without_alarm < ALARM_STAYS:
            return None
        others: dict[SceneName, float] = {name: score for name, score in self._smooth.items() if name != "alarm"}
        best = max(others, key=lambda name: others[name])
        margin = MARGIN if self.scene in others else 0.0
        if best == self.scene or others[best] < others.get(self.scene or best, 0.0) + margin:
            self._candidate = None
            return None
        same = self._candidate is not None and self._candidate[0] == best
        since, count = self._candidate[1:] if self._candidate and same else (at_sample - SAMPLE_RATE, 0)
        self._candidate = best, since, count + 1
        return self._enter(best, since) if count + 1 >= CONFIRM else None

    def _enter(self, scene: SceneName, since: int) -> SceneChange | None:
        self._candidate = None
        if scene == self.scene:
            return None
        logger.debug("scene: %s -> %s at %d", self.scene, scene, since)
        self.scene = scene
        rounded = {one.name: round(self._smooth[one.name], 4) for one in fields(SceneScores)}  # type: ignore[index]
        return SceneChange(scene, max(0, since), SceneScores(**rounded))

    def _evidence(self, scores: NDArray[np.float32] | None, alarm: bool) -> dict[SceneName, float]:
        """How much speaks for each scene, 0..1."""
        levels = np.array(self._levels or [SILENCE_DB])
        soft, loud = np.percentile(levels, [10, 95])
        voice = float(np.mean(self._voiced)) if self._voiced else 0.0
        tagged = {"speech": voice, "music": 0.0, "alarm": 0.0}
        if scores is not None:
            tagged["speech"] = float(scores[self._speech].max())
            tagged["music"] = max(float(scores[self._music].max()), 0.8 * float(scores[self._singing].max()))
            tagged["alarm"] = float(scores[self._alarms].max())
        speech = min(1.0, 0.5 * tagged["speech"] + min(0.5, voice))
        noisy = _step(NOISY_DEPTH_DB - (loud - soft), 3.0) * _step(soft - self._quiet_dbfs, 3.0)
        quiet = _step(self._quiet_dbfs - loud, 3.0)
        alarming = 1.0 if alarm else tagged["alarm"]
        music = tagged["music"] * (1 - 0.7 * speech)
        known = max(speech, music, alarming)
        return {
            "quiet": quiet * (1 - 0.5 * speech),
            "speech": speech * (1 - noisy) * (1 - 0.5 * quiet),
            "speech_in_noise": speech * noisy,
            "noise": (1 - quiet) * (1 - known),
            "music": music * (1 - quiet),
            "alarm": alarming,
        }


def _step(value: float, width: float) -> float:
    """0 far below 0, 1 far above, in between by `width`."""
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, value / width))))
