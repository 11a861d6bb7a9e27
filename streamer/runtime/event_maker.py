"""How a session's events are made: changes of text, sounds and alerts, in samples, become numbered events in seconds.

Words of `speech.mask` are hidden here, so that the policy and the rules see what was really said (pure).
"""

from collections.abc import Callable, Sequence
from typing import Any

from streamer.events import (
    Alert,
    AlertSource,
    Event,
    Gap,
    Sound,
    Span,
    State,
    Status,
    Tag,
    Tags,
    Transcript,
    Word,
    seconds,
)
from streamer.model.download import LoadStep
from streamer.plans import HypothesisWord
from streamer.policy.mask import Mask
from streamer.policy.text_session import TextChange
from streamer.sound.alerts import AlertChange
from streamer.sound.events import SoundChange
from streamer.sound.triggers import AlertText

PARTS = 10  # how often a download is told of


class EventMaker:
    """One session's. `last_seq`: number of the newest event; `audio_sample`: end of the audio that is known.

    `source`: what its alerts say was listened to.
    """

    def __init__(self, name: str, mask: Mask, last_seq: int = 0, source: AlertSource = "live") -> None:
        self.name, self.last_seq, self._source = name, last_seq, source
        self.audio_sample = 0
        self._mask = mask
        self._looked_ahead = 0  # to here, where that is further than the events are

    def advance(self, sample: int) -> None:
        """The audio up to here is known."""
        self.audio_sample = max(self.audio_sample, sample)

    def look_ahead(self, sample: int) -> None:
        """The model has heard the audio up to here, whatever the events are of."""
        self._looked_ahead = max(self._looked_ahead, sample)

    def status(self, at: int, state: State, detail: str = "") -> Event:
        """The state of the session changed."""
        return self._make(Status, at, state=state, detail=detail)

    def transcript(self, at: int, change: TextChange, speech_probability: float) -> Event:
        """A segment's text changed."""
        return self._make(
            Transcript,
            at,
            segment=change.segment,
            start=seconds(change.start_sample),
            end=seconds(change.end_sample),
            text=change.text,
            partial=change.partial,
            final=change.final,
            words=tuple(_word(word) for word in change.words),
            language=change.language,
            speech_probability=round(speech_probability, 4),
            unclear=tuple(Span(seconds(start), seconds(end)) for start, end in change.unclear),
        )

    def tags(self, at: int, start_sample: int, tags: tuple[Tag, ...]) -> Event:
        """What sounds now."""
        return self._make(Tags, at, start=seconds(start_sample), end=seconds(at), tags=tags)

    def sound(self, at: int, change: SoundChange) -> Event:
        """A sound event began or ended."""
        return self._make(
            Sound,
            at,
            id=change.id,
            label=change.label,
            state=change.state,
            start=seconds(change.start_sample),
            end=_seconds_or_none(change.end_sample),
            score=round(change.score, 4),
        )

    def alert(self, at: int, change: AlertChange) -> Event:
        """An alert changed."""
        return self._make(
            Alert,
            at,
            id=change.id,
            rule=change.rule,
            severity=change.severity,
            state=change.state,
            start=seconds(change.start_sample),
            end=_seconds_or_none(change.end_sample),
            score=round(change.score, 4),
            labels=change.labels,
            heard=change.heard,
            text=change.text,
            source=self._source,
        )

    def gap(self, at: int, start_sample: int, end_sample: int, reason: str) -> Event:
        """Audio was lost."""
        return self._make(Gap, at, start=seconds(start_sample), end=seconds(end_sample), reason=reason)

    def _make(self, kind: type[Event], at: int, **fields: Any) -> Event:
        self.advance(at)
        self.last_seq += 1
        heard = max(self.audio_sample, self._looked_ahead)
        event = kind(session=self.name, seq=self.last_seq, audio_t=seconds(heard), **fields)
        return self._mask.event(event)


def alert_text(change: TextChange) -> AlertText:
    """A segment's text as the rules for spoken phrases see it."""
    return AlertText(
        change.segment,
        change.text,
        change.partial,
        change.start_sample,
        change.end_sample,
        change.final,
        _word_spans(change.words),
    )


def _word_spans(words: Sequence[HypothesisWord]) -> tuple[tuple[int, int], ...]:
    """(start, end) in samples of each word as spaces part them: what has none before it belongs to the one before."""
    spans: list[tuple[int, int]] = []
    for word in words:
        start = word.start_sample if not spans or word.text[:1].isspace() else spans.pop()[0]
        spans.append((start, word.end_sample))
    return tuple(spans)


class Opening:
    """What the sessions `names` say before there is a model: `status` `starting`, with what is being done, from 1 on.

    Who is connected gets it at once, by `publish`; files and other programs when they are opened, before everything
    else.
    """

    def __init__(self, names: Sequence[str], publish: Callable[[Event], None]) -> None:
        self._names, self._publish = tuple(names), publish
        self._said: tuple[str, int] | None = None
        self.events: list[Event] = []
        self.begun = 0  # events of each session

    def tell(self, step: LoadStep) -> None:
        """Say what is being done; of a download now and then how far it is."""
        total, received = step.total_bytes, step.received_bytes or 0
        part = PARTS * received // total if total else 0
        if self._said == (step.what, part):
            return
        self._said = step.what, part
        self.begun += 1
        detail = f"{step.what}, {100 * part // PARTS} %" if total else step.what
        made = [
            Status(session=name, seq=self.begun, audio_t=0.0, state="starting", detail=detail) for name in self._names
        ]
        self.events += made
        for event in made:
            self._publish(event)


def _word(word: HypothesisWord) -> Word:
    start, end = seconds(word.start_sample), seconds(word.end_sample)
    return Word(word.text.strip(), start, end, round(word.probability, 4))


def _seconds_or_none(sample: int | None) -> float | None:
    return None if sample is None else seconds(sample)
