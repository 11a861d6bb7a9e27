"""Random Whisper models that are small and yet write varied text: no checkpoint is needed to compare two decoders."""

import numpy as np
import torch
from whisper.model import ModelDimensions, Whisper

from streamer.audio.mel import MelFrames
from streamer.model.whisper import Model

ENGLISH, MULTILINGUAL, WITH_CANTONESE = 51864, 51865, 51866  # vocabularies
EOT = {ENGLISH: 50256, MULTILINGUAL: 50257, WITH_CANTONESE: 50257}


def random_whisper(seed: int, *, vocabulary: int = MULTILINGUAL, n_mels: int = 80, ending: float = 1.0) -> Whisper:
    """Two layers of width 64, with weights so large that what comes next depends on everything before.

    `ending` scales the embedding of end-of-text: larger ones let texts end sooner.
    """
    torch.manual_seed(seed)
    module = Whisper(ModelDimensions(n_mels, 1500, 64, 4, 2, vocabulary, 448, 64, 4, 2))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "ln" in name:
                continue
            if parameter.ndim > 1:
                parameter.normal_(0.0, 1.0 if "embedding" in name else 2.5 * parameter[0].numel() ** -0.5)
            else:
                parameter.normal_(0.0, 0.3)
        module.decoder.token_embedding.weight[EOT[vocabulary]] *= ending
    return module.eval()


def random_model(seed: int, *, dtype: torch.dtype = torch.float32, variable_context: bool = True, **options) -> Model:
    """`random_whisper` as a `Model` with contexts from 2 s on."""
    return Model(
        random_whisper(seed, **options),
        name="random",
        dtype=dtype,
        variable_context=variable_context,
        min_context_s=2.0,
    )


def noise_frames(seed: int, seconds: float = 30.0, n_mels: int = 80) -> MelFrames:
    """The mel frames of bursts of noise, from sample 0."""
    generator = np.random.default_rng(seed)
    samples = generator.normal(0.0, 0.05, round(seconds * 16_000)).astype(np.float32)
    samples *= np.repeat(generator.uniform(0.0, 1.0, len(samples) // 1600 + 1), 1600)[: len(samples)].astype(np.float32)
    mel = MelFrames(n_mels)
    mel.append(samples)
    return mel
