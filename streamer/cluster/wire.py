"""What crosses from the program to an engine and back: one window each, plain values.

Nothing of the model's inside does, but for the taps of the last ten seconds of a recording that somebody uploaded.

A window crosses as its mel in the precision that the model computes in, which loses nothing: 16 bits a value where
that is half precision (16 kB for a second of audio with 80 bands), 32 bits on CPUs that compute in float32 (32 kB, as
much as 16-bit samples). The silence behind a padded window is one column, not ten seconds of it.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from streamer.audio.fine_spectrum import Spectrum
from streamer.audio.mel import HOP_SAMPLES, WINDOW_FRAMES, MelFrames
from streamer.errors import DeviceFailed, EngineError
from streamer.events.plans import StepRequest, StepResult
from streamer.model.engine import Padding
from streamer.model.own_sounds import judged_from
from streamer.runtime.offline import TapTrack, WindowRequest, WindowResult

HALF_FFT_SAMPLES = 200  # so far a mel frame reaches to either side of its centre


@dataclass(frozen=True, slots=True)
class SentWindow:
    """One window on its way to an engine.

    `values` [n_mels, frames]: the log-mel, int16 (the bits of `dtype`) or float32; its last column stands for all that
    follow up to `total_frames`. Nothing [0, 0] for a window that is too short to be heard.
    `spectrum` [steps, BANDS]: the fine spectrum of its end, 2.3 kB, for sounds of one's own; None: none are judged.
    """

    request: StepRequest
    values: NDArray[Any]
    total_frames: int
    dtype: torch.dtype
    spectrum: Spectrum | None = None

    @classmethod
    def of(
        cls, mel: MelFrames, request: StepRequest, padding: Padding, dtype: torch.dtype, *, own_sounds: bool = True
    ) -> "SentWindow":
        """The window of a request, for a model of this `dtype`. Raises EngineError as `Engine.step` does.

        `own_sounds`: whether its engines judge sounds of one's own, where sounds are judged at all.
        """
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
        values = found.numpy() if dtype == torch.float32 else found.to(dtype).view(torch.int16).numpy()
        judged = own_sounds and max(request.tag_spans_s, default=0.0) > 0
        spectrum = mel.fine_spectrum(judged_from(request), request.end_sample) if judged else None
        return cls(request, values, frames.total, dtype, spectrum)

    def mel(self) -> Tensor:
        """The whole log-mel, float32 [n_mels, total_frames]."""
        held = torch.from_numpy(np.array(self.values))  # a copy: what came through shared memory is read-only
        if self.dtype != torch.float32:
            held = held.view(self.dtype).float()
        silence = held[:, -1:].expand(-1, self.total_frames - held.shape[1])
        return torch.cat([held, silence], dim=1)


class SpectrumWanted(EngineError):  # noqa: N818  what is to be done, not what was wrong
    """A window came without its fine spectrum to an engine that judges sounds of one's own."""


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

    def fine_spectrum(self, start_sample: int, end_sample: int) -> Spectrum:
        """As `MelFrames.fine_spectrum`, of what was sent.

        Raises SpectrumWanted: nothing was, and ValueError: something else is asked for.
        """
        request, spectrum = self.sent.request, self.sent.spectrum
        if spectrum is None:
            raise SpectrumWanted("the engine judges sounds of one's own: it needs the fine spectrum of the window")
        if (start_sample, end_sample) != (judged_from(request), request.end_sample):
            raise ValueError(f"the fine spectrum of [{start_sample}, {end_sample}) was not sent")
        return spectrum


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a window could not be done. `device`: what the engine runs on is the reason, so another may do it.

    `spectrum`: the window came without it; it is done where it comes again with it.
    """

    reason: str
    device: bool = False
    spectrum: bool = False

    def error(self) -> EngineError:
        """As `Engine.step` raises it."""
        if self.spectrum:
            return SpectrumWanted(self.reason)
        return (DeviceFailed if self.device else EngineError)(self.reason)


Answer = StepResult | Refused


@dataclass(frozen=True, slots=True)
class SentTrack:
    """A `TapTrack` as it stands: `taps` [layers, half steps, d], None: it has none yet."""

    end: int
    judged: int
    taps: NDArray[np.float32] | None

    @classmethod
    def of(cls, track: TapTrack | None) -> "SentTrack | None":
        """What is to be sent of it."""
        return None if track is None else cls(*track.state())

    def track(self) -> TapTrack:
        """One that goes on from here."""
        found = TapTrack()
        self.put(found)
        return found

    def put(self, track: TapTrack) -> None:
        """Have a track go on from here."""
        track.set_state(self.end, self.judged, self.taps)


@dataclass(frozen=True, slots=True)
class OneWindow:
    """The mel of a recording of which one window is known: `values`, float32 [n_mels, frames].

    `opening_values`: the first 30 s with silence behind them, where the language may have to be asked for once more.
    """

    start: int
    values: NDArray[np.float32]
    opening_values: NDArray[np.float32] | None

    def window(self, start: int, end: int) -> Tensor:
        """As `RecordingMel.window`, for the one window there is."""
        assert (start, end - start) == (self.start, self.values.shape[1])
        values = torch.from_numpy(np.array(self.values))  # a copy: what came through shared memory is read-only
        return functional.pad(values, (0, WINDOW_FRAMES - values.shape[1]))

    def opening(self) -> Tensor:
        """As `RecordingMel.opening`."""
        assert self.opening_values is not None
        return torch.from_numpy(np.array(self.opening_values))


@dataclass(frozen=True, slots=True)
class SentRecordingWindow:
    """A window of a recording on its way to an engine: the request, with its own mel alone, and beside it its track."""

    mel: OneWindow
    asked: WindowRequest
    track: SentTrack | None

    @classmethod
    def of(cls, request: WindowRequest) -> "SentRecordingWindow":
        """The window of a request."""
        start, frames = request.window.start, request.window.end - request.window.start
        asks = request.task.language is None and frames < WINDOW_FRAMES
        values = request.mel.window(start, start + frames)[:, :frames].contiguous().numpy()
        mel = OneWindow(start, values, request.mel.opening().numpy() if asks else None)
        return cls(mel, replace(request, mel=mel, track=None), SentTrack.of(request.track))

    @property
    def values(self) -> NDArray[np.float32]:
        """Of its mel."""
        return self.mel.values

    def request(self) -> WindowRequest:
        """The request again, for an `OfflineEngine`."""
        return replace(self.asked, track=None if self.track is None else self.track.track())


@dataclass(frozen=True, slots=True)
class RecordingAnswer:
    """What the model found in a window of a recording, and the track behind it."""

    result: WindowResult
    track: SentTrack | None
