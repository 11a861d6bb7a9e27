"""AlignAtt (Papi et al. 2023; SimulStreaming, Macháček and Polák 2025).

A word is committed when the decoder, while writing it, attended audio that lies far enough from the end of the window:
then no more audio will change it. What lies past that frontier is shown as partial; the published policy shows nothing.

Two things are ours. Where the gate has heard no voice for a while nothing is being said that more audio could complete,
so the frontier moves up to the end of the voice; published is a shorter frontier at the end of an utterance. And a word
that the decoder is not quite sure of, or that it heard hardly behind the one before, waits until the next pass hears
the same in the same place: a single pass may misread what lies far before the frontier.
"""

from streamer.events import SAMPLE_RATE
from streamer.policy.agreement import bare
from streamer.policy.decision import Decision, OpenTail, Words
from streamer.steps import HypothesisWord

JUMP_BACK_SAMPLES = 4 * SAMPLE_RATE  # attention that jumps back further has lost its place: the pass is worth nothing
QUIET_SAMPLES = SAMPLE_RATE // 5  # no word is silent inside for so long
END_SAMPLES = 4 * SAMPLE_RATE // 50  # 4 frames of the encoder: the frontier where nothing is being said, as published
SURE = 0.9  # a word of less probability has to be heard twice
NEAR_SAMPLES = 6 * SAMPLE_RATE // 25  # so little behind the word before: the attention may lag behind the words
SAME_SAMPLES = 3 * SAMPLE_RATE // 10  # two passes that attend further apart did not hear the same word


class AlignAtt(OpenTail):
    """Commits words whose attention stays `frontier_samples` away from the end of the audio."""

    def __init__(self, frontier_samples: int) -> None:
        super().__init__()
        self._frontier_samples = frontier_samples
        self._attended = 0

    def step(self, words: Words, end_sample: int, voice_end: int) -> Decision:
        """Commit the words before the frontier; the rest is partial."""
        if self._lost(words):
            return Decision((), self._tail)
        frontier = self._frontier(end_sample, voice_end)
        count = 0
        while count < len(words) and words[count].attended_sample < frontier:
            repeated = count < len(self._tail) and _same(self._tail[count], words[count])
            if not repeated and not _sure(words[count], self._attended):
                break
            self._attended = words[count].attended_sample
            count += 1
        return self._split(words, count)

    def _frontier(self, end_sample: int, voice_end: int) -> int:
        """The sample from which on more audio may change what was written."""
        if end_sample - voice_end < QUIET_SAMPLES:
            return end_sample - self._frontier_samples
        return end_sample - min(END_SAMPLES, self._frontier_samples)

    def _lost(self, words: Words) -> bool:
        attended = self._attended
        for word in words:
            if word.attended_sample < attended - JUMP_BACK_SAMPLES:
                return True
            attended = max(attended, word.attended_sample)
        return False


def _same(first: HypothesisWord, second: HypothesisWord) -> bool:
    apart = abs(first.attended_sample - second.attended_sample)
    return bare(first.text) == bare(second.text) and apart <= SAME_SAMPLES


def _sure(word: HypothesisWord, before: int) -> bool:
    """Whether one pass is enough; `before`: what was attended for the word before."""
    return word.probability >= SURE and word.attended_sample - before >= NEAR_SAMPLES
