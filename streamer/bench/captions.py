"""What captions are judged by: which word came when, what was withdrawn, what was taken back.

Latency of a word: the moment of its commit (or of its first appearance as `partial`, in its later place) minus its true
end. Words are matched to the truth by the cheapest edit of one word sequence into the other (as word error rates are);
where that pairs words that are far apart in time (it may, where many are wrong), the pair does not count.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from streamer.events import Event, Transcript

Timed = Sequence[tuple[Event, float]]  # events and when they came out, in seconds of audio or of the wall clock


FAR_S = 1.0  # a word whose end is said to be so far from the true one is another word


@dataclass(frozen=True, slots=True)
class CommittedWord:
    """A plain word, when it was committed, when it first stood in its place, and the end it is said to have (s)."""

    word: str
    committed_s: float
    shown_s: float
    end_s: float


@dataclass(slots=True)
class Captions:
    """What the transcript events of one stream amount to. `withdrawn`: partial words that went or changed;
    `retractions`: events whose committed text did not go on from the one before."""

    words: list[CommittedWord] = field(default_factory=list)
    withdrawn: int = 0
    retractions: int = 0


def plain_words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.findall(r"[\w']+", text.lower())


def read(events: Timed) -> Captions:
    """Follow a stream's transcript events."""
    captions = Captions()
    segments: dict[int, list[tuple[list[str], int, float]]] = {}  # per segment: words on show, how many committed, when
    texts: dict[int, str] = {}
    for event, at in events:
        if not isinstance(event, Transcript):
            continue
        captions.retractions += not event.text.startswith(texts.get(event.segment, ""))
        texts[event.segment] = event.text
        ends = [(plain, word.end) for word in event.words for plain in plain_words(word.word)]
        committed = [plain for plain, _ in ends]
        shown = [*committed, *plain_words(event.partial)]
        history = segments.setdefault(event.segment, [])
        before, known, _ = history[-1] if history else ([], 0, at)
        captions.withdrawn += len(before) - _common(before, shown)
        history.append((shown, len(committed), at))
        for place in range(known, len(committed)):
            first = next(then for words, _, then in history if len(words) > place and words[place] == committed[place])
            captions.words.append(CommittedWord(committed[place], at, first, ends[place][1]))
    return captions


def latencies(truth: Sequence[Mapping[str, Any]], captions: Captions) -> tuple[list[float], list[float]]:
    """Commit and first-partial latency of each word that was heard right, in seconds."""
    reference = [plain_words(word["word"]) for word in truth]
    ends = [
        (plain, word["end"], word["start"]) for words, word in zip(reference, truth, strict=True) for plain in words
    ]
    commits, partials = [], []
    for said, heard in matches([plain for plain, _, _ in ends], [word.word for word in captions.words]):
        _, end, start = ends[said]
        word = captions.words[heard]
        if abs(word.end_s - end) > FAR_S:
            continue
        commits.append(word.committed_s - end)
        partials.append(max(word.shown_s, start) - end)
    return commits, partials


def matches(reference: Sequence[str], heard: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of places where the cheapest edit keeps a word. Raises ImportError without jiwer (extra `eval`)."""
    import jiwer

    if not reference or not heard:
        return
    found = jiwer.process_words(" ".join(reference), " ".join(heard))
    for chunk in found.alignments[0]:
        if chunk.type == "equal":
            yield from zip(
                range(chunk.ref_start_idx, chunk.ref_end_idx),
                range(chunk.hyp_start_idx, chunk.hyp_end_idx),
                strict=True,
            )


def percentile(values: Sequence[float], share: float) -> float | None:
    """A percentile rounded to a millisecond, None of nothing."""
    return round(float(np.percentile(values, share)), 3) if values else None


def _common(before: Sequence[str], now: Sequence[str]) -> int:
    same = 0
    while same < min(len(before), len(now)) and before[same] == now[same]:
        same += 1
    return same
