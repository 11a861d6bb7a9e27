"""What every text policy is: hypotheses of successive windows in, words to commit and a partial tail out (pure)."""

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
    """Decides which words of the hypotheses of successive windows are final. One per stream."""

    def step(self, words: Words, end_sample: int, voice_end: int) -> Decision:
        """Take the hypothesis, behind the committed words, of the window that ends at `end_sample`.

        `voice_end`: end of the last 20 ms before it in which the gate heard voice.
        """

    def close(self) -> Words:
        """The utterance is over: what of the last hypothesis is to be committed. Leaves nothing behind."""

    def drop(self, count: int) -> None:
        """The first `count` words of the last hypothesis were committed from outside (the buffer was full)."""


class OpenTail:
    """What the policies have in common: the words of the last hypothesis that are not committed."""

    def __init__(self) -> None:
        self._tail: Words = ()

    def close(self) -> Words:
        """All of the tail: no more audio will contradict it."""
        words, self._tail = self._tail, ()
        return words

    def drop(self, count: int) -> None:
        """The first `count` words of the tail are committed already."""
        self._tail = self._tail[count:]

    def _split(self, words: Words, count: int) -> Decision:
        self._tail = words[count:]
        return Decision(words[:count], self._tail)
