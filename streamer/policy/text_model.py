"""What the text session must know of a model: plain values, nothing that needs torch (pure)."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextModel:
    """One model as the text session sees it.

    `encode` turns text into tokens; `fixed_language`: the only one it speaks ("en" for English-only models), else None;
    `carries_prompt`: it was trained with previous text before the transcript; `context_s`: how much audio a window
    holds at best, where the settings do not say; `text_context`: tokens that the decoder reads and writes (n_text_ctx).
    """

    encode: Callable[[str], tuple[int, ...]]
    fixed_language: str | None
    carries_prompt: bool
    context_s: float = 10.0
    text_context: int = 448
    name: str = "the model"
