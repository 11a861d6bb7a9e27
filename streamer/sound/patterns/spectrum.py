"""A streaming spectrogram on a fixed grid, the same frames for any chunking; its bins in which alarms sound."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

WINDOW_SAMPLES = 512  # 32 ms: beeps of 0.1 s stay apart, a tone stands 20 dB above noise of its own power
FRAME_HOP = 256  # 16 ms, 62.5 frames a second
FRAME_RATE = 16_000 / FRAME_HOP
BIN_HZ = 16_000 / WINDOW_SAMPLES  # 31.25 Hz
FLOOR_DB = -110.0  # quieter than this is nothing
BRIDGED_SAMPLES = 4_000  # a gap of up to 0.25 s is bridged with zeros, a longer one starts afresh

Decibels = NDArray[np.float32]

ALARM_HZ = ((470.0, 565.0), (2600.0, 3800.0))  # with room for error
_bands = [np.arange(int(low / BIN_HZ), int(high / BIN_HZ) + 1) for low, high in ALARM_HZ]
ALARM_BINS = np.concatenate(_bands)  # columns of what `alarm_levels` gives
ALARM_BANDS = tuple(slice(int(first), int(end)) for first, end in pairwise(np.cumsum([0, *map(len, _bands)])))
AROUND = (-4, -3, 3, 4)  # bins that a tone stands above


@dataclass(slots=True)
class Spectrogram:
    """Level in dB (0: a full-scale sine) of each frame and bin. Frame i covers samples [256 i, 256 i + 512)."""

    next_frame: int = 0
    _rest: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    _at: int | None = None  # absolute index behind the last sample taken
    _window: NDArray[np.float32] = field(default_factory=lambda: np.hanning(WINDOW_SAMPLES + 1)[:-1].astype(np.float32))

    def push(self, samples: NDArray[np.float32], end_sample: int) -> tuple[Decibels, bool]:
        """Frames float32 [n, 257] that became complete, the first of them being number `next_frame - n`.

        The second value is True where samples are missing before these: what came earlier does not connect.
        """
        start = end_sample - samples.size
        missing = 0 if self._at is None else start - self._at
        broken = self._at is None or not 0 <= missing <= BRIDGED_SAMPLES
        if broken:
            self.next_frame = start // FRAME_HOP
            self._rest = np.concatenate([np.zeros(start % FRAME_HOP, np.float32), samples])
        else:
            self._rest = np.concatenate([self._rest, np.zeros(missing, np.float32), samples])
        self._at = end_sample
        count = max(0, (self._rest.size - WINDOW_SAMPLES) // FRAME_HOP + 1)
        frames = np.lib.stride_tricks.sliding_window_view(self._rest, WINDOW_SAMPLES)[::FRAME_HOP] if count else None
        levels = (
            self._levels(frames[:count]) if frames is not None else np.zeros((0, WINDOW_SAMPLES // 2 + 1), np.float32)
        )
        self._rest = self._rest[count * FRAME_HOP :].copy()
        self.next_frame += count
        return levels, broken

    def _levels(self, frames: NDArray[np.float32]) -> Decibels:
        spectrum = np.fft.rfft(frames * self._window)
        power = (spectrum.real**2 + spectrum.imag**2) * np.float32((4 / WINDOW_SAMPLES) ** 2)
        levels: Decibels = (10 * np.log10(power + 10 ** (FLOOR_DB / 10))).astype(np.float32)
        return levels


def known_until(frame: int) -> int:
    """The sample up to which a detector knows the sound after this frame: half a hop behind the frame's middle."""
    return frame * FRAME_HOP + (WINDOW_SAMPLES + FRAME_HOP) // 2


def alarm_levels(levels: Decibels) -> tuple[Decibels, Decibels]:
    """Of frames [n, 257] in dB: the levels in ALARM_BINS [n, bins], and how far each stands above the bins around."""
    around = sum(levels[:, ALARM_BINS + step] for step in AROUND) / len(AROUND)
    own = levels[:, ALARM_BINS]
    return own, own - around
