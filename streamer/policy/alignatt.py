"""AlignAtt (Papi et al. 2023; SimulStreaming, Macháček and Polák 2025).

A word is committed when the decoder, while writing it, attended audio that lies far enough from the end of the window:
then no more audio will change it. What lies past that frontier is shown as partial; the published policy shows nothing.

Two things are ours. Where the gate has heard no voice for a while nothing is being said that more audio could complete,
so the frontier moves up to the end of the voice; published is a shorter frontier at the end of an utterance. And a word
that the decoder is not quite sure of, or that it heard hardly behind the one before, waits until the next pass hears
the same in the same place: a single pass may misread what lies far before the frontier.
"""

from streamer.events import SAMPLE_RATE
from streamer.plans import HypothesisWord
from streamer.policy.agreement import bare
from streamer.policy.decision import Decision, OpenTail, Words, spoken, without_open_number

QUIET_SAMPLES = SAMPLE_RATE // 5  # no word is silent inside for so long
END_SAMPLES = 4 * SAMPLE_RATE // 50  # 4 frames of the encoder: the frontier where nothing is being said, as published
SURE = 0.9  # a word of less probability has to be written by two passes
LOST = 0.2  # and one of less than this by four: the decoder has lost the thread there, and may find it again
NEAR_SAMPLES = 6 * SAMPLE_RATE // 25  # so little behind the word before: the attention may lag behind the words
SAME_SAMPLES = 3 * SAMPLE_RATE // 10  # two passes that attend further apart did not hear the same word


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
