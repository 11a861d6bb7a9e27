"""A made-up minute of a room, as the events that a session would make of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from streamer.events import Alert, Event, Gap, Sound, Span, Status, Tag, Tags, Transcript, Word

SPEECH = Tag(0, "Speech", 0.93)
SIREN_TAGS = (
    Tag(388, "Smoke detector, smoke alarm", 0.88),
    Tag(388, "Beep, bleep", 0.61),
    Tag(0, "Speech", 0.42),
    Tag(500, "Inside, small room", 0.17),
)
TALK_TAGS = (SPEECH, Tag(137, "Music", 0.21), Tag(500, "Inside, small room", 0.15))


@dataclass
class Scene:
    """Makes events with growing numbers. `at` is where the session is, in seconds."""

    session: str = "kitchen"
    seq: int = 0
    at: float = 0.0
    segment: int = 0
    alerts: dict[int, Alert] = field(default_factory=dict)
    sounds: dict[int, float] = field(default_factory=dict)  # their starts, in seconds

    def make(self, kind: type[Event], **fields: Any) -> Event:
        self.seq += 1
        return kind(session=self.session, seq=self.seq, audio_t=self.at, **fields)

    def status(self, state: str = "listening", detail: str = "") -> Event:
        return self.make(Status, state=state, detail=detail)

    def say(self, text: str, partial: str = "", final: bool = False, unclear: tuple[float, ...] = ()) -> Event:
        """One state of the open segment; `final` closes it. `unclear`: starts of seconds that were not understood."""
        start = self.at
        words = tuple(Word(word, start + 0.3 * i, start + 0.3 * (i + 1), 0.9) for i, word in enumerate(text.split()))
        event = self.make(
            Transcript,
            segment=self.segment,
            start=start,
            end=start + 0.3 * len(words),
            text=text,
            partial=partial,
            final=final,
            words=words,
            language="en",
            speech_probability=0.9,
            unclear=tuple(Span(start, start + 1) for start in unclear),
        )
        self.segment += final
        return event

    def speak(self, text: str) -> Iterator[Event]:
        """A whole segment, word by word, the newest two words still partial."""
        words = text.split()
        for count in range(1, len(words) + 1):
            yield self.say(" ".join(words[: max(0, count - 2)]), " ".join(words[max(0, count - 2) : count]))
        yield self.say(text, final=True)
        self.at += 0.3 * len(words) + 1

    def tags(self, *tags: Tag) -> Event:
        return self.make(Tags, start=max(0.0, self.at - 10), end=self.at, tags=tags)

    def sound(self, label: str, number: int, state: str = "start") -> Event:
        end = None if state == "start" else self.at
        start = self.sounds.setdefault(number, self.at)
        return self.make(Sound, id=number, label=label, state=state, start=start, end=end, score=0.8)

    def alert(self, number: int, rule: str, severity: str, state: str = "raised", text: str = "") -> Event:
        start = self.alerts[number].start if number in self.alerts else self.at
        event = self.make(
            Alert,
            id=number,
            rule=rule,
            severity=severity,
            state=state,
            start=start,
            end=self.at if state == "cleared" else None,
            score=0.88,
            labels=("Smoke detector, smoke alarm",) if severity == "critical" else ("Doorbell",),
            heard=SIREN_TAGS[:3] if severity == "critical" else TALK_TAGS,
            text=text,
        )
        assert isinstance(event, Alert)
        self.alerts[number] = event
        return event

    def gap(self, seconds: float) -> Event:
        return self.make(Gap, start=self.at, end=self.at + seconds, reason="the reader was too slow")


def minute() -> Iterator[Event]:
    """Talk, a doorbell, a smoke alarm while people go on talking, and a sentence that is not finished."""
    scene = Scene()
    yield scene.status()
    yield from scene.speak("Good evening everyone, and thank you for coming.")
    yield scene.tags(*TALK_TAGS)
    scene.at = 9.0
    yield scene.sound("Doorbell", 1)
    yield scene.alert(1, "doorbell", "info")
    scene.at = 11.0
    yield scene.sound("Doorbell", 1, "end")
    yield scene.alert(1, "doorbell", "info", "cleared")
    yield from scene.speak("That will be Anna. Could somebody open the door, please?")
    yield scene.gap(0.4)
    yield from scene.speak("I will go. The soup is on the stove, by the way, and the bread is in the oven.")
    scene.at = 31.0
    yield scene.sound("Smoke detector", 2)
    yield scene.alert(2, "smoke_alarm", "critical", text="the bread is in the oven")
    yield scene.tags(*SIREN_TAGS)
    scene.at = 33.0
    yield from scene.speak("Is that the smoke alarm?")
    scene.at = 38.0
    yield scene.tags(*SIREN_TAGS)
    yield scene.say("Yes, it is coming from the", partial="kitchen, can you")
