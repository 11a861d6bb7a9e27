"""Alarm patterns in the signal itself: T3 (smoke) and T4 (carbon monoxide) beeps, sirens, tones that stay or waver.

The signal goes through one spectrogram on a fixed grid of frames; each pattern is judged at fixed frames, so that the
chunking of the input changes nothing. A pattern is CANDIDATE, SOUNDING, or OVER (said once).
"""

import numpy as np
from numpy.typing import NDArray

from streamer.events import SAMPLE_RATE
from streamer.sound.patterns import t4
from streamer.sound.patterns.beeps import BLOCK, HIGHEST_BIN, KEPT_FRAMES, T3Detector
from streamer.sound.patterns.sirens import SirenDetector
from streamer.sound.patterns.spectrum import (
    ALARM_BINS,
    AROUND,
    BIN_HZ,
    FLOOR_DB,
    FRAME_HOP,
    FRAME_RATE,
    Decibels,
    Spectrogram,
    alarm_levels,
    known_until,
)
from streamer.sound.patterns.state import SIGN_SCORE, CadenceKind, CadenceState, Pattern
from streamer.sound.patterns.waver import WaverDetector

LOW_HZ, HIGH_HZ = 400.0, 4500.0
TONE_FRAMES = round(3 * FRAME_RATE)
SHARE = 0.3  # of the last 3 s, at one pitch: T3 sounds three eighths of the time
TONE_DB = 10.0  # above the bins around, on both sides
LOOK_FRAMES = 16  # 0.26 s
SAID_SAMPLES = SAMPLE_RATE // 2  # a sign is in sight for so long after a look


class CadenceDetector:
    """The patterns in a stream; the same for any chunking.

    `sirens`: whether anybody asks for sirens, which take five times the time of all the others.
    """

    def __init__(self, *, sirens: bool = True) -> None:
        self._spectrogram = Spectrogram()
        self._beeps = BeepDetector()
        self._sirens = SirenDetector() if sirens else None
        self._tones = ToneDetector()
        self._waver = WaverDetector()

    def step(self, samples: NDArray[np.float32], end_sample: int) -> list[CadenceState]:
        """Take the conditioned samples, float32 [n] at 16 kHz, up to `end_sample` and return the patterns in sight.

        A gap of more than 0.25 s before these samples (`end_sample` tells) makes the patterns start afresh.
        """
        levels, broken = self._spectrogram.push(samples, end_sample)
        if broken:
            self._beeps.reset()
            if self._sirens:
                self._sirens.reset()
            self._tones.reset()
            self._waver.reset()
        first = self._spectrogram.next_frame - levels.shape[0]
        self._beeps.push(levels, first)
        self._tones.push(levels, first)
        self._waver.push(levels, first)
        patterns = [*self._beeps.patterns, self._tones.pattern, self._waver.pattern]
        if self._sirens:
            self._sirens.push(levels, first)
            patterns += self._sirens.patterns
        return [state for pattern in patterns for state in pattern.states()]


class BeepDetector:
    """T3 and T4 in the bins where smoke and CO alarms sound."""

    def __init__(self) -> None:
        self._t3, self._t4 = T3Detector(), t4.T4Detector()
        self.patterns = (self._t3.pattern, self._t4.pattern)
        self.reset()

    def reset(self) -> None:
        """Forget the spectrogram (a gap), not the patterns that sound."""
        self._levels: Decibels = np.full((KEPT_FRAMES, HIGHEST_BIN + 1), FLOOR_DB, np.float32)
        self._tonality: Decibels = np.zeros((KEPT_FRAMES, ALARM_BINS.size), np.float32)
        self._t3.reset()
        self._t4.reset()

    def push(self, levels: Decibels, first_frame: int) -> None:
        """Take frames number `first_frame` and following: float32 [n, 257] dB."""
        _, tonality = alarm_levels(levels)
        wide = np.concatenate([self._levels, levels[:, : HIGHEST_BIN + 1]])
        history = np.take(wide, ALARM_BINS, axis=1)
        tones = np.concatenate([self._tonality, tonality])
        for offset in range(levels.shape[0]):
            frame, kept = first_frame + offset, slice(offset + 1, offset + 1 + KEPT_FRAMES)
            now = known_until(frame)
            if frame % t4.EVERY == 0:
                self._t4.look(history[kept], tones[kept], now)
            if frame % BLOCK == BLOCK - 1:
                self._t3.look(history[kept], tones[kept], wide[kept], now)
            for pattern in self.patterns:
                pattern.tick(now)
        self._levels, self._tonality = wide[levels.shape[0] :], tones[levels.shape[0] :]


class ToneDetector:
    """A tone that keeps its pitch for `SHARE` of the last seconds: no alarm by itself, but what nearly all consist of.

    It backs the tagging head where no pattern fits (a continuous horn, a bell, beeps of another cadence), only ever as
    a candidate. Birds, voices and whistling change their pitch; what keeps it (a kettle, a telephone) the tagger has to
    tell apart.
    """

    def __init__(self) -> None:
        self.pattern = Pattern(CadenceKind.TONE, timeout_s=0.0)
        self._bins = np.arange(int(LOW_HZ / BIN_HZ), int(HIGH_HZ / BIN_HZ) + 1)
        self.reset()

    def reset(self) -> None:
        """Forget what was heard (a gap)."""
        self._tonal = np.zeros((TONE_FRAMES, self._bins.size), np.uint8)

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
                self._look(tonal[offset + 1 : offset + 1 + TONE_FRAMES], now)
            self.pattern.tick(now)
        self._tonal = tonal[levels.shape[0] :]

    def _look(self, tonal: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], now: int) -> None:
        count = tonal.sum(axis=0, dtype=np.int32)
        pitches = count[:-2] + count[1:-1] + count[2:]  # neighbouring bins are one pitch
        best = int(pitches.argmax())
        if pitches[best] < SHARE * TONE_FRAMES:
            return
        heard = np.flatnonzero(tonal[:, best : best + 3].any(axis=1))
        ago = [(TONE_FRAMES - 1 - int(frame)) * FRAME_HOP for frame in (heard[0], heard[-1])]
        self.pattern.propose(max(0, now - ago[0]), now - ago[1], now + SAID_SAMPLES, SIGN_SCORE)
