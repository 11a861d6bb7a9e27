"""What every text policy is: hypotheses of successive windows in, words to commit and a partial tail out (pure)."""

from dataclasses import dataclass
from typing import Protocol

from streamer.events import SAMPLE_RATE
from streamer.plans import HypothesisWord

Words = tuple[HypothesisWord, ...]

NUMBER_SAMPLES = 6 * SAMPLE_RATE // 5  # a number goes on within so long
SHOWN = 0.7  # a word is shown before it is committed if it is so likely, or
LIKELIER = 0.5  # less so by this for each second of audio behind it: more of it will hardly make it another word


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

    def wait(self, words: Words) -> Decision:
        """Take a hypothesis of which nothing may be committed yet."""

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

    def wait(self, words: Words) -> Decision:
        """Commit nothing: whether anybody speaks is in doubt."""
        self._tail = words or self._tail
        return Decision((), self._tail)

    def drop(self, count: int) -> None:
        """The first `count` words of the tail are committed already."""
        self._tail = self._tail[count:]

    def _split(self, words: Words, count: int) -> Decision:
        """Commit the first `count` words, but for the mark behind the last of them.

        What ends where the audio ends gets a full stop. Whether it is one shows when somebody goes on, or does not. A
        pass that writes nothing takes nothing back.
        """
        if not words:
            return Decision((), self._tail)
        commit, mark = without_last_mark(words[:count])
        self._tail = (*mark, *words[count:])
        return Decision(commit, self._tail)


def without_open_number(words: Words, count: int, end_sample: int) -> int:
    """How many of the first `count` words may be committed at `end_sample`: not the number that may still go on.

    What is written for "five five" is another spelling once "five" follows, and behind a part of it the decoder cannot
    go on. It is complete when another word follows, or after a while.
    """
    following = next((word for word in words[count:] if not word.is_mark), None)
    if following is not None and following.text[:1].isspace() and not _has_digit(following):
        return count
    since = end_sample - NUMBER_SAMPLES
    while (
        count
        and words[count - 1].attended_sample > since
        and (words[count - 1].is_mark or _has_digit(words[count - 1]))
    ):
        count -= 1
    return count


def _has_digit(word: HypothesisWord) -> bool:
    return any(char.isdigit() for char in word.text)


def likely(partial: Words, end_sample: int) -> Words:
    """The words up to the first that is so unlikely that showing it would be showing it wrong."""
    for index, word in enumerate(partial):
        behind_s = max(0, end_sample - word.attended_sample) / SAMPLE_RATE
        if not word.is_mark and word.probability + LIKELIER * behind_s < SHOWN:
            return partial[:index]
    return partial


def spoken(words: Words) -> Words:
    """The words that are more than punctuation."""
    return tuple(word for word in words if not word.is_mark)


def without_last_mark(words: Words) -> tuple[Words, Words]:
    """The words without the punctuation behind the last of them, and that: one word, or none."""
    if not words or not words[-1].mark:
        return words, ()
    if words[-1].is_mark:
        return words[:-1], words[-1:]
    bare, mark = words[-1].parted()
    return (*words[:-1], bare), (mark,)
