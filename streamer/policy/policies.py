"""Text policies: hypotheses of successive windows in, words to commit and a partial tail out (pure).

LocalAgreement-2 (Liu et al. 2020; whisper_streaming, Macháček et al. 2023): what two successive hypotheses agree on,
from the committed text onwards, is committed; the rest is shown as partial.

AlignAtt (Papi et al. 2023; SimulStreaming, Macháček and Polák 2025): a word is committed when the decoder, while
writing it, attended audio that lies far enough from the end of the window: then no more audio will change it. What lies
past that frontier is shown as partial; the published policy shows nothing. Two things are ours. Where the gate has
heard no voice for a while nothing is being said that more audio could complete, so the frontier moves up to the end of
the voice; published is a shorter frontier at the end of an utterance. And a word that the decoder is not quite sure of,
or that it placed hardly behind the one before, waits until the next pass writes the same in the same place: a single
pass may misread what lies far before the frontier.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from streamer.events import FRAME_SAMPLES, SAMPLE_RATE
from streamer.events.plans import HypothesisWord

Words = tuple[HypothesisWord, ...]

NUMBER_SAMPLES = 6 * SAMPLE_RATE // 5  # a number goes on within so long
SHOWN = 0.7  # a word is shown before it is committed if it is so likely, or
LIKELIER = 0.5  # less so by this for each second of audio behind it: more of it will hardly make it another word
QUIET_SAMPLES = SAMPLE_RATE // 5  # no word is silent inside for so long
END_SAMPLES = 4 * FRAME_SAMPLES  # the frontier where nothing is being said, as published
SURE = 0.9  # a word of less probability has to be written by two passes
LOST = 0.2  # and one of less than this by four: the decoder has lost the thread there, and may find it again
NEAR_SAMPLES = 6 * SAMPLE_RATE // 25  # so little behind the word before: the attention may lag behind the words
SAME_SAMPLES = 3 * SAMPLE_RATE // 10  # two passes that attend further apart did not hear the same word


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


class LocalAgreement(OpenTail):
    """Commits the longest common prefix of words of two successive hypotheses."""

    def step(self, words: Words, end_sample: int, voice_end: int) -> Decision:
        """Commit what this hypothesis and the last one agree on; words come from the newer one."""
        agreed = common_prefix(spoken(self._tail), spoken(words))
        count = 0
        for word in words:
            agreed -= not word.is_mark
            if agreed < 0:
                break
            count += 1
        return self._split(words, without_open_number(words, count, end_sample))


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


class AlignAtt(OpenTail):
    """Commits words whose attention stays `frontier_samples` away from the end of the audio."""

    def __init__(self, frontier_samples: int) -> None:
        super().__init__()
        self._frontier_samples = frontier_samples
        self._attended = 0
        self._times: list[int] = []  # in how many passes in a row each word of the tail was written

    def step(self, words: Words, end_sample: int, voice_end: int) -> Decision:
        """Commit the words before the frontier; the rest is partial."""
        frontier = self._frontier(end_sample, voice_end)
        said, before = spoken(words), spoken(self._tail)
        times = self._times[len(self._times) - len(before) :]  # of what is still in the tail
        repeated = [_same(earlier, word) for earlier, word in zip(before, said, strict=False)]
        times = [count + 1 if same else 1 for count, same in zip(times, repeated, strict=False)]
        times += [1] * (len(said) - len(times))
        count = 0
        settled, attended = 0, self._attended
        for word in words:
            if not word.is_mark:
                if word.attended_sample >= frontier or times[settled] < _needed(word, attended):
                    break
                attended = word.attended_sample
                settled += 1
            count += 1
        count = without_open_number(words, count, end_sample)
        committed = spoken(words[:count])
        self._times = times[len(committed) :]
        self._attended = committed[-1].attended_sample if committed else self._attended
        return self._split(words, count)

    def _frontier(self, end_sample: int, voice_end: int) -> int:
        """The sample from which on more audio may change what was written."""
        if end_sample - voice_end < QUIET_SAMPLES:
            return end_sample - self._frontier_samples
        return end_sample - min(END_SAMPLES, self._frontier_samples)


def _same(first: HypothesisWord, second: HypothesisWord) -> bool:
    apart = abs(first.attended_sample - second.attended_sample)
    return bare(first.text) == bare(second.text) and apart <= SAME_SAMPLES


def _needed(word: HypothesisWord, before: int) -> int:
    """In how many passes in a row a word has to be written; `before`: what was attended for the word before."""
    if word.probability >= SURE and word.attended_sample - before >= NEAR_SAMPLES:
        return 1
    return 2 if word.probability >= LOST else 4
