"""Streamer against openai-whisper on the same float32 weights and the same audio: mel, features, taps, tags, tokens."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import whisper
from numpy.typing import NDArray
from torch import Tensor
from whisper.audio import HOP_LENGTH, N_FRAMES, N_SAMPLES, log_mel_spectrogram
from whisper.model import Whisper

from streamer.audio.mel import MelFrames
from streamer.bench.whisper_offline import float32_module
from streamer.model.decoding.search import AudioWindow, GreedySearch
from streamer.model.encoder import TAP_POOL
from streamer.model.whisper import Model
from streamer.plans import DecodeTask

LEAST_SAMPLES = 16_000  # what is left of a recording is compared when it is as long as this


@dataclass(frozen=True, slots=True)
class Parity:
    """Largest differences over all windows of 30 s, padded as openai-whisper pads them.

    `logits` None: no head. `same_tokens` of `windows` had equal tokens; `first_other`: the first pair of texts that
    differ.
    """

    windows: int
    mel: float
    features: float
    taps: float
    logits: float | None
    same_tokens: int
    first_other: tuple[str, str] | None

    @property
    def holds(self) -> bool:
        """Whether all of it is equal within 1e-3 of float32 rounding, tokens exactly."""
        near = max(self.mel, self.features, self.taps, self.logits or 0.0) < 1e-3
        return near and self.same_tokens == self.windows


def compare(model: Model, recordings: Iterable[NDArray[np.float32]], *, max_windows: int = 20) -> Parity:
    """Compare on at most `max_windows` windows of the recordings (16 kHz). `model`: float32 on the CPU."""
    module = float32_module(model)
    search = GreedySearch(model)
    windows = _windows(recordings, max_windows)
    worst = [0.0, 0.0, 0.0, 0.0]
    same, other = 0, None
    for samples in windows:
        reference = log_mel_spectrogram(samples, model.dims.n_mels, padding=N_SAMPLES - len(samples))[:, :N_FRAMES]
        differences, features = _differences(model, module, samples, reference)
        worst = [max(old, new) for old, new in zip(worst, differences, strict=True)]
        ours, theirs = _tokens(model, search, module, features, reference)
        same += ours == theirs
        if ours != theirs and other is None:
            tokenizer = model.tokenizer()
            other = (tokenizer.decode(ours), tokenizer.decode(theirs))
    logits = worst[3] if model.head is not None else None
    return Parity(len(windows), worst[0], worst[1], worst[2], logits, same, other)


def _windows(recordings: Iterable[NDArray[np.float32]], most: int) -> list[NDArray[np.float32]]:
    found = [
        samples[begin : begin + N_SAMPLES] for samples in recordings for begin in range(0, len(samples), N_SAMPLES)
    ]
    return [samples for samples in found if len(samples) >= LEAST_SAMPLES][:most]


@torch.inference_mode()
def _differences(
    model: Model, module: Whisper, samples: NDArray[np.float32], reference: Tensor
) -> tuple[list[float], Tensor]:
    """Largest differences of mel, features, taps and logits on one window; and our features [1, frames, d]."""
    frames = MelFrames(model.dims.n_mels)
    frames.append(samples)
    mel = frames.window(0, len(samples), N_FRAMES)
    # openai-whisper pads before it takes the spectrogram, so that a last partial hop counts as a frame of its own.
    shared = min(len(samples) // HOP_LENGTH, N_FRAMES)
    outputs: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        for block in module.encoder.blocks
    ]
    try:
        their_features = module.encoder(reference[None])
    finally:
        for hook in hooks:
            hook.remove()
    features, taps = model.encode(reference[None])
    their_taps = torch.stack([F.avg_pool2d(output, (TAP_POOL, 1)) for output in outputs], dim=1)
    found = [
        _largest(mel[:, :shared], reference[:, :shared]),
        _largest(features, their_features),
        _largest(taps, their_taps),
        0.0,
    ]
    if model.head is not None:
        found[3] = _largest(model.tag(taps), model.head.module(their_taps))
    return found, features


def _tokens(
    model: Model, search: GreedySearch, module: Whisper, features: Tensor, mel: Tensor
) -> tuple[list[int], list[int]]:
    """Our greedy tokens and those of openai-whisper's `decode` at temperature 0."""
    options = whisper.DecodingOptions(
        language=None if model.is_multilingual else "en", without_timestamps=True, fp16=False, temperature=0.0
    )
    theirs = whisper.decode(module, mel, options)
    task = DecodeTask(language=theirs.language)
    (ours,) = search.decode([AudioWindow(features[0], features.shape[1])], [task])
    return list(ours.tokens), list(theirs.tokens)


def _largest(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max())
