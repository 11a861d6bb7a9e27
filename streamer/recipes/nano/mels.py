"""Log-mel spectrograms of whole batches, as openai-whisper makes them, with what its callers do to them."""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from whisper.audio import HOP_LENGTH, N_FFT, N_SAMPLES, mel_filters

from streamer.recipes.nano.batches import Padding

N_FRAMES = 3000


@lru_cache
def _window() -> Tensor:
    return torch.hann_window(N_FFT)


def log_mel(audio: Tensor, *, padding: Padding = Padding.NONE, louder: Tensor | None = None) -> Tensor:
    """audio [B, n] -> [B, 80, frames], the maximum taken per item; 3,000 frames when padded.

    `louder` [B]: the maximum was this much (in log10) higher elsewhere in the file, as in `whisper.transcribe`.
    """
    frames = audio.shape[1] // HOP_LENGTH
    if padding is Padding.AUDIO:
        audio = F.pad(audio, (0, N_SAMPLES - audio.shape[1]))
    stft = torch.stft(audio, N_FFT, HOP_LENGTH, window=_window(), return_complex=True)
    parts = torch.view_as_real(stft[..., :-1])
    power = (parts * parts).sum(dim=-1)
    logs = (mel_filters("cpu", 80) @ power).clamp(min=1e-10).log10()
    top = logs.amax(dim=(1, 2), keepdim=True)
    if louder is not None:
        top = top + louder[:, None, None]
    mel = (torch.maximum(logs, top - 8.0) + 4.0) / 4.0
    if padding is Padding.MEL:
        mel = F.pad(mel, (0, N_FRAMES - frames))
    return mel


def masked(mel: Tensor, random: np.random.Generator, *, share: float) -> Tensor:
    """SpecAugment on a `share` of the items: up to two bands and short stretches of time at the item's mean."""
    mel = mel.clone()
    for item in mel:
        if random.random() >= share:
            continue
        mean = float(item.mean())
        for _ in range(int(random.integers(0, 3))):
            low = int(random.integers(0, 76))
            item[low : low + int(random.integers(1, 16))] = mean
        for _ in range(int(random.integers(0, 1 + item.shape[1] // 200))):
            first = int(random.integers(0, item.shape[1]))
            item[:, first : first + int(random.integers(1, 12))] = mean
    return mel
