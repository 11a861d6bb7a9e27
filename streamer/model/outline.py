"""What is known of a model without its weights: enough to speak for it where another process computes.

A session needs its tokenizer, its sizes and what its head was taught; none of these need a tensor.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from whisper.model import ModelDimensions
from whisper.tokenizer import Tokenizer, get_tokenizer

from streamer.model.head import HeadDescription

MULTILINGUAL_VOCABULARY = 51_865  # openai-whisper's rule: from so many tokens on a checkpoint knows many languages
OTHER_TOKENS = 51_765  # of these; what is more are languages


@dataclass(frozen=True, slots=True)
class HeadOutline:
    """A tagging head's name and description."""

    name: str
    description: HeadDescription


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOutline:
    """A `Model` without weights; the fields are those of `Model`, which makes it (`Model.outline`). It can be pickled.

    `precision`, `dtype`, `device`: of the model, where it is. `own_sounds`: its engine judges sounds of one's own too.
    """

    name: str
    dims: ModelDimensions
    variable_context: bool
    min_context_s: float
    previous_text: bool
    context_s: float
    margin_frames: int
    precision: str
    dtype: torch.dtype
    device: torch.device
    head: HeadOutline | None
    own_sounds: bool = False

    @property
    def is_multilingual(self) -> bool:
        """As `Model.is_multilingual`."""
        return bool(self.dims.n_vocab >= MULTILINGUAL_VOCABULARY)

    def tokenizer(
        self, language: str | None = None, task: Literal["transcribe", "translate"] = "transcribe"
    ) -> Tokenizer:
        """As `Model.tokenizer`."""
        languages = self.dims.n_vocab - OTHER_TOKENS - int(self.is_multilingual)
        return get_tokenizer(self.is_multilingual, num_languages=languages, language=language, task=task)
