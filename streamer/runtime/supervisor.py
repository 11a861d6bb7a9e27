"""The program: model, source, threads, sinks and server, put together, watched, and taken down again.

The main thread runs `Program`: it starts the others, waits for the end of the input, a signal or a failure, and then
stops capture, commits the last words, closes files and sockets, all in less than 5 s.
"""

import logging
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from streamer.audio.block import Source
from streamer.config import Settings
from streamer.errors import ConfigError, StreamerError, UsageError
from streamer.events import SAMPLE_RATE, Event
from streamer.model.whisper import Model
from streamer.runtime.engine import Engine
from streamer.runtime.ingest import Ingests
from streamer.runtime.interruption import Interruption
from streamer.runtime.lane import Action, Emit
from streamer.runtime.outlet import Outlet, Sinks
from streamer.runtime.pipeline import Pipeline, stop_all
from streamer.runtime.stream import Hearing, Stream
from streamer.runtime.worker import Worker
from streamer.sinks.deliveries import Deliveries, open_deliveries
from streamer.sinks.ingest import IngestFullError, IngestStart, PcmQueue
from streamer.sinks.listening import Actions, ServerOptions
from streamer.sinks.messages import Ack, Flush, MessageError, SessionHealth, SessionInfo
from streamer.sinks.server_thread import ServerThread

log = logging.getLogger(__name__)

WATCH_S = 0.1  # how often the main thread looks after the others and moves the level meter
FLUSH_S = 2.0  # for the last words; then the model is not asked any more
WRITE_S = 0.7  # for the last events, where somebody waits for the end
DELIVER_S = 0.7  # for the last alerts, where somebody waits for the end
DELIVER_UNHURRIED_S = 10.0  # where the input just ended
LoadModel = Callable[[], Model]


class Program:
    """One run of `streamer run`. `load` loads the model when the source and the outputs are known to work."""

    def __init__(self, settings: Settings, source: Source, load: LoadModel, *, port_given: bool = True) -> None:
        self._settings, self._source, self._load = settings, source, load
        self._port_given = port_given
        self._interruption = Interruption()
        self._pipelines: dict[str, Pipeline] = {}
        self._main: str | None = None  # the session of the program's own source
        self._ingests: Ingests | None = None
        self._failure: Exception | None = None

    def run(self) -> int:
        """Run to the end; the exit status. Raises StreamerError for what is wrong before anything was heard."""
        output, at_once = self._settings.output, self._settings.audio.speed == 0
        sinks = Sinks(output, self._settings.audio.input)
        deliveries = open_deliveries(self._settings, live=not at_once, run=session_name("s1") if at_once else None)
        with self._interruption.handled():
            server = self._server(deliveries)
            try:
                model = self._load()
                engine = Engine(model, context=self._settings.model.context)
                engine.warm_up()
                sinks.begin(None if output.quiet else sys.stderr if output.jsonl == "-" else sys.stdout)
                outlet = Outlet(sinks)
                outlet.start()
                self._interruption.clean = True
                deliveries.start()
                carry = self._run_at_once if at_once else self._run_live
                carry(engine, outlet, server, deliveries)
                asked = self._interruption.asked
                deliveries.stop(DELIVER_S if asked else DELIVER_UNHURRIED_S)
                outlet.stop(WRITE_S if asked else None)
                if output.stay and server and not self._failure:
                    self._interruption.wait()
            finally:
                self._source.close()
                if server:
                    server.stop()
        if self._failure:
            log.error("streamer: %s", self._failure)
            return 2 if isinstance(self._failure, UsageError) else 1
        return 1 if sinks.failed else 0

    def _emitter(self, outlet: Outlet, server: ServerThread | None, deliveries: Deliveries) -> Emit:
        def emit(events: Sequence[Event]) -> None:
            deliveries.put(events)
            for event in events:
                if server:
                    server.publish(event)
            outlet.put(events)

        return emit

    def _run_at_once(self, engine: Engine, outlet: Outlet, server: ServerThread | None, deliveries: Deliveries) -> None:
        """Speed 0: the reader waits for every hop, nothing is dropped; only what is written has a thread of its own."""
        stream = Stream(engine.model, self._settings)
        self._main = stream.session.name
        self._open(server, engine.model, stream.session.name)
        emit = self._emitter(outlet, server, deliveries)
        threading.Thread(target=self._close_when_asked, name="closer", daemon=True).start()
        state = "listening"
        try:
            for block in self._source.blocks():
                if block.lost_samples:
                    emit(stream.lost(block.lost_samples, block.reason))
                if block.state != state:
                    state = block.state
                    emit(stream.status(block.state, "" if state == "listening" else block.reason))
                emit(stream.push(block.samples))
                if self._interruption.asked or outlet.reader_gone:
                    break
        except StreamerError as error:
            self._failure = error
            emit(stream.status("degraded", str(error)))
        emit(stream.finish())

    def _run_live(self, engine: Engine, outlet: Outlet, server: ServerThread | None, deliveries: Deliveries) -> None:
        worker = Worker(engine)
        emit = self._emitter(outlet, server, deliveries)

        def make(source: Source, stem: str) -> Pipeline:
            name = session_name(stem)
            hearing = Hearing(engine.model, self._settings, name, local_time=seconds_after_midnight)
            pipeline = Pipeline(deliveries.tap(name, source), self._settings, worker, hearing, emit)
            self._pipelines[name] = pipeline
            self._open(server, engine.model, name)
            return pipeline

        def closed(name: str) -> None:
            self._pipelines.pop(name, None)
            if server:
                server.close_session(name)

        main = make(self._source, "s1")
        self._main = main.name
        self._ingests = Ingests(make, closed, self._settings.audio.stall_s)
        worker.start()
        main.start()
        self._watch(main, worker, outlet, stays=self._settings.output.stay and server is not None)
        stop_all(list(self._pipelines.values()), FLUSH_S)
        worker.stop(0.3)
        self._failure = self._failure or worker.failure or main.failure

    def _watch(self, main: Pipeline, worker: Worker, outlet: Outlet, *, stays: bool) -> None:
        """Until the end of the input (unless the program stays up), a signal, or a failure."""
        while not self._interruption.wait(WATCH_S) and not outlet.reader_gone and worker.failure is None:
            if main.done and not stays:
                break
            if self._ingests:
                self._ingests.sweep()
            outlet.meter(None if main.done else main.level_dbfs, main.lag_s)

    def _close_when_asked(self) -> None:
        self._interruption.wait()
        self._source.close()

    def _server(self, deliveries: Deliveries) -> ServerThread | None:
        """A server that can be started: its port was free a moment ago. It starts with the first session."""
        given = self._settings.server
        if not given.enabled:
            return None
        options = ServerOptions(**given.model_dump(exclude={"enabled"}))
        probe = ServerThread(options)
        try:
            probe.start()
        except ConfigError as error:
            if self._settings.audio.speed == 0 and not self._port_given:
                log.warning("streamer: %s; going on without the server", error)
                return None
            raise
        probe.stop()
        actions = Actions(
            ack=self._ack,
            flush=self._flush,
            mark=deliveries.mark,
            health=self._health,
            open_ingest=self._open_ingest,
        )
        server = ServerThread(options, actions, on_failure=self._server_failed)
        deliveries.tell_marks(server.show_marks)
        return server

    def _announce(self, server: ServerThread | None) -> None:
        if server and not self._settings.output.quiet:
            token = "" if self._settings.server.token is None else "?token=…"
            log.warning("captions and sounds: %s/%s   overlay: %s/overlay%s", server.url, token, server.url, token)

    def _open(self, server: ServerThread | None, model: Model, name: str) -> None:
        if not server:
            return
        head = model.head.name if model.head else None
        server.open_session(SessionInfo(name, model.name, head, SAMPLE_RATE))
        if not server.url:
            server.start()
            self._announce(server)

    def _server_failed(self, error: Exception) -> None:
        self._failure = error
        self._interruption.ask()

    def _asked(self, session: str | None, what: str, action: Action) -> None:
        """Have a live session do something; MessageError where there is none of this name."""
        name = session or self._main
        pipeline = self._pipelines.get(name) if name else None
        if pipeline is None or not pipeline.lane.ask(action):
            raise MessageError(f"{what}: session {name!r} is over or never was; live are: {self._live_names()}")

    def _live_names(self) -> str:
        return ", ".join(name for name, pipeline in self._pipelines.items() if not pipeline.done) or "none"

    def _open_ingest(self, start: IngestStart) -> PcmQueue:
        if self._ingests is None:
            raise IngestFullError("ingest: not listening to senders (yet)")
        return self._ingests.open(start)

    def _ack(self, message: Ack) -> None:
        self._asked(message.session, "ack", lambda session: session.acknowledge(message.id))

    def _flush(self, message: Flush) -> None:
        if message.session is None:
            for pipeline in list(self._pipelines.values()):
                pipeline.lane.ask(lambda session: session.flush())
        else:
            self._asked(message.session, "flush", lambda session: session.flush())

    def _health(self) -> Mapping[str, SessionHealth]:
        if self._main is not None and not self._pipelines:  # speed 0: never behind, never without sound
            return {self._main: SessionHealth(0.0, 0.0)}
        return {
            name: SessionHealth(pipeline.last_audio_age_s, pipeline.lag_s, pipeline.level_dbfs)
            for name, pipeline in list(self._pipelines.items())
        }


def session_name(stem: str) -> str:
    """A name that no earlier run had, so that a client that comes back knows a new session from the one it left."""
    return f"{stem}-{datetime.now():%Y%m%dT%H%M%S}"


def seconds_after_midnight() -> float:
    """Local time of day, for quiet hours."""
    now = datetime.now()
    return (now.hour * 60 + now.minute) * 60 + now.second
