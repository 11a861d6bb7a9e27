"""AlignAtt (Papi et al. 2023; SimulStreaming, Macháček and Polák 2025), behind the interface of every policy.

A word is committed when the decoder, while writing it, attended audio that lies far enough from the end of the window:
then no more audio will change it. What lies past that frontier is shown as partial; the published policy shows nothing.
"""

from streamer.events import SAMPLE_RATE
from streamer.policy.agreement import Decision, Words

JUMP_BACK_SAMPLES = 4 * SAMPLE_RATE  # attention that jumps back further has lost its place: the pass is worth nothing


class AlignAtt:
    """Commits words whose attention stays `frontier_samples` away from the end of the audio."""

    def __init__(self, frontier_samples: int) -> None:
        self._frontier_samples = frontier_samples
        self._tail: Words = ()
        self._attended = 0

    def step(self, words: Words, end_sample: int) -> Decision:
        """Commit the words before the frontier; the rest is partial."""
        if self._lost(words):
            return Decision((), self._tail)
        frontier = end_sample - self._frontier_samples
        count = next((i for i, word in enumerate(words) if word.attended_sample >= frontier), len(words))
        if count:
            self._attended = words[count - 1].attended_sample
        self._tail = words[count:]
        return Decision(words[:count], self._tail)

    def close(self) -> Words:
        """What was behind the frontier: no more audio will come."""
        words, self._tail = self._tail, ()
        return words

    def drop(self, count: int) -> None:
        """The first `count` words of the tail are committed already."""
        self._tail = self._tail[count:]

    def reset(self) -> None:
        """Forget the last hypothesis and where the attention was."""
        self._tail = ()
        self._attended = 0

    def _lost(self, words: Words) -> bool:
        attended = self._attended
        for word in words:
            if word.attended_sample < attended - JUMP_BACK_SAMPLES:
                return True
            attended = max(attended, word.attended_sample)
        return False
