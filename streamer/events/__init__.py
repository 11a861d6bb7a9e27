"""The events of protocol version 1, as frozen records with an exact JSON form.

A session's events carry `session`, `seq` and `audio_t`; connection messages carry none of them and are made by
`streamer.server.messages`. All times are seconds on the capture clock: sample index / 16,000.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, ClassVar, Final, Literal, TypedDict, get_args, get_origin, get_type_hints

PROTOCOL_VERSION = 1
SAMPLE_RATE = 16_000  # samples a second, everywhere inside Streamer
FRAME_SAMPLES = SAMPLE_RATE // 50  # 20 ms: what is judged for a voice, and what an encoder position stands for
UNCLEAR: Final = "[unclear]"  # what people read where `Transcript.unclear` says that somebody spoke
WITHDRAWN: Final = "withdrawn"  # among the labels of an alert that is taken back: it was not so
_OPTIONAL: Final = {"optional": True}  # a field whose key is left out while it is empty

State = Literal["starting", "listening", "no_audio", "degraded", "stopped"]
AlertState = Literal["raised", "updated", "acknowledged", "cleared"]
Severity = Literal["info", "warning", "critical"]
AlertSource = Literal["live", "file", "demo", "test"]
SceneName = Literal["quiet", "speech", "speech_in_noise", "noise", "music", "alarm"]
SEVERITY_RANK: Final[Mapping[Severity, int]] = {"info": 0, "warning": 1, "critical": 2}


def seconds(samples: int) -> float:
    """Seconds on the capture clock of an absolute sample index, to the microsecond."""
    return round(samples / SAMPLE_RATE, 6)


class Stamp(TypedDict):
    """What every event of a session carries, as `Event` says."""

    session: str
    seq: int
    audio_t: float


@dataclass(frozen=True, slots=True)
class Word:
    """One committed word: text without surrounding space, start and end in seconds, probability in 0..1."""

    word: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time: start and end in seconds."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Tag:
    """One sound class that was heard: index in 0..526, AudioSet display name, calibrated score in 0..1.

    `span_s`: how many of the last seconds the score is of, the shortest span that decided; 0 where that is not known.
    """

    index: int
    label: str
    score: float
    span_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What every session event carries. `audio_t`: end, in seconds, of the audio that the decision used."""

    type: ClassVar[str] = ""
    session: str
    seq: int
    audio_t: float

    def to_dict(self) -> dict[str, Any]:
        """The event as plain JSON types, keys in protocol order."""
        head: dict[str, Any] = {"v": PROTOCOL_VERSION, "type": self.type}
        return head | {name: _plain(value) for name, value in _items(self)}

    def to_json(self) -> str:
        """The event as one line of JSON (UTF-8 text, no newline inside)."""
        return json.dumps(self.to_dict(), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(Event):
    """The state of the session changed."""

    type: ClassVar[str] = "status"
    state: State
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript(Event):
    """All committed text of one segment so far, and the tail that may still change.

    `unclear`: where somebody spoke and nothing was sure enough to be shown, all of the segment so far, in order; a
    segment may hold nothing else.
    """

    type: ClassVar[str] = "transcript"
    segment: int
    start: float
    end: float
    text: str
    partial: str
    final: bool
    words: tuple[Word, ...]
    language: str
    speech_probability: float
    unclear: tuple[Span, ...] = field(default=(), metadata=_OPTIONAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags(Event):
    """What sounds at `end`: best first, all of at least 0.1, at most ten; empty for digital silence."""

    type: ClassVar[str] = "tags"
    start: float
    end: float
    tags: tuple[Tag, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound(Event):
    """A sound event for people: it starts once and ends once; `end` is None while it lasts."""

    type: ClassVar[str] = "sound"
    id: int
    label: str
    state: Literal["start", "end"]
    start: float
    end: float | None
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert(Event):
    """A rule fired, changed, was acknowledged, or is over; every raised alert is cleared once.

    `source`: what was listened to; `test`: nothing was, somebody tries who is told. `too_quiet`: whoever has the
    audiogram of the settings would not have heard it without help.
    """

    type: ClassVar[str] = "alert"
    id: int
    rule: str
    severity: Severity
    state: AlertState
    start: float
    end: float | None
    score: float
    labels: tuple[str, ...]
    heard: tuple[Tag, ...]
    text: str
    source: AlertSource = "live"
    too_quiet: bool = field(default=False, metadata=_OPTIONAL)

    def to_dict(self) -> dict[str, Any]:
        """As every event's; a test also has `test`, which is true."""
        return Event.to_dict(self) | ({"test": True} if self.source == "test" else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap(Event):
    """Samples from `start` to `end` were lost (`kind` audio)."""

    type: ClassVar[str] = "gap"
    kind: Literal["audio"] = "audio"
    start: float
    end: float
    reason: str


@dataclass(frozen=True, slots=True)
class SceneScores:
    """How much speaks for each scene, 0..1 each."""

    quiet: float
    speech: float
    speech_in_noise: float
    noise: float
    music: float
    alarm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene(Event):
    """The surroundings are of another kind from `start` on."""

    type: ClassVar[str] = "scene"
    scene: SceneName
    start: float
    scores: SceneScores


SESSION_EVENTS: tuple[type[Event], ...] = (Status, Transcript, Tags, Sound, Alert, Gap, Scene)


MOST: Final = 1e12  # no second, score or probability comes near it: a larger number is damage


def read_event(data: Mapping[str, Any]) -> Event:
    """The event of its own JSON form (`to_dict`).

    Raises KeyError, TypeError or ValueError where it is none: also where a field is not of its type, or no finite
    number, so that whoever works with the event need not expect any.
    """
    kind: Any = next((kind for kind in SESSION_EVENTS if kind.type == data["type"]), None)
    if kind is None:
        raise ValueError(f"type: must be that of a session's event, is {data['type']!r}")
    event: Event = _reader(kind)({name: value for name, value in data.items() if name not in ("v", "type", "test")})
    return event


@cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    """What makes a value of this type (a record's, or a field's) of what JSON has for it. It raises as `read_event`."""
    outer, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        readers = {name: _reader(one) for name, one in get_type_hints(kind).items() if get_origin(one) is not ClassVar}
        return lambda value: kind(  # type: ignore[operator]
            **{name: readers[name](one) for name, one in _fitting(value, isinstance(value, Mapping)).items()}
        )
    if outer is tuple:
        one_of_them = _reader(inner[0])
        return lambda value: tuple(map(one_of_them, _fitting(value, isinstance(value, list | tuple))))
    if outer is UnionType:  # that or None
        not_none = _reader(inner[0])
        return lambda value: None if value is None else not_none(value)
    if outer is Literal:
        return lambda value: _fitting(value, value in inner)
    if kind is float:
        return lambda value: _fitting(value, type(value) in (float, int) and abs(value) <= MOST)  # NaN does not
    return lambda value: _fitting(value, type(value) is kind)


def _fitting(value: Any, fits: bool) -> Any:
    if not fits:
        raise ValueError(f"{str(value)[:40]!r} is no value of an event's field")
    return value


def _items(record: Any) -> Iterator[tuple[str, Any]]:
    values = ((one, getattr(record, one.name)) for one in fields(record))
    return ((one.name, value) for one, value in values if value or not one.metadata.get("optional"))


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {name: _plain(item) for name, item in _items(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
