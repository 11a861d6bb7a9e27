"""Small Whisper backbones and heads with random weights, for tests that need no trained model."""

from pathlib import Path
from typing import Any

import torch
from whisper.model import ModelDimensions, Whisper


def random_whisper(
    seed: int = 0, *, n_mels: int = 80, width: int = 64, heads: int = 2, layers: int = 3, n_vocab: int = 51864
) -> Whisper:
    generator = torch.Generator().manual_seed(seed)
    module = Whisper(ModelDimensions(n_mels, 1500, width, heads, layers, n_vocab, 448, width, heads, 2))
    for name, parameter in module.named_parameters():
        centre = 1.0 if name.endswith(("ln.weight", "ln_post.weight")) else 0.0
        parameter.data = centre + 0.1 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def save_whisper(path: Path, module: Whisper, **dims: Any) -> Path:
    """Write a module in openai-whisper's checkpoint format; `dims` overrides what it says of itself."""
    torch.save({"dims": vars(module.dims) | dims, "model_state_dict": module.state_dict()}, path)
    return path
