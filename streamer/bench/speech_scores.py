"""What captions are judged by, and what listeners made of recordings in figures, per set and in all. Pure.

A word is on show from the moment on since which it and all words before it in its segment have stood there unchanged
(case and punctuation apart), first as `partial` text, and committed when the committed text reaches it. How late that
is counts from the word's true end; committed words are matched with the true ones by difflib's longest common blocks,
and words without a match do not count. The events may be timed by the audio that they used, or by a clock.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from streamer.events import Event, Transcript
from streamer.measure.recordings import TrueWord
from streamer.measure.word_errors import Normal, WordErrors, as_written, plain_text, total, word_errors

Timed = Sequence[tuple[Event, float]]  # events and when they came out, in seconds of audio or of the wall clock


READABLE = 0.5  # a word error rate offline; a recording that is read better ought to be seen in the stream


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


def read_captions(events: Timed, normal: Normal = plain_text) -> Captions:
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


@dataclass(frozen=True, slots=True)
class Heard:
    """One recording by one listener.

    `errors`: on texts made comparable; `as_written`: with case and punctuation. Without a reference (`errors.words` is
    0) all that was written is invented. `commits_s`, `firsts_s`: of each word that was said, seconds from its end to
    its commit and its first showing, in audio; `real_…`: by the clock. `shown`: whether any text was ever on show.
    """

    listener: str
    recording: str
    set: str
    seconds: float
    written: str
    errors: WordErrors
    as_written: WordErrors
    processor_s: float
    commits_s: tuple[float, ...] = ()
    firsts_s: tuple[float, ...] = ()
    real_commits_s: tuple[float, ...] = ()
    real_firsts_s: tuple[float, ...] = ()
    withdrawn: int = 0
    retractions: int = 0
    segments: int = 0
    finals: int = 0


@dataclass(frozen=True, slots=True)
class Reference:
    """A recording as it ought to be read. `words`: where they end, as well as is known; `normal`: what is compared."""

    recording: str
    set: str
    seconds: float
    text: str
    words: tuple[TrueWord, ...]
    normal: Normal

    def errors(self, written: str) -> tuple[WordErrors, WordErrors]:
        """Made comparable, and as written."""
        return (
            word_errors(self.normal(self.text), self.normal(written)),
            word_errors(as_written(self.text), as_written(written)),
        )


def judge(
    listener: str,
    reference: Reference,
    written: str | Captions,
    processor_s: float,
    real: tuple[Captions, Sequence[TrueWord]] | None = None,
) -> Heard:
    """What a listener wrote: the text of a whole recording, or captions.

    `real`: the captions by the clock, and the words that were played.
    """
    captions = Captions((), written, 0, 0, 0, 0) if isinstance(written, str) else written
    errors, cased = reference.errors(captions.text)
    commits, firsts = lateness(captions, reference.words, reference.normal)
    real_commits, real_firsts = lateness(*real, reference.normal) if real else ([], [])
    return Heard(
        listener=listener,
        recording=reference.recording,
        set=reference.set,
        seconds=reference.seconds,
        written=captions.text,
        errors=errors,
        as_written=cased,
        processor_s=processor_s,
        commits_s=tuple(commits),
        firsts_s=tuple(firsts),
        real_commits_s=tuple(real_commits),
        real_firsts_s=tuple(real_firsts),
        withdrawn=captions.withdrawn,
        retractions=captions.retractions,
        segments=captions.segments,
        finals=captions.finals,
    )


def figures(heard: Sequence[Heard], offline: Mapping[str, Heard]) -> dict[str, Any]:
    """One listener's figures over some recordings. `offline`: by recording, what openai-whisper read in it.

    `erasure`: words withdrawn from the captions for each word of the reference. `unseen`: recordings that offline
    reads with less than half of the words wrong and of which this listener wrote nothing.
    """
    spoken = [each for each in heard if each.errors.words]
    quiet = [each for each in heard if not each.errors.words]
    errors, cased = total(each.errors for each in spoken), total(each.as_written for each in spoken)
    seconds, quiet_s = sum(each.seconds for each in spoken), sum(each.seconds for each in quiet)
    beside = total(offline[each.recording].errors for each in spoken if each.recording in offline)
    late = {
        f"{what}_p{share}_s": percentile([value for each in spoken for value in getattr(each, f"{what}s_s")], share)
        for what in ("commit", "first", "real_commit", "real_first")
        for share in (50, 95)
    }
    return {
        "recordings": len(spoken),
        "seconds": round(seconds, 2),
        "words": errors.words,
        "wer": _rounded(errors.rate),
        "over_offline": None if errors.rate is None or beside.rate is None else _rounded(errors.rate - beside.rate),
        "substituted": errors.substituted,
        "lost": errors.lost,
        "invented": errors.invented,
        "wer_as_written": _rounded(cased.rate),
        **late,
        "timed_words": sum(len(each.commits_s) for each in spoken),
        "erasure": round(sum(each.withdrawn for each in spoken) / errors.words, 4) if errors.words else None,
        "retractions": sum(each.retractions for each in heard),
        "unseen": sum(_unseen(each, offline.get(each.recording)) for each in spoken),
        "segments": sum(each.segments for each in spoken),
        "finals": sum(each.finals for each in spoken),
        "processor_s_per_s": _rounded(sum(each.processor_s for each in spoken) / seconds) if seconds else None,
        "quiet_recordings": len(quiet),
        "quiet_seconds": round(quiet_s, 2),
        "invented_in_quiet": sum(each.errors.invented for each in quiet) if quiet else None,
        "invented_per_minute": _rounded(60 * sum(each.errors.invented for each in quiet) / quiet_s)
        if quiet_s
        else None,
    }


def by_set(heard: Sequence[Heard]) -> dict[str, list[Heard]]:
    """The same by set, in the order in which the sets come first."""
    found: dict[str, list[Heard]] = {}
    for each in heard:
        found.setdefault(each.set, []).append(each)
    return found


def _unseen(heard: Heard, offline: Heard | None) -> bool:
    if offline is None or offline.errors.rate is None or heard.errors.words == 0:
        return False
    return offline.errors.rate < READABLE and not heard.written


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
