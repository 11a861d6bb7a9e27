"""AlignAtt (Papi et al. 2023; SimulStreaming, Macháček and Polák 2025).

A word is committed when the decoder, while writing it, attended audio that lies far enough from the end of the window:
then no more audio will change it. What lies past that frontier is shown as partial; the published policy shows nothing.
"""

from streamer.events import SAMPLE_RATE
from streamer.policy.decision import Decision, OpenTail, Words

JUMP_BACK_SAMPLES = 4 * SAMPLE_RATE  # attention that jumps back further has lost its place: the pass is worth nothing


class AlignAtt(OpenTail):
    """Commits words whose attention stays `frontier_samples` away from the end of the audio."""

    def __init__(self, frontier_samples: int) -> None:
        super().__init__()
        self._frontier_samples = frontier_samples
        self._attended = 0

    def step(self, words: Words, end_sample: int) -> Decision:
        """Commit the words before the frontier; the rest is partial."""
        if self._lost(words):
            return Decision((), self._tail)
        frontier = end_sample - self._frontier_samples
        count = next((i for i, word in enumerate(words) if word.attended_sample >= frontier), len(words))
        if count:
            self._attended = words[count - 1].attended_sample
        return self._split(words, count)

    def _lost(self, words: Words) -> bool:
        attended = self._attended
        for word in words:
            if word.attended_sample < attended - JUMP_BACK_SAMPLES:
                return True
            attended = max(attended, word.attended_sample)
        return False
