"""What clients of the server set going in a run: the functions behind `Actions`, but those that others bring whole.

The server's event loop calls all of them, and none waits. What they want of a session goes to its lane, and is done by
the worker's thread between two steps. The main thread says when senders are taken and when no more are (`ingests`).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from streamer.alerts.recorder import Recorder
from streamer.errors import UsageError
from streamer.model.whisper import check_languages, language_codes
from streamer.runtime.engines import Engines
from streamer.runtime.inputs import Ingests
from streamer.runtime.lane import Action
from streamer.runtime.pipeline import Pipeline
from streamer.runtime.teaching import Teaching
from streamer.server.actions import IngestFullError, Reply
from streamer.server.ingest import PcmQueue
from streamer.server.messages import Ack, Flush, IngestStart, Mark, MessageError, SessionHealth, SetLanguage, Teach


class ClientActions:
    """`names`: the sessions of the program's own inputs; `pipelines`: all live sessions, by name, as they come and go.

    `ingests` None: no senders are taken (yet, or any more). `live` False: speed 0, where nothing is live.
    """

    def __init__(
        self,
        names: Sequence[str],
        pipelines: Mapping[str, Pipeline],
        engines: Engines,
        teaching: Teaching,
        *,
        live: bool,
    ) -> None:
        self.ingests: Ingests | None = None
        self._names, self._pipelines, self._live = names, pipelines, live
        self._engines, self._teaching = engines, teaching

    def ack(self, message: Ack) -> None:
        """Somebody has seen an alert."""
        self._asked(message.session, "ack", lambda session: session.acknowledge(message.id))

    def flush(self, message: Flush) -> None:
        """What is open becomes final, in one session or in all."""
        if message.session is None:
            for pipeline in list(self._pipelines.values()):
                pipeline.lane.ask(lambda session: session.flush())
        else:
            self._asked(message.session, "flush", lambda session: session.flush())

    def asked(self, message: Ack | Flush) -> None:
        """The same, of a reader at another server of the cluster, who learns nothing of what became of it."""
        with suppress(MessageError):  # the session is over by now
            if isinstance(message, Ack):
                self.ack(message)
            else:
                self.flush(message)

    def set_language(self, message: SetLanguage) -> SetLanguage:
        """The languages of a session from its next window on; what holds now."""
        if self._engines.model is None:
            raise MessageError("language: the model is still being loaded; ask again when the state is listening")
        try:
            languages = language_codes(message.language, "language")
            check_languages(languages, self._engines.model, "language")
        except UsageError as error:
            raise MessageError(str(error)) from None
        name = self._asked(message.session, "set", lambda session: session.set_language(languages))
        return SetLanguage(languages, name)

    def teach(self, message: Teach, reply: Reply) -> None:
        """A clip of a sound that is to be learned, cut from what a session just heard."""
        heard = not message.undo and bool(self._pipelines)  # without any, the model is still being loaded
        self._teaching.ask(message, self._pipeline(message.session, "teach").clips if heard else None, reply)

    def health(self) -> Mapping[str, SessionHealth]:
        """How each session is, by name."""
        if not self._live:  # never behind, never without sound
            return {name: SessionHealth(0.0, 0.0) for name in self._names}
        return {
            name: SessionHealth(pipeline.last_audio_age_s, pipeline.lag_s, pipeline.level_dbfs)
            for name, pipeline in list(self._pipelines.items())
        }

    def takes_senders(self) -> bool:
        """Whether `open_ingest` would open a session at all."""
        return self.ingests is not None

    def open_ingest(self, start: IngestStart) -> PcmQueue:
        """A session for one more sender. Raises IngestFullError, UsageError."""
        if self.ingests is None:
            never = "off: files at --speed 0 are all that is heard; start with --input ingest"
            raise IngestFullError("ingest: not listening to senders (yet)" if self._live else never)
        return self.ingests.open(start)

    def _asked(self, session: str | None, what: str, action: Action) -> str:
        """Have a live session do something; its name. MessageError where there is none of this name."""
        pipeline = self._pipeline(session, what)
        if not pipeline.lane.ask(action):
            raise self._over(pipeline.name, what)
        return pipeline.name

    def _pipeline(self, session: str | None, what: str) -> Pipeline:
        """A session's, or that of the only source. MessageError where there is none of this name."""
        if session is None and len(self._names) != 1:
            raise MessageError(f"session: there are several sources, say which; live are: {self._live_names()}")
        name = session or self._names[0]
        if name not in self._pipelines:
            raise self._over(name, what)
        return self._pipelines[name]

    def _over(self, name: str, what: str) -> MessageError:
        return MessageError(f"{what}: session {name!r} is over or never was; live are: {self._live_names()}")

    def _live_names(self) -> str:
        return ", ".join(name for name, pipeline in self._pipelines.items() if not pipeline.done) or "none"


def marking(recorder: Recorder | None) -> Callable[[Mark], None] | None:
    """Writes a mark into the history, without waiting; MessageError: no such alert. None: there is no history."""
    if recorder is None:
        return None

    def mark(message: Mark) -> None:
        try:
            recorder.mark(message.id, message.session, false_alarm=message.false_alarm)
        except LookupError as error:
            raise MessageError(f"mark: {error}") from None

    return mark
