"""Events as one view shows them when there are several sources: the source's name stands in front (pure)."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from streamer.events import Alert, Event, Gap, Sound, State, Status, Transcript

_GRAVITY: Mapping[State, int] = {"stopped": 0, "listening": 1, "starting": 2, "degraded": 3, "no_audio": 3}


class Naming:
    """Puts `kitchen: ` in front of what people read; of the states of all sources the gravest is shown.

    `sessions`: the program's own. One alone needs no name; senders on `/ingest` have one always.
    """

    def __init__(self, sessions: Iterable[str]) -> None:
        own = list(sessions)
        self._labels = {own[0]: ""} if len(own) == 1 else {name: f"{name}: " for name in own}
        self._states: dict[str, Status] = {}
        self._shown: Status | None = None

    def step(self, event: Event) -> Event | None:
        """The event to show; None: what is shown stays."""
        if isinstance(event, Status):
            return self._status(event)
        label = self._label(event.session)
        match event:
            case Transcript() if event.text:
                return replace(event, text=label + event.text)
            case Transcript() if event.partial:
                return replace(event, partial=label + event.partial)
            case Transcript() if event.unclear:
                return replace(event, text=label)
            case Sound():
                return replace(event, label=label + event.label)
            case Alert():
                return replace(event, rule=label + event.rule)
            case Gap():
                return replace(event, reason=label + event.reason)
        return event

    def _label(self, session: str) -> str:
        return self._labels.setdefault(session, f"{session.rsplit('-', 1)[0]}: ")

    def _status(self, event: Status) -> Status | None:
        self._states[event.session] = event
        gravest = max(_GRAVITY[status.state] for status in self._states.values())
        if _GRAVITY[event.state] == gravest:
            chosen = event
        else:
            others = [status for status in self._states.values() if _GRAVITY[status.state] == gravest]
            chosen = next((status for status in others if status is self._shown), others[0])
        if event.state == "stopped" and event is not chosen:
            del self._states[event.session]
        if chosen is self._shown:
            return None
        self._shown = chosen
        return replace(chosen, detail=self._label(chosen.session) + chosen.detail) if chosen.detail else chosen
