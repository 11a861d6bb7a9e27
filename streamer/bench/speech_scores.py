"""What listeners made of recordings, in figures, per set and in all. Pure: texts, moments and counts to numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streamer.bench.captions import Captions, lateness, percentile
from streamer.measure.recordings import TrueWord
from streamer.measure.word_errors import Normal, WordErrors, as_written, total, word_errors

READABLE = 0.5  # a word error rate offline; a recording that is read better ought to be seen in the stream


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


def judge_text(listener: str, reference: Reference, written: str, processor_s: float) -> Heard:
    """What an offline listener wrote."""
    errors, cased = reference.errors(written)
    return Heard(listener, reference.recording, reference.set, reference.seconds, written, errors, cased, processor_s)


def judge_captions(
    listener: str,
    reference: Reference,
    captions: Captions,
    processor_s: float,
    real: tuple[Captions, Sequence[TrueWord]] | None = None,
) -> Heard:
    """What a streaming listener committed. `real`: the same by the clock, and the words that were played."""
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
