"""What people were told of a session, kept outside of it: where the session fails, this is what can be relied on.

Pure. With it everything that was begun is ended as the protocol wants it, and another session goes on with the numbers.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from streamer.events import MOST, SAMPLE_RATE, Alert, Event, Sound, State, Status, Transcript, read_event, seconds

UNCOMMITTED_S = 15.0  # speech that is older was committed or given up
UNTOLD_S = 3.0  # an utterance may have begun so long ago without a word of it


class Told:
    """The newest event of all that is open, and the highest numbers that were given."""

    def __init__(self, session: str, begun: int = 0) -> None:
        """`begun`: events of the session that were said before, while the model was loaded."""
        self.session, self.seq = session, begun
        self.segments = 0  # the next segment's number
        self.sounds = self.alerts = 0  # the last ids
        self.over = False  # the newest event says that the session stopped
        self._audio_t = self._committed_t = 0.0  # the latter: end of the last committed word
        self._open: dict[tuple[type[Event], int], Transcript | Sound | Alert] = {}

    @property
    def audio_sample(self) -> int:
        """End of the audio that events were said of."""
        return round(self._audio_t * SAMPLE_RATE)

    @property
    def resume_sample(self) -> int:
        """From here on another session has to hear the audio, so that no word is lost that people were not told of."""
        speaking = any(isinstance(last, Transcript) for last in self._open.values())
        back_s = UNCOMMITTED_S if speaking else UNTOLD_S
        return round(max(self._committed_t, self._audio_t - back_s, 0.0) * SAMPLE_RATE)

    def note(self, event: Event) -> None:
        """It is about to be said."""
        self.seq, self._audio_t = event.seq, event.audio_t
        self.over = isinstance(event, Status) and event.state == "stopped"
        match event:
            case Transcript():
                self.segments = max(self.segments, event.segment + 1)
                self._committed_t = max([self._committed_t, *(word.end for word in event.words[-1:])])
                self._keep(event, event.segment, ended=event.final)
            case Sound():
                self.sounds = max(self.sounds, event.id)
                self._keep(event, event.id, ended=event.state == "end")
            case Alert():
                self.alerts = max(self.alerts, event.id)
                self._keep(event, event.id, ended=event.state == "cleared")

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain JSON types, for `of_dict`."""
        counts = {"seq": self.seq, "segments": self.segments, "sounds": self.sounds, "alerts": self.alerts}
        events = [event.to_dict() for event in self._open.values()]
        return counts | {"over": self.over, "audio_t": self._audio_t, "open": events}

    @classmethod
    def of_dict(cls, session: str, data: Mapping[str, Any]) -> "Told":
        """What `to_dict` gave. Raises KeyError, TypeError or ValueError for anything else."""
        told = cls(session)
        for event in map(read_event, data["open"]):
            told.note(event)
        told.seq, told.segments, told.sounds, told.alerts = (
            _whole(data[name]) for name in ("seq", "segments", "sounds", "alerts")
        )
        told.over, told._audio_t = bool(data["over"]), float(data["audio_t"])
        if not 0 <= told._audio_t < MOST:
            raise ValueError("audio_t: must be seconds")
        return told

    def close(self, at_sample: int, state: State, detail: str) -> list[Event]:
        """End everything that is open, with what was said of it last, and say why."""
        at_t = max(self._audio_t, seconds(at_sample))
        seq, events = self.seq, list[Event]()
        for last in self._open.values():
            seq += 1
            match last:
                case Transcript():
                    events.append(replace(last, seq=seq, audio_t=at_t, partial="", final=True))
                case Sound():
                    events.append(replace(last, seq=seq, audio_t=at_t, state="end", end=max(at_t, last.start)))
                case Alert():
                    events.append(replace(last, seq=seq, audio_t=at_t, state="cleared", end=max(at_t, last.start)))
        return [*events, Status(session=self.session, seq=seq + 1, audio_t=at_t, state=state, detail=detail)]

    def _keep(self, event: Transcript | Sound | Alert, number: int, *, ended: bool) -> None:
        if ended:
            self._open.pop((type(event), number), None)
        else:
            self._open[type(event), number] = event


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is no whole number")
    return value
