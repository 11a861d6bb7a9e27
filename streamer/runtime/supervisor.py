"""The program: model, source, threads, sinks and server, put together, watched, and taken down again.

The main thread runs `Program`: it starts the others, waits for the end of the input, a signal or a failure, and then
stops capture, commits the last words, closes files and sockets, all in less than 5 s.
"""

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import FrameType

from streamer.audio.block import Source
from streamer.config import Settings
from streamer.errors import ConfigError
from streamer.events import SAMPLE_RATE, Event
from streamer.model.whisper import Model
from streamer.runtime.engine import Engine
from streamer.runtime.ingest import Ingests
from streamer.runtime.outlet import Outlet, Sinks
from streamer.runtime.pipeline import Pipeline
from streamer.runtime.stream import Hearing, Stream
from streamer.runtime.worker import Worker
from streamer.sinks.deliveries import Deliveries, open_deliveries
from streamer.sinks.ingest import IngestFullError, IngestStart, PcmQueue
from streamer.sinks.listening import Actions, ServerOptions
from streamer.sinks.messages import Ack, Flush, MessageError, SessionHealth, SessionInfo
from streamer.sinks.server_thread import ServerThread
from streamer.sinks.terminal import TerminalView

log = logging.getLogger(__name__)

WATCH_S = 0.1  # how often the main thread looks after the others and moves the level meter
FLUSH_S = 2.0  # for the last words; then the model is not asked any more
DELIVER_S = 0.7  # for the last alerts, where somebody waits for the end
DELIVER_UNHURRIED_S = 10.0  # where the input just ended
LoadModel = Callable[[], Model]


class Program:
    """One run of `streamer run`. `load` loads the model when the source and the outputs are known to work."""

    def __init__(self, settings: Settings, source: Source, load: LoadModel, *, port_given: bool = True) -> None:
        self._settings, self._source, self._load = settings, source, load
        self._port_given = port_given
        self._stop = threading.Event()
        self._hearing = False  # from here on a signal means: flush, then leave
        self._pipelines: dict[str, Pipeline] = {}
        self._ingests: Ingests | None = None
        self._failure: Exception | None = None

    def run(self) -> int:
        """Run to the end; the exit status. Raises StreamerError for what is wrong before anything was heard."""
        output = self._settings.output
        sinks = Sinks(output, None)
        at_once = self._settings.audio.speed == 0
        deliveries = open_deliveries(self._settings, live=not at_once, run=session_name("s1") if at_once else None)
        with self._signals():
            server = self._server()
            try:
                model = self._load()
                engine = Engine(model, context=self._settings.model.context)
                engine.warm_up()
                if not output.quiet:
                    sinks.view = TerminalView(sys.stderr if output.jsonl == "-" else sys.stdout)
                self._hearing = True
                deliveries.start()
                if at_once:
                    self._run_at_once(model, sinks, server, deliveries)
                else:
                    self._run_live(engine, sinks, server, deliveries)
                deliveries.stop(DELIVER_S if self._stop.is_set() else DELIVER_UNHURRIED_S)
                if output.stay and server and not self._failure:
                    self._stop.wait()
            finally:
                self._source.close()
                sinks.close()
                if server:
                    server.stop()
        if self._failure:
            log.error("%s", self._failure)
            return 1
        return 1 if sinks.failed else 0

    def _run_at_once(self, model: Model, sinks: Sinks, server: ServerThread | None, deliveries: Deliveries) -> None:
        """Speed 0: one thread, the reader waits for every hop, nothing is dropped."""
        stream = Stream(model, self._settings)
        self._open(server, model, stream.session.name)
        self._announce(server)

        def emit(events: Sequence[Event]) -> None:
            deliveries.put(events)
            for event in events:
                sinks.write(event)
                if server:
                    server.publish(event)

        state = "listening"
        for block in self._source.blocks():
            if block.lost_samples:
                emit(stream.lost(block.lost_samples, block.reason))
            if block.state != state:
                state = block.state
                emit(stream.status(block.state, "" if state == "listening" else block.reason))
            emit(stream.push(block.samples))
            if self._stop.is_set() or sinks.reader_gone:
                break
        emit(stream.finish())

    def _run_live(self, engine: Engine, sinks: Sinks, server: ServerThread | None, deliveries: Deliveries) -> None:
        outlet = Outlet(sinks)
        worker = Worker(engine)
        outlet.start()
        worker.start()

        def emit(events: Sequence[Event]) -> None:
            deliveries.put(events)
            for event in events:
                if server:
                    server.publish(event)
            outlet.put(events)

        def make(source: Source, stem: str) -> Pipeline:
            name = session_name(stem)
            hearing = Hearing(engine.model, self._settings, name, local_time=seconds_after_midnight)
            source = deliveries.tap(name, source)
            pipeline = self._pipelines[name] = Pipeline(source, self._settings, worker, hearing, emit)
            self._open(server, engine.model, name)
            return pipeline

        def closed(name: str) -> None:
            self._pipelines.pop(name, None)
            if server:
                server.close_session(name)

        main = make(self._source, "s1")
        self._announce(server)
        main.start()
        ingests = self._ingests = Ingests(make, closed, self._settings.audio.stall_s)
        while not self._stop.wait(WATCH_S) and not sinks.reader_gone and worker.failure is None:
            if main.done and not (self._settings.output.stay and server):
                break
            ingests.sweep()
            outlet.meter(None if main.done else main.level_dbfs, main.lag_s)
        patience_s = FLUSH_S
        for pipeline in list(self._pipelines.values()):
            started = time.monotonic()
            pipeline.stop(patience_s)
            patience_s = max(0.0, patience_s - (time.monotonic() - started))
        worker.stop(0.3)
        outlet.stop(0.7)
        self._failure = worker.failure or main.failure

    def _server(self) -> ServerThread | None:
        given = self._settings.server
        if not given.enabled:
            return None
        options = ServerOptions(**given.model_dump(exclude={"enabled"}))
        actions = Actions(ack=self._ack, flush=self._flush, health=self._health, open_ingest=self._open_ingest)
        server = ServerThread(options, actions, on_failure=self._server_failed)
        try:
            server.start()
        except ConfigError as error:
            if self._settings.audio.speed == 0 and not self._port_given:
                log.warning("%s; going on without the server", error)
                return None
            raise
        return server

    def _announce(self, server: ServerThread | None) -> None:
        if server and not self._settings.output.quiet:
            token = "" if self._settings.server.token is None else "?token=…"
            log.warning("captions and sounds: %s/%s   overlay: %s/overlay%s", server.url, token, server.url, token)

    def _open(self, server: ServerThread | None, model: Model, name: str) -> None:
        if server:
            head = model.head.name if model.head else None
            server.open_session(SessionInfo(name, model.name, head, SAMPLE_RATE))

    def _server_failed(self, error: Exception) -> None:
        self._failure = error
        self._stop.set()

    def _pipeline_for(self, session: str | None, what: str) -> Pipeline:
        pipelines = self._pipelines
        if session is None and len(pipelines) == 1:
            return next(iter(pipelines.values()))
        if session is None:
            raise MessageError(f"{what}: name the session, there are {len(pipelines)}: {', '.join(pipelines)}")
        if session not in pipelines:
            raise MessageError(f"{what}: no live session {session!r}; there are: {', '.join(pipelines) or 'none'}")
        return pipelines[session]

    def _open_ingest(self, start: IngestStart) -> PcmQueue:
        if self._ingests is None:
            raise IngestFullError("ingest: not listening to senders (yet)")
        return self._ingests.open(start)

    def _ack(self, message: Ack) -> None:
        self._pipeline_for(message.session, "ack").lane.ask(lambda session: session.acknowledge(message.id))

    def _flush(self, message: Flush) -> None:
        self._pipeline_for(message.session, "flush").lane.ask(lambda session: session.flush())

    def _health(self) -> Mapping[str, SessionHealth]:
        return {
            name: SessionHealth(pipeline.last_audio_age_s, pipeline.lag_s, pipeline.level_dbfs)
            for name, pipeline in list(self._pipelines.items())
        }

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM ask for a clean end; a second one ends at once."""

        def ask(number: int, frame: FrameType | None) -> None:
            again = self._stop.is_set()
            self._stop.set()
            if again or not self._hearing:
                raise KeyboardInterrupt
            self._source.close()

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def session_name(stem: str) -> str:
    """A name that no earlier run had, so that a client that comes back knows a new session from the one it left."""
    return f"{stem}-{datetime.now():%Y%m%dT%H%M%S}"


def seconds_after_midnight() -> float:
    """Local time of day, for quiet hours."""
    now = datetime.now()
    return (now.hour * 60 + now.minute) * 60 + now.second
