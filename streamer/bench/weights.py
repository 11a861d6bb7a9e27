"""Random weights of the official sizes: cost needs no training, and no download."""

import copy

import torch
from whisper.model import ModelDimensions, Whisper

from streamer.errors import UsageError
from streamer.model import catalog
from streamer.model.head import HeadKind, HeadModule, HeadShape, TaggingHead
from streamer.model.whisper import Model

MULTILINGUAL = 51_865
# encoder layers, width, attention heads, decoder layers, mel bands, vocabulary
SIZES = {
    "tiny": (4, 384, 6, 4, 80, MULTILINGUAL),
    "base": (6, 512, 8, 6, 80, MULTILINGUAL),
    "small": (12, 768, 12, 12, 80, MULTILINGUAL),
    "medium": (24, 1024, 16, 24, 80, MULTILINGUAL),
    "large-v2": (32, 1280, 20, 32, 80, MULTILINGUAL),
    "large-v3": (32, 1280, 20, 32, 128, MULTILINGUAL + 1),
    "large-v3-turbo": (32, 1280, 20, 4, 128, MULTILINGUAL + 1),
}


def random_whisper(size: str, seed: int = 0) -> Whisper:
    """openai-whisper's float32 module of an official size, weights drawn, alignment heads the official ones.

    Raises UsageError for a size that there is not.
    """
    if size not in SIZES:
        raise UsageError(f"size {size!r} is not official: one of {', '.join(SIZES)} is needed")
    layers, width, heads, text_layers, mels, vocabulary = SIZES[size]
    torch.manual_seed(seed)
    module = Whisper(ModelDimensions(mels, 1500, width, heads, layers, vocabulary, 448, width, heads, text_layers))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "embedding" in name:
                parameter.normal_(0.0, 0.02)
    module.set_alignment_heads(catalog.alignment_heads(size))
    return module.eval()


def random_head(size: str, seed: int = 0) -> TaggingHead:
    """A TL-Tr head of that width, weights drawn; it hears nothing, so that no sounds and alerts begin."""
    torch.manual_seed(seed)
    module = HeadModule(HeadShape(HeadKind.TL_TR, SIZES[size][1])).eval()
    classifier = module.mlp_layer[1]
    assert isinstance(classifier, torch.nn.Linear)
    torch.nn.init.constant_(classifier.bias, -6.0)
    return TaggingHead("random TL-Tr", module)


def random_model(module: Whisper, size: str, *, device: torch.device, dtype: torch.dtype, head: bool = True) -> Model:
    """Streamer's model of a copy of `module`'s weights, with a random TL-Tr head."""
    return Model(
        copy.deepcopy(module),
        name=f"random {size}",
        head=random_head(size) if head else None,
        device=device,
        dtype=dtype,
    )
