"""A high tone that does not keep its pitch: a kettle's whistle, a voice, a bird; no smoke alarm is one.

To a tagging head a whistling kettle is a smoke alarm, often surely so. A circuit makes the tone of an alarm: from one
64 ms to the next its pitch moves by less than 10 Hz. That of air and water moves by 20 to 80 Hz, on and on. So: the
strongest pitch of the last two seconds stands out, it can be followed, and it hardly ever stays where it was, at two
looks in a row: alarms that are clipped or beside talk and music show it at one now and then. On the development
recordings (docs/alerts.md) that holds most of the time for both kettles and for no smoke alarm but one of a doubtful
label, nor (but for a moment of one) when a street or music as loud was added. An alarm whose pitch glides slowly above
1.2 kHz would be taken for such a tone.
"""

import numpy as np
from numpy.typing import NDArray

from streamer.events import SAMPLE_RATE
from streamer.sound.patterns.spectrum import AROUND, BIN_HZ, FRAME_HOP, FRAME_RATE, Decibels, known_until
from streamer.sound.patterns.state import SIGN_SCORE, CadenceKind, Pattern

LOW_HZ, HIGH_HZ = 1200.0, 5600.0
BLOCK = 4  # frames, 64 ms
BLOCKS = round(2 * FRAME_RATE / BLOCK)
STAYS_BINS, FOLLOWS_BINS = 0.3, 2.5  # from block to block: it kept its pitch (9 Hz), it is still the same tone
STAYS_MOST, FOLLOWS_LEAST = 0.25, 0.4  # of the steps
STANDS_OUT_DB = 3.5  # the median, above the bins around
LOOK_BLOCKS = 4  # 0.26 s
LOOKS = 2  # in a row
SAID_SAMPLES = SAMPLE_RATE // 2  # it is in sight for so long after a look

Floats = NDArray[np.float64]


class WaverDetector:
    """Follows the strongest high tone; a candidate while it wavers. The same for any chunking."""

    def __init__(self) -> None:
        self.pattern = Pattern(CadenceKind.WAVER, timeout_s=0.0)
        self._bins = np.arange(int(LOW_HZ / BIN_HZ), int(HIGH_HZ / BIN_HZ) + 1)
        self.reset()

    def reset(self) -> None:
        """Forget what was heard (a gap)."""
        self._frames: list[Decibels] = []  # of the block that is not complete
        self._pitches: list[float] = []
        self._heights: list[float] = []
        self._looks = 0  # in a row in which it wavered

    def push(self, levels: Decibels, first_frame: int) -> None:
        """Take frames number `first_frame` and following: float32 [n, 257] dB."""
        for offset in range(levels.shape[0]):
            frame = first_frame + offset
            self._frames.append(levels[offset])
            if frame % BLOCK == BLOCK - 1:
                self._follow(np.mean(10 ** (np.stack(self._frames) / 10), axis=0))
                self._frames = []
                if frame // BLOCK % LOOK_BLOCKS == LOOK_BLOCKS - 1:
                    self._look(known_until(frame))
            self.pattern.tick(known_until(frame))

    def _follow(self, power: Floats) -> None:
        """The strongest bin of a block's mean power [257], to a part of a bin, and how far it stands out."""
        level = 10 * np.log10(power)
        best = int(self._bins[level[self._bins].argmax()])
        before, peak, behind = level[best - 1 : best + 2]
        bend = before - 2 * peak + behind
        off = 0.0 if bend >= 0 else float(np.clip((before - behind) / (2 * bend), -0.5, 0.5))
        self._pitches = [*self._pitches[-BLOCKS + 1 :], best + off]
        self._heights = [*self._heights[-BLOCKS + 1 :], float(peak - max(level[best + step] for step in AROUND))]

    def _look(self, now: int) -> None:
        self._looks = self._looks + 1 if self._wavers() else 0
        if self._looks >= LOOKS:
            since = max(0, now - BLOCKS * BLOCK * FRAME_HOP)
            self.pattern.propose(since, now, now + SAID_SAMPLES, SIGN_SCORE)

    def _wavers(self) -> bool:
        if len(self._pitches) < BLOCKS:
            return False
        steps = np.abs(np.diff(self._pitches))
        stays, follows = float(np.mean(steps < STAYS_BINS)), float(np.mean(steps <= FOLLOWS_BINS))
        return stays < STAYS_MOST and follows >= FOLLOWS_LEAST and float(np.median(self._heights)) >= STANDS_OUT_DB
