"""What is wrong with the sound itself: values that are not finite, a constant offset, clipping. Mended, and reported.

Works on fixed frames of 20 ms, so that the chunking of the input cannot change a bit. Sound with nothing wrong passes
untouched, the same array.
"""

from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from streamer.events import FRAME_SAMPLES
from streamer.events.plans import Report, Trouble

DC_ON, DC_OFF = 0.01, 0.005  # offset (full scale 1) above which it is taken out, below which it is left alone again
_DC_NEWS = 0.03  # from here on people are told: a microphone with less is a common one, and nothing is worse for it
_DC_PART_FRAMES, _DC_PARTS = 25, 4  # judged over 2 s, in half seconds
_DC_STEADY = 0.5  # the smallest half second's share of the largest: else it is a thump, rumble or a cut in the material
_DC_PULL = 0.1  # share of the distance to the estimate that the correction moves in a frame: no step is heard
_DC_CLOSE = 1e-5  # the correction arrives when it is this near

FULL_SCALE = float(np.float32(0.9995))  # from here on a sample counts as clipped (int16 ends at 0.99997)
_CLIP_RUN_SAMPLES = 3  # so many of one sign in a row; a single peak may touch full scale
_CLIP_WINDOW_FRAMES = 50  # a clean second ends an episode
_CLIP_ON_SAMPLES = 32  # 2 ms of clipping within it begin one
_NOT_FINITE_MOST_FRAMES = 50  # a longer stretch is reported second by second


class Conditioner:
    """Frame in, frame out, one state for one stream. Pure: no clock, no threads."""

    def __init__(self, start_sample: int = 0) -> None:
        self._at = start_sample
        self._not_finite = _Stretch()
        self._clipping = _Clipping()
        self._offset = _Offset()

    def step(self, frame: NDArray[np.float32]) -> tuple[NDArray[np.float32], tuple[Report, ...]]:
        """The next frame, float32 [320]: the frame to go on with, within -1..1, and what was found in it.

        Raises ValueError for any other length.
        """
        if frame.shape != (FRAME_SAMPLES,):
            raise ValueError(f"frame has shape {frame.shape}: must be ({FRAME_SAMPLES},)")
        start, self._at = self._at, self._at + FRAME_SAMPLES
        reports: list[Report] = []
        peak = float(max(frame.max(), -frame.min()))
        if not np.isfinite(peak):
            finite = np.isfinite(frame)
            reports += self._not_finite.step(start, finite)
            frame = np.where(finite, frame, np.float32(0))
            peak = float(np.abs(frame).max())
        else:
            reports += self._not_finite.close()
        reports += self._clipping.step(start, frame, peak)
        if peak > 1:
            frame = np.clip(frame, np.float32(-1), np.float32(1))
        frame, found = self._offset.step(start, frame)
        return frame, (*reports, *found)

    def finish(self) -> tuple[Report, ...]:
        """The end of the input: a stretch that is not over is reported now."""
        return tuple(self._not_finite.close())


class _Stretch:
    """Joins neighbouring frames with values that are not finite into one report with exact ends."""

    def __init__(self) -> None:
        self._start = self._end = self._count = 0

    def step(self, start: int, finite: NDArray[np.bool_]) -> Iterator[Report]:
        """A frame in which some are not."""
        bad = np.flatnonzero(~finite)
        if self._end - self._start >= _NOT_FINITE_MOST_FRAMES * FRAME_SAMPLES:
            yield from self.close()
        if not self._count:
            self._start = start + int(bad[0])
        self._end = start + int(bad[-1]) + 1
        self._count += len(bad)

    def close(self) -> Iterator[Report]:
        count, self._count = self._count, 0
        start, self._start = self._start, self._end
        if count:
            detail = f"{count} samples were not finite (NaN or infinity)"
            yield Report(Trouble.NOT_FINITE, start, self._end, count, detail)


class _Clipping:
    """Finds runs at full scale and tells of an episode when it begins."""

    def __init__(self) -> None:
        self._run, self._sign = 0, 0.0  # of the run that reaches the end of the last frame
        self._recent: deque[tuple[int, int, int]] = deque(maxlen=_CLIP_WINDOW_FRAMES)  # per frame: count, first, end
        self._count = 0  # of all of them
        self._peak = 0.0
        self._on = False

    def step(self, start: int, frame: NDArray[np.float32], peak: float) -> Iterator[Report]:
        """`peak`: the largest size in the frame."""
        self._count -= self._recent[0][0] if len(self._recent) == _CLIP_WINDOW_FRAMES else 0
        self._recent.append(self._runs(start, frame, peak))
        self._count += self._recent[-1][0]
        count = self._count
        if self._on:
            self._on = count > 0
        elif count >= _CLIP_ON_SAMPLES:
            self._on = True
            clipped = [one for one in self._recent if one[0]]
            detail = f"the level is too high: {count} samples at full scale within a second"
            if self._peak > 1:
                detail += f", peak {self._peak:.3g} where 1 is the most"
            yield Report(Trouble.CLIPPING, min(one[1] for one in clipped), clipped[-1][2], count, detail)
        if not count:
            self._peak = 0.0

    def _runs(self, start: int, frame: NDArray[np.float32], peak: float) -> tuple[int, int, int]:
        """Clipped samples that become certain in this frame: how many, the first, and the end behind the last."""
        if peak < FULL_SCALE:
            self._run = 0
            return 0, 0, 0
        loud = np.abs(frame) >= FULL_SCALE
        self._peak = max(self._peak, peak)
        signs = np.where(loud, np.sign(frame), 0)
        edges = np.flatnonzero(np.diff(signs)) + 1
        total, first, end = 0, 0, 0
        for left, right in zip([0, *edges.tolist()], [*edges.tolist(), FRAME_SAMPLES], strict=True):
            before = self._run if left == 0 and signs[0] == self._sign else 0
            run = before + right - left
            if signs[left] and run >= _CLIP_RUN_SAMPLES:
                carried = before if before < _CLIP_RUN_SAMPLES else 0  # too short to count until now
                first = first if total else start + left - carried
                total, end = total + carried + right - left, start + right
            self._run, self._sign = (run, float(signs[left])) if signs[left] else (0, 0.0)
        return total, first, end


class _Offset:
    """Estimates a constant offset over two seconds and takes it out without a step."""

    def __init__(self) -> None:
        self._means: deque[float] = deque(maxlen=_DC_PART_FRAMES * _DC_PARTS)
        self._on = False
        self._correction = 0.0

    def step(self, start: int, frame: NDArray[np.float32]) -> tuple[NDArray[np.float32], tuple[Report, ...]]:
        if not frame.any():
            return frame, ()  # digital silence has no offset, and says nothing of the microphone's
        self._means.append(float(frame.mean(dtype=np.float64)))
        begins = self._judge()
        before, self._correction = self._correction, self._next_correction()
        if before or self._correction:
            ramp = np.linspace(before, self._correction, FRAME_SAMPLES + 1)[1:]
            frame = np.clip(frame - ramp, -1, 1).astype(np.float32)
        if not begins or abs(self._estimate()) < _DC_NEWS:
            return frame, ()
        end = start + FRAME_SAMPLES
        detail = f"a constant offset of {self._estimate():+.3f} is taken out"
        first = max(0, end - len(self._means) * FRAME_SAMPLES)
        return frame, (Report(Trouble.DC_OFFSET, first, end, end - first, detail),)

    def _estimate(self) -> float:
        return sum(self._means) / len(self._means)

    def _judge(self) -> bool:
        """Whether an episode begins with this frame."""
        if len(self._means) < _DC_PART_FRAMES * _DC_PARTS:
            return False
        if not self._on and abs(self._estimate()) <= DC_ON:
            return False  # not all parts can be larger
        means = np.array(self._means).reshape(_DC_PARTS, _DC_PART_FRAMES).mean(axis=1)
        sizes = np.abs(means)
        steady = np.ptp(np.sign(means)) == 0 and sizes.min() >= _DC_STEADY * sizes.max()
        was_on = self._on
        self._on = abs(self._estimate()) > DC_OFF if was_on else bool(steady and sizes.min() > DC_ON)
        return self._on and not was_on

    def _next_correction(self) -> float:
        target = self._estimate() if self._on else 0.0
        if abs(target - self._correction) < _DC_CLOSE:
            return target
        return self._correction + (target - self._correction) * _DC_PULL
