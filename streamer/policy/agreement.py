"""LocalAgreement-2 (Liu et al. 2020; whisper_streaming, Macháček et al. 2023), behind the interface of every policy.

What two successive hypotheses agree on, from the committed text onwards, is committed; the rest is shown as partial.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from streamer.steps import HypothesisWord

Words = tuple[HypothesisWord, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a hypothesis leads to: words that are committed now, and the tail that may still change."""

    commit: Words
    partial: Words


class Policy(Protocol):
    """Decides which words of the hypotheses of successive windows are final. Pure; one per stream."""

    def step(self, words: Words, end_sample: int) -> Decision:
        """Take the hypothesis, behind the committed words, of the window that ends at `end_sample`."""

    def close(self) -> Words:
        """The utterance is over: what of the last hypothesis is to be committed. Leaves nothing behind."""

    def drop(self, count: int) -> None:
        """The first `count` words of the last hypothesis were committed from outside (the buffer was full)."""

    def reset(self) -> None:
        """Forget the last hypothesis."""


class LocalAgreement:
    """Commits the longest common prefix of words of two successive hypotheses."""

    def __init__(self) -> None:
        self._tail: Words = ()

    def step(self, words: Words, end_sample: int) -> Decision:
        """Commit what this hypothesis and the last one agree on; words come from the newer one."""
        agreed = common_prefix(self._tail, words)
        self._tail = words[agreed:]
        return Decision(words[:agreed], self._tail)

    def close(self) -> Words:
        """All of the last hypothesis: no more audio will contradict it."""
        words, self._tail = self._tail, ()
        return words

    def drop(self, count: int) -> None:
        """The first `count` words of the tail are committed already."""
        self._tail = self._tail[count:]

    def reset(self) -> None:
        """Forget the last hypothesis."""
        self._tail = ()


def common_prefix(first: Sequence[HypothesisWord], second: Sequence[HypothesisWord]) -> int:
    """How many leading words are the same, whatever their case and punctuation."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if bare(one.text) != bare(other.text):
            break
        count += 1
    return count


def bare(text: str) -> str:
    """A word without case, space and punctuation; the text itself when it is nothing but those."""
    kept = "".join(char for char in text.casefold() if unicodedata.category(char)[0] in "LNM")
    return kept or text.strip()
