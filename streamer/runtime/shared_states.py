"""The states of what all sessions share: files, deliveries of alerts, headphones. Every session says them.

Told by any thread; the sessions say it in the worker's.
"""

from collections.abc import Mapping
from functools import partial

from streamer.events import Event, State
from streamer.runtime.lane import Lane
from streamer.runtime.pipeline import Pipeline
from streamer.runtime.session import Session, Subject


class SharedStates:
    """`pipelines`: those of the sessions that are open, by name."""

    def __init__(self, pipelines: Mapping[str, Pipeline]) -> None:
        self._pipelines = pipelines
        self._states: dict[Subject, tuple[State, str]] = {}

    def tell(self, subject: Subject, state: State, detail: str) -> None:
        """From now on it is so; all sessions say it."""
        self._states[subject] = state, detail
        for pipeline in list(self._pipelines.values()):
            pipeline.lane.ask(partial(self._say, subject))

    def tell_trouble(self, subject: Subject, trouble: str) -> None:
        """The same in one word: `degraded` for this, or well ("")."""
        self.tell(subject, "degraded" if trouble else "listening", trouble)

    def greet(self, lane: Lane) -> None:
        """A new session says what is wrong by now."""
        for subject, (state, _) in list(self._states.items()):
            if state != "listening":
                lane.ask(partial(self._say, subject))

    def _say(self, subject: Subject, session: Session) -> list[Event]:
        return session.status(*self._states[subject], subject=subject)
