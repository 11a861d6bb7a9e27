"""What crosses from the program to an engine and back: one window each, plain values, nothing of the model's inside.

A window crosses as its mel in the precision that the model computes in, which loses nothing: 16 bits a value where
that is half precision (16 kB for a second of audio with 80 bands), 32 bits on CPUs that compute in float32 (32 kB, as
much as 16-bit samples). The silence behind a padded window is one column, not ten seconds of it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamer.audio.mel import HOP_SAMPLES, MelFrames
from streamer.errors import DeviceFailed, EngineError
from streamer.events.plans import StepRequest, StepResult
from streamer.model.engine import Padding

HALF_FFT_SAMPLES = 200  # so far a mel frame reaches to either side of its centre


@dataclass(frozen=True, slots=True)
class SentWindow:
    """One window on its way to an engine.

    `values` [n_mels, frames]: the log-mel, int16 (the bits of `dtype`) or float32; its last column stands for all that
    follow up to `total_frames`. Nothing [0, 0] for a window that is too short to be heard.
    """

    request: StepRequest
    values: NDArray[Any]
    total_frames: int
    dtype: torch.dtype

    @classmethod
    def of(cls, mel: MelFrames, request: StepRequest, padding: Padding, dtype: torch.dtype) -> "SentWindow":
        """The window of a request, for a model of this `dtype`. Raises EngineError as `Engine.step` does."""
        frames = padding.frames(request)
        if not frames.real:
            return cls(request, np.zeros((0, 0), np.float32), 0, torch.float32)
        exact = frames.total == frames.real
        try:
            found = mel.window(request.start_sample, request.end_sample, None if exact else frames.total)
        except ValueError as error:
            raise EngineError(f"a window cannot be read: {error}") from error
        if not exact:  # behind the last frame that reaches into the audio comes the first of nothing but silence
            samples = request.end_sample - request.start_sample
            found = found[:, : (samples + HALF_FFT_SAMPLES - 1) // HOP_SAMPLES + 2]
        found = found.contiguous()
        if dtype == torch.float32:
            return cls(request, found.numpy(), frames.total, dtype)
        return cls(request, found.to(dtype).view(torch.int16).numpy(), frames.total, dtype)

    def mel(self) -> Tensor:
        """The whole log-mel, float32 [n_mels, total_frames]."""
        held = torch.from_numpy(np.array(self.values))  # a copy: what came through shared memory is read-only
        if self.dtype != torch.float32:
            held = held.view(self.dtype).float()
        silence = held[:, -1:].expand(-1, self.total_frames - held.shape[1])
        return torch.cat([held, silence], dim=1)


@dataclass(frozen=True, slots=True)
class SentMel:
    """The mel of one window, for an `Engine`."""

    sent: SentWindow

    def window(self, start_sample: int, end_sample: int, total_frames: int | None = None) -> Tensor:
        """As `MelFrames.window`, for the one window there is. Raises ValueError: another one is asked for."""
        request, mel = self.sent.request, self.sent.mel()
        if (start_sample, end_sample) != (request.start_sample, request.end_sample):
            raise ValueError(f"samples [{start_sample}, {end_sample}) were not sent")
        if total_frames not in (None, mel.shape[1]):
            raise ValueError(f"{total_frames} frames are wanted, {mel.shape[1]} were sent")
        return mel


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a window could not be done. `device`: what the engine runs on is the reason, so another may do it."""

    reason: str
    device: bool = False

    def error(self) -> EngineError:
        """As `Engine.step` raises it."""
        return (DeviceFailed if self.device else EngineError)(self.reason)


Answer = StepResult | Refused
