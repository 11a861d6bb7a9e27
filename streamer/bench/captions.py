"""What captions are judged by: which word stood there when, what was withdrawn, what was taken back. Pure.

A word is on show from the moment on since which it and all words before it in its segment have stood there unchanged
(case and punctuation apart), first as `partial` text, and committed when the committed text reaches it. How late that
is counts from the word's true end; committed words are matched with the true ones by difflib's longest common blocks,
and words without a match do not count. The events may be timed by the audio that they used, or by a clock.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from streamer.events import Event, Transcript
from streamer.measure.recordings import TrueWord
from streamer.measure.word_errors import Normal, plain_text

Timed = Sequence[tuple[Event, float]]  # events and when they came out, in seconds of audio or of the wall clock


@dataclass(frozen=True, slots=True)
class CommittedWord:
    """A word as written, when it was committed, and since when it stood in its place (s)."""

    text: str
    committed_s: float
    shown_s: float


@dataclass(frozen=True, slots=True)
class Captions:
    """What the transcript events of one stream amount to.

    `text`: all that was committed. `withdrawn`: words that were on show and went or changed, and those behind them.
    `retractions`: events whose committed text did not go on from the one before. `finals`: segments that were closed.
    """

    words: tuple[CommittedWord, ...]
    text: str
    withdrawn: int
    retractions: int
    segments: int
    finals: int


@dataclass(slots=True)
class _Segment:
    text: str = ""
    shown: list[str] = field(default_factory=list)
    since_s: list[float] = field(default_factory=list)
    committed_s: list[float] = field(default_factory=list)


def read(events: Timed, normal: Normal = plain_text) -> Captions:
    """Follow a stream's transcript events. `normal` says when two words are the same."""
    segments: dict[int, _Segment] = {}
    withdrawn = retractions = finals = 0
    for event, at in events:
        if not isinstance(event, Transcript):
            continue
        segment = segments.setdefault(event.segment, _Segment())
        retractions += not event.text.startswith(segment.text)
        finals += event.final
        committed = event.text.split()
        shown = f"{event.text} {event.partial}".split()
        same = _common(segment.shown, shown, normal)
        withdrawn += len(segment.shown) - same
        segment.since_s[same:] = [at] * (len(shown) - same)
        segment.committed_s[len(committed) :] = []
        segment.committed_s += [at] * (len(committed) - len(segment.committed_s))
        segment.text, segment.shown = event.text, shown
    ordered = [segments[number] for number in sorted(segments)]
    return Captions(
        words=tuple(
            CommittedWord(*word)
            for segment in ordered
            for word in zip(segment.text.split(), segment.committed_s, segment.since_s, strict=False)
        ),
        text=" ".join(segment.text for segment in ordered if segment.text),
        withdrawn=withdrawn,
        retractions=retractions,
        segments=sum(bool(segment.text) for segment in ordered),
        finals=finals,
    )


def lateness(
    captions: Captions, truth: Sequence[TrueWord], normal: Normal = plain_text
) -> tuple[list[float], list[float]]:
    """Of each committed word that was said: seconds from its true end to its commit, and to its first showing.

    A first showing before the end of the word is a negative number.
    """
    said = [(part, word.end_s) for word in truth for part in normal(word.text).split()]
    written = [(part, word) for word in captions.words for part in normal(word.text).split()]
    matcher = difflib.SequenceMatcher(None, [part for part, _ in written], [part for part, _ in said], autojunk=False)
    commits, firsts = [], []
    for block in matcher.get_matching_blocks():
        for (_, word), (_, end_s) in zip(
            written[block.a : block.a + block.size], said[block.b : block.b + block.size], strict=True
        ):
            commits.append(word.committed_s - end_s)
            firsts.append(word.shown_s - end_s)
    return commits, firsts


def percentile(values: Sequence[float], share: float) -> float | None:
    """A percentile rounded to a millisecond, None of nothing."""
    return round(float(np.percentile(values, share)), 3) if values else None


def _common(before: Sequence[str], now: Sequence[str], normal: Normal) -> int:
    same = 0
    for old, new in zip(before, now, strict=False):
        if old != new and normal(old) != normal(new):
            break
        same += 1
    return same
