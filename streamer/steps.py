"""The records that travel between the planner, the worker and the session: plain values, no tensors.

    planner ──WindowPlan──► session.prepare ──StepRequest──► worker ──StepResult──► session.step ──► events

All positions are absolute sample indices on the capture clock (16 kHz).
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Task = Literal["transcribe", "translate"]


@dataclass(frozen=True, slots=True)
class DecodeTask:
    """What the decoder is to write for one window.

    `prompt` stands behind <|startofprev|>, `prefix` (the tokens of the committed words that lie in the window) behind
    the start of the transcript; neither is part of the hypothesis. `language` None: detect it on this window; `detect`:
    say which one is spoken although one is given (a decoder step more, no encoder pass); `languages`: codes of those
    that come into question (empty: all). `draft`: tokens that an earlier pass wrote behind the same prefix; they are
    verified in one step and change nothing. `temperature`: 0 takes the most likely token, more draws one, the same ones
    for the same `seed`; a draft is of no use then.
    """

    language: str | None = None
    task: Task = "transcribe"
    prompt: tuple[int, ...] = ()
    prefix: tuple[int, ...] = ()
    max_new_tokens: int = 224
    timestamps: bool = False
    draft: tuple[int, ...] = ()
    detect: bool = False
    languages: tuple[str, ...] = ()
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class StepRequest:
    """One window for the worker: samples [start_sample, end_sample), one encoder pass.

    `tag_spans_s`: spans to judge, each ending at `end_sample` (empty: no head); `decode` None: no text is due.
    """

    start_sample: int
    end_sample: int
    tag_spans_s: tuple[float, ...] = ()
    decode: DecodeTask | None = None


@dataclass(frozen=True, slots=True)
class HypothesisWord:
    """One word that the decoder wrote, not yet committed.

    `text` is as written, with its leading space and its punctuation. `attended_sample` is the middle of the audio frame
    that the word's last token before its mark attended most, for policies that stop at a frontier. `mark`: the
    punctuation at the end of `text`, of which the last `mark_tokens` of the tokens are made. A decoder that goes on
    behind a committed word may write a mark first: that is a word of nothing but its mark.
    """

    text: str
    tokens: tuple[int, ...]
    start_sample: int
    end_sample: int
    probability: float
    attended_sample: int
    mark: str = ""
    mark_tokens: int = 0

    @property
    def is_mark(self) -> bool:
        """Whether there is nothing but punctuation, which belongs to the word before."""
        return self.mark != "" and len(self.tokens) == self.mark_tokens

    def parted(self) -> tuple["HypothesisWord", "HypothesisWord"]:
        """The word without its mark, and the mark as a word of its own at the word's end."""
        place = len(self.tokens) - self.mark_tokens
        bare = replace(self, text=self.text[: -len(self.mark)], tokens=self.tokens[:place], mark="", mark_tokens=0)
        mark = replace(self, text=self.mark, tokens=self.tokens[place:], start_sample=self.end_sample)
        return bare, mark


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What the decoder wrote behind the forced prefix. `complete`: it ended by itself, not for want of tokens.

    `spoken_language`: the one that is spoken, with its probability, where the task gave one and asked all the same.
    These probabilities are those among the languages that the task allowed.
    """

    words: tuple[HypothesisWord, ...]
    language: str
    language_probability: float
    no_speech_probability: float
    mean_logprob: float
    compression_ratio: float
    complete: bool
    spoken_language: tuple[str, float] | None = None

    @property
    def text(self) -> str:
        """The words as one string, without surrounding space."""
        return "".join(word.text for word in self.words).strip()


@dataclass(frozen=True, slots=True)
class SpanScores:
    """The head's calibrated scores, float32 [527] in 0..1, for the audio [start_sample, end_sample)."""

    start_sample: int
    end_sample: int
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What the worker found in one window; `judgement` shortest span first, empty when none was due."""

    request: StepRequest
    hypothesis: Hypothesis | None = None
    judgement: tuple[SpanScores, ...] = ()
