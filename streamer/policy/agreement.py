"""LocalAgreement-2 (Liu et al. 2020; whisper_streaming, Macháček et al. 2023).

What two successive hypotheses agree on, from the committed text onwards, is committed; the rest is shown as partial.
"""

import unicodedata
from collections.abc import Sequence

from streamer.plans import HypothesisWord
from streamer.policy.decision import Decision, OpenTail, Words, spoken, without_open_number


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
