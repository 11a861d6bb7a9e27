"""The listener: samples in, plans out. Pure and synchronous; the listener thread of the live program calls it.

Whatever the chunks, samples are conditioned, judged and planned in frames of 20 ms, so the plans are the same. It owns
the conditioner, the voice detector and the planner of one stream, and nothing else.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from streamer.audio.conditioning import Conditioner
from streamer.events import FRAME_SAMPLES, State
from streamer.plans import AudioLost, Hop, Noticed, Plan, StateChanged
from streamer.settings.config import Settings
from streamer.vad.planner import Planner
from streamer.vad.voice import VoiceDetector


class Listener:
    """One per stream. `position` is the end of the audio taken so far, in absolute samples."""

    def __init__(self, settings: Settings) -> None:
        self._conditioner = Conditioner()
        self._detector = VoiceDetector(settings.vad)
        self._planner = Planner(settings)
        self._rest = np.zeros(0, np.float32)
        self._framed = 0  # samples that went through the planner
        self._lost: list[AudioLost] = []  # announced once the frames that hold them are planned

    @property
    def position(self) -> int:
        """End of the audio taken so far."""
        return self._framed + len(self._rest)

    @property
    def level_db(self) -> float | None:
        """Level of the last hop, None before the first."""
        return self._planner.level_db

    def step(self, samples: NDArray[np.float32]) -> list[Plan]:
        """Take float32 [n], 16 kHz mono, any n; what is due by now, in order."""
        samples = np.concatenate([self._rest, np.asarray(samples, dtype=np.float32)])
        whole = len(samples) // FRAME_SAMPLES * FRAME_SAMPLES
        self._rest = samples[whole:]
        plans: list[Plan] = []
        for frame in samples[:whole].reshape(-1, FRAME_SAMPLES):
            plans += self._frame(frame)
        return plans

    def lost(self, count: int, reason: str) -> list[Plan]:
        """`count` samples went missing: zeros take their place and a gap is announced with the exact samples."""
        start = self.position
        self._lost.append(AudioLost(start + count, start, start + count, reason))
        plans: list[Plan] = []
        while count:
            piece = min(count, FRAME_SAMPLES * 50)
            for plan in self.step(np.zeros(piece, np.float32)):
                if isinstance(plan, Hop) and plan.end_sample - plan.new_samples >= start:
                    plan = replace(plan, lost=True)
                plans.append(plan)
            count -= piece
        return plans

    def state(self, state: State, detail: str) -> StateChanged:
        """The plan that passes on a change of the source's state, in its place among the others."""
        return StateChanged(self._framed, state, detail)

    def finish(self) -> list[Plan]:
        """The input ended: the rest of the audio, then the end of an open segment."""
        rest, self._rest = self._rest, np.zeros(0, np.float32)
        plans: list[Plan] = []
        if len(rest):
            frame = np.zeros(FRAME_SAMPLES, np.float32)
            frame[: len(rest)] = rest
            conditioned, reports = self._conditioner.step(frame)
            self._framed += len(rest)
            plans += [Noticed(self._framed, report) for report in reports]
            rest = conditioned[: len(rest)]
        plans += [Noticed(self._framed, report) for report in self._conditioner.finish()]
        plans += self._announced()
        return plans + list(self._planner.finish(rest))

    def _frame(self, frame: NDArray[np.float32]) -> list[Plan]:
        conditioned, reports = self._conditioner.step(frame)
        self._framed += FRAME_SAMPLES
        plans: list[Plan] = [Noticed(self._framed, report) for report in reports]
        plans += self._announced()
        return plans + list(self._planner.step(conditioned, self._detector.step(conditioned)))

    def _announced(self) -> list[Plan]:
        due = [replace(lost, end_sample=self._framed) for lost in self._lost if lost.lost_to <= self._framed]
        self._lost = [lost for lost in self._lost if lost.lost_to > self._framed]
        return list(due)
