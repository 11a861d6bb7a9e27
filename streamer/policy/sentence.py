"""Sentence ends: a finished sentence and a short silence close a segment before the gate's hangover is over (pure).

Whether there was silence is decided in frames of 20 ms by `PauseWatch`, which knows no text; whether the text ends a
sentence is decided by the text session, which knows no frames. Both depend on sample positions only.
"""

from dataclasses import dataclass

from streamer.events import SAMPLE_RATE
from streamer.vad.planner import SegmentClosed

ENDS = (".", "!", "?", "。", "！", "？", "｡", "．", "؟", "۔", "।")
TRAILING_OFF = ("..", "…")
CLOSERS = "\"'”’»›)]」』）】 \t\n\u3000"  # quotes, brackets and spaces that may stand behind the end


@dataclass(frozen=True, slots=True)
class SpeechPaused(SegmentClosed):
    """The gate has heard nothing for `policy.sentence_pause_ms` and is still open.

    The utterance ends here if its text is committed to its last word and ends a sentence; else it goes on.
    """


def pause_samples(pause_ms: int | None) -> int | None:
    """`policy.sentence_pause_ms` in samples."""
    return None if pause_ms is None else pause_ms * SAMPLE_RATE // 1000


class PauseWatch:
    """Tells when the gate has been quiet for `pause_ms` (None: never). One per stream; `step` takes frames in order."""

    def __init__(self, pause_ms: int | None) -> None:
        self._pause_samples = pause_samples(pause_ms)
        self._voiced_end: int | None = None  # end of the last voiced frame, None once its pause was told of

    def step(self, voiced: bool, gate_open: bool, end_sample: int) -> list[SpeechPaused]:
        """Take the frame that ends at `end_sample`; the pause, if this frame makes it long enough."""
        if voiced:
            self._voiced_end = end_sample
        if self._voiced_end is None or self._pause_samples is None or not gate_open:
            return []
        if end_sample - self._voiced_end < self._pause_samples:
            return []
        speech_end, self._voiced_end = self._voiced_end, None
        return [SpeechPaused(end_sample, speech_end)]


def ends_sentence(text: str) -> bool:
    """Whether the text ends in a full stop, exclamation or question mark, perhaps with closing quotes behind it.

    Three dots do not count: whoever trails off goes on.
    """
    said = text.rstrip(CLOSERS)
    return said.endswith(ENDS) and not said.endswith(TRAILING_OFF)
