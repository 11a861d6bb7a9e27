"""The log-mel of a whole recording, as openai-whisper's `transcribe` sees it: windows of one spectrogram.

Unlike the windows of a live stream (`streamer.audio.mel`), whose floor lies 8 below their own loudest frame, these have
the floor of the whole recording, and what they lack to 30 s is 0.0, not the mel of silence. Equal to
`log_mel_spectrogram(samples, padding=480_000)`, cut and padded (openai-whisper 20250625, MIT). Energies are computed as
the samples come, 30 s at a time, and kept: 115 MB an hour with 80 bands.
"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from whisper.audio import HOP_LENGTH, N_FFT, mel_filters

WINDOW_FRAMES = 3000
_HALF_FFT: int = N_FFT // 2
_PIECE_SAMPLES: int = WINDOW_FRAMES * HOP_LENGTH
_MIN_ENERGY = 1e-10
_DYNAMIC_RANGE = 8.0  # log10 below the loudest frame


class RecordingMel:
    """`frames`: mel frames of 10 ms that lie over audio. Owned by one thread."""

    def __init__(self, blocks: Iterable[NDArray[np.float32]], n_mels: int) -> None:
        """`blocks`: all samples in order, float32 [n] each; what is not finite counts as silence."""
        self._filters: Tensor = mel_filters("cpu", n_mels)
        self._hann = torch.hann_window(N_FFT)
        pieces: list[Tensor] = []
        waiting, held, samples = [np.zeros(_HALF_FFT, np.float32)], _HALF_FFT, 0
        for block in blocks:
            waiting.append(block if np.isfinite(block).all() else np.nan_to_num(block, posinf=0.0, neginf=0.0))
            held, samples = held + len(block), samples + len(block)
            if held >= _PIECE_SAMPLES + N_FFT:
                rest = self._mirrored(np.concatenate(waiting), first=not pieces)
                frames = (len(rest) - N_FFT) // HOP_LENGTH + 1
                pieces.append(self._log_energies(rest[: (frames - 1) * HOP_LENGTH + N_FFT]))
                waiting = [rest[frames * HOP_LENGTH :]]
                held = len(waiting[0])
        rest = np.pad(np.concatenate(waiting), (0, N_FFT))  # so far behind the end a frame still hears it
        pieces.append(self._log_energies(self._mirrored(rest, first=not pieces)))
        self._energies = torch.cat(pieces, dim=1)
        self._floor = float(self._energies.max()) - _DYNAMIC_RANGE
        self.frames: int = samples // HOP_LENGTH

    def window(self, start: int, end: int) -> Tensor:
        """The frames [start, end), at most 3000 of those there are, and 0.0 behind them: float32 [n_mels, 3000]."""
        return functional.pad(self._scaled(self._energies[:, start:end]), (0, WINDOW_FRAMES - (end - start)))

    def opening(self) -> Tensor:
        """The first 30 s with silence behind them, as openai-whisper looks at them for the language: as `window`."""
        found = self._energies[:, :WINDOW_FRAMES]
        silence = torch.tensor(_MIN_ENERGY).log10().item()
        return self._scaled(functional.pad(found, (0, WINDOW_FRAMES - found.shape[1]), value=silence))

    def _scaled(self, energies: Tensor) -> Tensor:
        return (energies.clamp(min=self._floor) + 4.0) / 4.0

    def _log_energies(self, samples: NDArray[np.float32]) -> Tensor:
        """log10 mel energies [n_mels, frames] of every 400 samples, 160 apart."""
        found = torch.stft(
            torch.from_numpy(samples), N_FFT, HOP_LENGTH, window=self._hann, center=False, return_complex=True
        )
        return torch.clamp(self._filters @ (found.abs() ** 2), min=_MIN_ENERGY).log10()

    def _mirrored(self, samples: NDArray[np.float32], *, first: bool) -> NDArray[np.float32]:
        """The samples; at the beginning, the first half transform is what follows it, reflected."""
        if first:
            samples[:_HALF_FFT] = samples[_HALF_FFT + 1 : N_FFT + 1][::-1]
        return samples
