"""A finished checkpoint at work on windows of any length: what the judge and the card measure with.

Plain openai-whisper modules without padding and without caches: slow, short and independent of the live engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import whisper
from torch import Tensor
from whisper.tokenizer import Tokenizer, get_tokenizer

from streamer.recipes.nano.mels import log_mel
from streamer.recipes.nano.network import POOL, TagHead
from streamer.recipes.synthesis.clips import Audio


@dataclass(frozen=True, slots=True)
class Heard:
    """Greedy text of one window with its mean log-probability and Whisper's no-speech probability."""

    words: tuple[str, ...]
    mean_logprob: float
    no_speech: float


def load_head(state: dict[str, Tensor], width: int) -> TagHead:
    """A TL-Tr head from keys `at_model.…`."""
    head = TagHead(width)
    head.load_state_dict({key.removeprefix("at_model."): value for key, value in state.items()})
    return head.eval()


@torch.inference_mode()
def encode(model: whisper.Whisper, audio: Sequence[Audio]) -> tuple[Tensor, Tensor]:
    """Windows of one length -> features [B, frames, d], taps [B, layers, frames/20, d]; nothing is padded."""
    mel = log_mel(torch.from_numpy(np.stack([window[: len(window) // 320 * 320] for window in audio])))
    encoder = model.encoder
    x = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel)))).permute(0, 2, 1)
    x = x + encoder.positional_embedding[: x.shape[1]]
    steps, taps = x.shape[1] // POOL, []
    for block in encoder.blocks:
        x = block(x)
        taps.append(x[:, : steps * POOL].unflatten(1, (steps, POOL)).mean(dim=2))
    return encoder.ln_post(x), torch.stack(taps, dim=1)


@torch.inference_mode()
def write(model: whisper.Whisper, features: Tensor, *, limit: int = 100) -> list[Heard]:
    """Greedy text without timestamps for features [B, frames, d]."""
    tokenizer = get_tokenizer(multilingual=False)
    count = len(features)
    tokens = torch.tensor([[tokenizer.sot, tokenizer.no_timestamps]] * count)
    logits = model.decoder(tokens, features)
    no_speech = logits[:, 0].softmax(dim=-1)[:, tokenizer.no_speech]
    done, total, written = torch.zeros(count, dtype=torch.bool), torch.zeros(count), torch.zeros(count)
    for _ in range(limit):
        scores = logits[:, -1].log_softmax(dim=-1)
        scores[:, tokenizer.eot + 1 :] = -torch.inf
        best = scores.argmax(dim=-1)
        best[done] = tokenizer.eot
        total += torch.where(done, 0.0, scores.gather(1, best[:, None])[:, 0])
        written += (~done).float()
        done |= best == tokenizer.eot
        tokens = torch.cat([tokens, best[:, None]], dim=1)
        if bool(done.all()):
            break
        logits = model.decoder(tokens, features)
    return [
        Heard(_words(tokenizer, row), float(total[index] / written[index]), float(no_speech[index]))
        for index, row in enumerate(tokens.tolist())
    ]


def _words(tokenizer: Tokenizer, tokens: list[int]) -> tuple[str, ...]:
    return tuple(tokenizer.decode([token for token in tokens if token < tokenizer.eot]).split())
