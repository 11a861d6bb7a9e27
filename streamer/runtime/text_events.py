"""Changes of the text as others see them: the protocol's `transcript`, and what the rules of alerts read (pure)."""

from streamer.events import Span, Stamp, Transcript, Word, seconds
from streamer.policy.text_session import TextChange
from streamer.sound.triggers import AlertText


def transcript(change: TextChange, stamp: Stamp, speech_probability: float) -> Transcript:
    """A segment's text as the protocol has it, in seconds."""
    return Transcript(
        **stamp,
        segment=change.segment,
        start=seconds(change.start_sample),
        end=seconds(change.end_sample),
        text=change.text,
        partial=change.partial,
        final=change.final,
        words=tuple(
            Word(one.text.strip(), seconds(one.start_sample), seconds(one.end_sample), round(one.probability, 4))
            for one in change.words
        ),
        language=change.language,
        speech_probability=round(speech_probability, 4),
        unclear=tuple(Span(seconds(start), seconds(end)) for start, end in change.unclear),
    )


def alert_text(change: TextChange) -> AlertText:
    """A segment's text as the rules for spoken phrases see it."""
    spans: list[tuple[int, int]] = []  # of each word as spaces part them: what has none before it goes on
    for word in change.words:
        start = word.start_sample if not spans or word.text[:1].isspace() else spans.pop()[0]
        spans.append((start, word.end_sample))
    return AlertText(
        change.segment, change.text, change.partial, change.start_sample, change.end_sample, change.final, tuple(spans)
    )
