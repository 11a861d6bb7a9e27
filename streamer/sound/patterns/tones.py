"""A tone that keeps its pitch: no alarm by itself, but what nearly every alarm that beeps or rings consists of.

It backs the tagging head where no pattern fits (a continuous horn, a bell, beeps of another cadence). Birds, voices and
whistling change their pitch; what keeps it (a kettle, a telephone) the tagger has to tell apart.
"""

import numpy as np

from streamer.events import SAMPLE_RATE
from streamer.sound.patterns.spectrum import AROUND, BIN_HZ, FRAME_HOP, FRAME_RATE, Decibels, known_until
from streamer.sound.patterns.state import SIGN_SCORE, CadenceKind, Pattern

LOW_HZ, HIGH_HZ = 400.0, 4500.0
KEPT_FRAMES = round(3 * FRAME_RATE)
SHARE = 0.3  # of the last 3 s, at one pitch: T3 sounds three eighths of the time
TONE_DB = 10.0  # above the bins around, on both sides
LOOK_FRAMES = 16  # 0.26 s
SAID_SAMPLES = SAMPLE_RATE // 2  # a sign is in sight for so long after a look


class ToneDetector:
    """Whether one pitch stands out for `SHARE` of the last seconds; only ever a candidate."""

    def __init__(self) -> None:
        self.pattern = Pattern(CadenceKind.TONE, timeout_s=0.0)
        self._bins = np.arange(int(LOW_HZ / BIN_HZ), int(HIGH_HZ / BIN_HZ) + 1)
        self.reset()

    def reset(self) -> None:
        """Forget what was heard (a gap)."""
        self._tonal = np.zeros((KEPT_FRAMES, self._bins.size), np.uint8)

    def push(self, levels: Decibels, first_frame: int) -> None:
        """Take frames number `first_frame` and following: float32 [n, 257] dB."""
        around = np.maximum.reduce([levels[:, self._bins + step] for step in AROUND])
        near = np.maximum(levels[:, self._bins - 1], levels[:, self._bins + 1])
        level = levels[:, self._bins]
        tonal = np.concatenate([self._tonal, ((level - around >= TONE_DB) & (level >= near)).astype(np.uint8)])
        for offset in range(levels.shape[0]):
            frame = first_frame + offset
            now = known_until(frame)
            if frame % LOOK_FRAMES == LOOK_FRAMES - 1:
                self._look(tonal[offset + 1 : offset + 1 + KEPT_FRAMES], now)
            self.pattern.tick(now)
        self._tonal = tonal[levels.shape[0] :]

    def _look(self, tonal: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], now: int) -> None:
        count = tonal.sum(axis=0, dtype=np.int32)
        pitches = count[:-2] + count[1:-1] + count[2:]  # neighbouring bins are one pitch
        best = int(pitches.argmax())
        if pitches[best] < SHARE * KEPT_FRAMES:
            return
        heard = np.flatnonzero(tonal[:, best : best + 3].any(axis=1))
        ago = [(KEPT_FRAMES - 1 - int(frame)) * FRAME_HOP for frame in (heard[0], heard[-1])]
        self.pattern.propose(max(0, now - ago[0]), now - ago[1], now + SAID_SAMPLES, SIGN_SCORE)
