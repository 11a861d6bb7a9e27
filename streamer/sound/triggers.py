"""What makes a rule fire: words, the level, a lost microphone (sounds: `streamer.sound.sound_trigger`).

Each trigger is a small state machine: `step(AlertInput) -> Evidence`. What becomes of the evidence (raise, hold, clear,
cooldown) is decided in `streamer.sound.alerts`, the same way for all of them.
"""

import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamer.events import SAMPLE_RATE, Tag
from streamer.events.plans import OwnScore, SpanScores
from streamer.settings.rules import AlertRule
from streamer.sound.patterns.state import CadenceState

TEXT_LIMIT = 2000  # characters of a segment that rules look at


@dataclass(frozen=True, slots=True)
class AlertText:
    """Text of one segment as it stands now: ALL committed text, and the partial tail.

    `word_spans`: (start_sample, end_sample) of each word of `text.split()`, if known. `final`: no more changes.
    """

    segment: int
    text: str
    partial: str
    start_sample: int
    end_sample: int
    final: bool = False
    word_spans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertInput:
    """What is new since the last step; everything that is absent has not changed or was not judged.

    `judgement`: the spans of this second, if one was judged; `scores`: what they come to, float32 [527] (`combine`);
    `own`: how much it is like sounds of one's own; `silent`: digital silence, which counts as scores of zero.
    `cadence`: the states of this hop, None where no audio was heard since the last step. `texts`: segments that
    changed, in order. `heard`: top tags of the latest judgement. `lost`: the microphone delivers nothing. `gap`:
    samples were lost since the last step. `local_time_s`: seconds after local midnight (quiet hours).
    """

    end_sample: int
    judgement: tuple[SpanScores, ...] = ()
    own: tuple[OwnScore, ...] = ()
    scores: NDArray[np.float32] | None = None
    silent: bool = False
    cadence: tuple[CadenceState, ...] | None = None
    texts: tuple[AlertText, ...] = ()
    heard: tuple[Tag, ...] = ()
    loudness_dbfs: float | None = None
    lost: bool = False
    gap: bool = False
    local_time_s: float | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a trigger knows after a step.

    `raises`: enough to raise. `lasts`: not over. `start_sample`, `last_sample`: first and last sample that was heard.
    `news`: worth an update of an alert that stands. `withdrawn`: it was text that changed: take the alert back.
    """

    raises: bool = False
    lasts: bool = False
    start_sample: int = 0
    last_sample: int = 0
    score: float = 0.0
    labels: tuple[str, ...] = ()
    news: bool = False
    withdrawn: bool = False


@dataclass(slots=True)
class PhraseTrigger:
    """Words and regular expressions in committed text and, if the rule says so, in text that may still change."""

    rule: AlertRule
    _expressions: tuple[re.Pattern[str], ...] = field(init=False)
    _segment: int = -1
    _counted: int = 0  # matches in the committed text of this segment that are dealt with
    _waiting: bool = False  # the alert stands on partial text
    _start: int = 0
    _last: int | None = None
    _sure: int | None = None  # when the last match in committed text was seen
    _labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        words = [r"\W+".join(map(re.escape, re.findall(r"\w+", phrase))) for phrase in self.rule.phrases]
        sources = [*(rf"(?<!\w){word}(?!\w)" for word in words), *self.rule.patterns]
        self._expressions = tuple(re.compile(source, re.IGNORECASE) for source in sources)

    def step(self, given: AlertInput) -> Evidence:
        """Look at the segments that changed."""
        new = withdrawn = False
        for text in given.texts:
            matched, gone = self._read(text, given.end_sample)
            new, withdrawn = new or matched, gone and not matched
        if self._waiting:
            self._last = given.end_sample
        clear_after = self.rule.clear_after_s * SAMPLE_RATE
        if withdrawn and self._sure is not None and given.end_sample - self._sure < clear_after:
            withdrawn, self._last = False, self._sure
        lasts = self._last is not None and given.end_sample - self._last < clear_after
        return Evidence(
            raises=new,
            lasts=new or lasts,
            start_sample=self._start,
            last_sample=given.end_sample if self._last is None else self._last,
            score=1.0,
            labels=self._labels,
            news=new,
            withdrawn=withdrawn,
        )

    def _read(self, text: AlertText, at: int) -> tuple[bool, bool]:
        """Whether a match is new, and whether the one on partial text is gone."""
        gone = False
        if text.segment != self._segment:
            gone, self._waiting = self._waiting, False
            self._segment, self._counted = text.segment, 0
        committed = self._matches(text.text)
        everything = self._matches(f"{text.text} {text.partial}".strip()) if self.rule.partial else committed
        if len(committed) > self._counted:
            self._counted, self._waiting, self._sure = len(committed), False, at
            self._note(text, committed[-1], at)
            return True, False
        if len(everything) > max(len(committed), self._counted):
            fresh, self._waiting = not self._waiting, True
            if fresh:
                self._note(text, everything[-1], at)
            return fresh, False
        gone, self._waiting = gone or self._waiting, False
        return False, gone

    def _matches(self, text: str) -> list[re.Match[str]]:
        found = (
            match for source in self._expressions for match in source.finditer(text[-TEXT_LIMIT:]) if match.group()
        )
        return sorted(found, key=lambda match: (match.end(), match.start()))

    def _note(self, text: AlertText, match: re.Match[str], at: int) -> None:
        first = len(match.string[: match.start()].split())
        last = first + len(match.group().split()) - 1
        known = last < len(text.word_spans) and len(text.text) <= TEXT_LIMIT
        self._start, end = (
            (text.word_spans[first][0], text.word_spans[last][1]) if known else (text.start_sample, text.end_sample)
        )
        self._last = at
        self._start = min(self._start, end, at)
        self._labels = (match.group().strip(),)


@dataclass(slots=True)
class LevelTrigger:
    """The level is above (or, for silence, below) a limit for long enough."""

    rule: AlertRule
    _since: int | None = None
    _last: int | None = None
    _before: int | None = None  # end of the previous hop

    def step(self, given: AlertInput) -> Evidence:
        """Take the level of one hop."""
        at, level = given.end_sample, given.loudness_dbfs
        if level is not None:
            loud = self.rule.loud_dbfs
            quiet = self.rule.silence_dbfs
            if (loud is not None and level >= loud) or (quiet is not None and level <= quiet):
                self._since = (self._before if self._before is not None else at) if self._since is None else self._since
                self._last = at
            else:
                self._since = None
            self._before = at
        if given.gap:
            self._since = None
        lasts = self._last is not None and at - self._last <= self.rule.clear_after_s * SAMPLE_RATE
        long_enough = self._since is not None and at - self._since >= self.rule.min_duration_s * SAMPLE_RATE
        start = at if self._since is None else self._since
        name = "silence" if self.rule.silence_dbfs is not None else "loud"
        return Evidence(
            raises=long_enough,
            lasts=lasts,
            start_sample=start,
            last_sample=at if self._last is None else self._last,
            score=1.0,
            labels=(name,),
        )


@dataclass(slots=True)
class LostTrigger:
    """The capture device delivers nothing; the runtime says so after its own waiting time."""

    rule: AlertRule

    def step(self, given: AlertInput) -> Evidence:
        """Follow the runtime's word."""
        at = given.end_sample
        return Evidence(given.lost, given.lost, at, at, 1.0, ("no audio",))
