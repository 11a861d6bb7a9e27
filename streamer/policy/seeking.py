"""Whole recordings, window by window: what the next window holds and reads before its text, what is kept (pure).

    while (window := seeker.window()):
        text = decode(window)                    # at each of TEMPERATURES in turn, while `must_try_again(text)`
        passages += seeker.step(text)

The decisions of openai-whisper's `transcribe` with its defaults (20250625, whisper/transcribe.py, MIT). Positions are
mel frames of 10 ms. A time mark is a token that stands for a position in the window, in steps of two frames.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
COMPRESSION_MOST = 2.4  # text that zlib makes smaller than this repeats itself
LOGPROB_LEAST = -1.0  # mean of the tokens' log-probabilities
NO_SPEECH_MOST = 0.6
CARRIED_MOST = 0.5  # what was drawn at a higher temperature is not read before the next window
WINDOW_FRAMES = 3000
MARK_FRAMES = 2


@dataclass(frozen=True, slots=True)
class WindowText:
    """What the decoder wrote for one window: tokens with time marks, without the end of text."""

    tokens: tuple[int, ...]
    temperature: float
    mean_logprob: float
    no_speech_probability: float
    compression_ratio: float


@dataclass(frozen=True, slots=True)
class Window:
    """The frames [start, end) to be decoded; `earlier`: tokens that were written before, the newest last.

    `first`: nothing was dropped from `earlier` so far, so that what a person gave as prompt still stands before it.
    """

    start: int
    end: int
    earlier: tuple[int, ...]
    first: bool


@dataclass(frozen=True, slots=True)
class Slice:
    """The tokens [first, last) of a window; their time, in frames from its start (None: up to its end)."""

    first: int
    last: int
    start: int
    end: int | None


@dataclass(frozen=True, slots=True)
class Passage:
    """One slice that is kept, in frames of the recording; `number`: which of the window's slices it is."""

    number: int
    start: int
    end: int
    text: str


def is_silence(text: WindowText) -> bool:
    """Whether nobody speaks: the decoder says so, and is not sure of what it wrote."""
    return text.no_speech_probability > NO_SPEECH_MOST and text.mean_logprob < LOGPROB_LEAST


def must_try_again(text: WindowText) -> bool:
    """Whether a window is to be decoded at the next temperature: its text repeats itself, or is not sure."""
    doubtful = text.compression_ratio > COMPRESSION_MOST or text.mean_logprob < LOGPROB_LEAST
    return doubtful and not is_silence(text)


def slices(tokens: Sequence[int], first_mark: int) -> tuple[tuple[Slice, ...], int | None]:
    """Cut a window's tokens where two time marks meet; `first_mark` is the token of the mark at 0.

    Returns the slices, and the frame at which the next window begins (None: this one is done to its end). What stands
    behind the last pair of marks is unfinished and in no slice: the next window hears it whole.
    """
    marks = [token >= first_mark for token in tokens]
    ends_with_mark = marks[-2:] == [False, True]
    cuts = [place for place in range(1, len(tokens)) if marks[place - 1] and marks[place]]
    if not cuts:
        newest = next((token for token in reversed(tokens) if token >= first_mark), first_mark)
        return (Slice(0, len(tokens), 0, (newest - first_mark) * MARK_FRAMES or None),), None
    if ends_with_mark:
        cuts.append(len(tokens))
    found = []
    for first, last in zip([0, *cuts], cuts, strict=False):
        start, end = ((tokens[place] - first_mark) * MARK_FRAMES for place in (first, last - 1))
        found.append(Slice(first, last, start, end))
    return tuple(found), None if ends_with_mark else found[-1].end


class Seeker:
    """One recording of `frames` mel frames. `carries`: each window reads what was written before it."""

    def __init__(self, frames: int, first_mark: int, decode: Callable[[Sequence[int]], str], *, carries: bool) -> None:
        """`decode` turns tokens into text and leaves time marks out."""
        self._frames, self._first_mark, self._decode, self._carries = frames, first_mark, decode, carries
        self._earlier: tuple[int, ...] = ()
        self._first = True
        self.seek = 0

    def window(self) -> Window | None:
        """The next window; None at the end."""
        if self.seek >= self._frames:
            return None
        end = min(self.seek + WINDOW_FRAMES, self._frames)
        return Window(self.seek, end, self._earlier, self._first)

    def step(self, text: WindowText) -> list[Passage]:
        """Take what was written for the window and go on; the passages that are kept, in order."""
        window = self.window()
        assert window is not None
        if text.no_speech_probability > NO_SPEECH_MOST and not text.mean_logprob > LOGPROB_LEAST:
            self.seek = window.end
            return []
        found, following = slices(text.tokens, self._first_mark)
        passages = []
        for number, one in enumerate(found):
            tokens = text.tokens[one.first : one.last]
            said = self._decode(tokens)
            if one.start == one.end or not said.strip():
                continue
            self._earlier += tokens
            start = min(window.start + one.start, window.end)
            end = window.end if one.end is None else min(window.start + one.end, window.end)
            passages.append(Passage(number, start, max(start, end), said))
        self.seek = window.end if following is None else window.start + following
        if not self._carries or text.temperature > CARRIED_MOST:
            self._earlier, self._first = (), False
        return passages
