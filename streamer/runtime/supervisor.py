"""The program: model, sources, threads, sinks and server, put together, watched, and taken down again.

The main thread runs `Program`: it starts the others, waits for the end of all inputs, a signal or a failure, and then
stops capture, commits the last words, closes files and sockets, all in less than 5 s. Each source has a session, a
capture and a listener thread; all share the model and its worker. One that is lost or ends leaves the others alone.
"""

import logging
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from streamer.alerts.deliveries import Deliveries, open_deliveries
from streamer.errors import ConfigError, EngineError, UsageError
from streamer.events import SAMPLE_RATE, Event
from streamer.model.engine import Engine, StepEngine
from streamer.model.outline import ModelOutline
from streamer.model.whisper import Model
from streamer.output.live_captions import LiveCaptions, open_captions
from streamer.output.outlet import Outlet, Sinks, screen
from streamer.runtime import numbers
from streamer.runtime.announcement import announce
from streamer.runtime.client_actions import ClientActions, marking
from streamer.runtime.engines import Engines, LoadModel, described
from streamer.runtime.event_log import EventLog, say_again
from streamer.runtime.handover import Book, CarryOut
from streamer.runtime.inputs import SENDER, Ingests, Input, for_model, session_name
from streamer.runtime.opening import Opening
from streamer.runtime.own_files import check_files
from streamer.runtime.pipeline import Pipeline
from streamer.runtime.session_opener import SessionOpener
from streamer.runtime.shared_states import SharedStates
from streamer.runtime.shutdown import (
    CAPTIONS_S,
    DELIVERIES_S,
    DELIVERIES_UNHURRIED_S,
    FILES_S,
    SERVER_S,
    Interruption,
    end_sessions,
)
from streamer.runtime.stream import Emit, Stream, hear_at_once
from streamer.runtime.systemd import Systemd
from streamer.runtime.teaching import Lessons, Teaching
from streamer.runtime.times_of_day import TimesOfDay
from streamer.runtime.uploads import Elsewhere, Uploads
from streamer.runtime.worker import FAR_HANG_S, HANG_S, Worker
from streamer.server.actions import Actions
from streamer.server.messages import Ack, Flush, Origin, SessionInfo
from streamer.server.websocket import ServerThread
from streamer.settings.config import Settings

if TYPE_CHECKING:
    from streamer.monitor.aid import HearingAid

log = logging.getLogger(__name__)

RECONNECT = 4000  # close code: the session goes on elsewhere
WATCH_S = 0.1  # how often the main thread looks after the others and moves the level meter
Made = TypeVar("Made")


class Program:
    """One run of `streamer run`. `load` loads the model when the sources and the outputs are known to work.

    Live, the server answers before: its pages show what is being loaded. `began_s`: `time.monotonic` at the start of
    the program, for telling people how long they waited (None: that is not told).

    `load_on_cpu` loads the model of that name there, where the device fails that it is on. `elsewhere` makes what asks
    the engines of a cluster, where `load` gives a model without its weights; `book` opens what keeps the sessions of
    senders there, and is told who does what readers at other programs want of them; `recordings`: the same engines,
    for recordings that are uploaded; `metrics`: what they say of themselves.

    `lessons`: what learns sounds that are taught from the pages; None: none are.

    `monitor`: the hearing aid, one of `inputs`.

    `settings` hold for what the sources share, and for senders on `/ingest` that do not name one of `senders`; each of
    `inputs` brings its own.
    """

    def __init__(
        self,
        settings: Settings,
        inputs: Sequence[Input],
        load: LoadModel,
        *,
        senders: Mapping[str, Settings] | None = None,
        port_given: bool = True,
        began_s: float | None = None,
        load_on_cpu: Callable[[str], Model] | None = None,
        elsewhere: Callable[[ModelOutline], StepEngine] | None = None,
        book: Callable[[CarryOut], Book] | None = None,
        recordings: Callable[[ModelOutline], Elsewhere] | None = None,
        metrics: Callable[[], Awaitable[str]] | None = None,
        lessons: Lessons | None = None,
        monitor: "HearingAid | None" = None,
    ) -> None:
        self._settings, self._open_book = settings, book
        self._recordings, self._metrics = recordings, metrics
        self._book: Book | None = None  # once it is open
        self._monitor = monitor
        self._senders, self._port_given, self._began_s = senders or {}, port_given, began_s
        self._live = settings.audio.speed == 1
        keeps = settings.history.persist and settings.server.enabled and self._live
        check_files(settings, inputs, keeps_events=keeps)
        self._event_log = EventLog(settings.history) if keeps else None
        self._inputs = tuple(self._carried_on(item) for item in inputs)
        self._interruption = Interruption()
        self._deliveries = Deliveries(())
        self._captions = LiveCaptions(())
        self._server: ServerThread | None = None
        self._pipelines: dict[str, Pipeline] = {}
        self._uploads = Uploads(settings)
        self._teaching = Teaching(settings, lessons if self._live else None)
        self._worker: Worker | None = None  # once there is one
        self._engines = Engines(settings, self._teaching, load, load_on_cpu, elsewhere)
        self._actions = ClientActions(self._names, self._pipelines, self._engines, self._teaching, live=self._live)
        self._failure: Exception | None = None
        self._failures: dict[str, Exception] = {}  # of single sources, by session
        self._shared = SharedStates(self._pipelines)
        self._times: TimesOfDay | None = None  # where there is a server, once there is a model
        self._silent = ""  # why nothing comes out of the headphones, as it was told
        self._systemd = Systemd()

    def run(self) -> int:
        """Run to the end; the exit status. Raises StreamerError for what is wrong before anything was heard."""
        output = self._settings.output
        sinks = Sinks(output, self._names)
        self._deliveries = self._open_deliveries()
        self._deliveries.on_trouble = partial(self._shared.tell_trouble, "deliveries")
        self._captions = open_captions(output, self._names, self._tell_of_captions, live=self._live)
        with self._interruption.handled():
            try:
                self._server = self._open_server()
                opening = Opening(self._names if self._live else (), self._publish)
                if self._live:  # who comes while the model is loaded learns how far it is
                    self._open_sessions()
                    if self._event_log and self._server:
                        say_again(self._event_log.kept, opening, self._server, self._info)
                engine = self._engines.first(opening, self._systemd, live=self._live)
                self._inputs = tuple(for_model(item, engine.model.name) for item in self._inputs)
                if not self._live:
                    self._open_sessions()
                if self._server:
                    self._times = TimesOfDay(self._server.describe)
                    for name in self._names:
                        self._times.tell(self._info(name))
                sinks.begin()
                outlet = Outlet(sinks, partial(self._shared.tell, "output"))
                self._interruption.clean = True
                self._deliveries.start()
                self._captions.start()
                if self._live:
                    self._run_live(engine, outlet, opening)
                else:
                    self._run_at_once(engine, outlet)
                deadline = self._interruption.deadline
                self._captions.finish()
                self._deliveries.stop(deadline.within(DELIVERIES_S if deadline.hurried else DELIVERIES_UNHURRIED_S))
                self._captions.join(deadline.within(CAPTIONS_S if deadline.hurried else DELIVERIES_UNHURRIED_S))
                outlet.stop(deadline.within(FILES_S) if deadline.hurried else None)
                if output.stay and self._server and not (self._failure or self._failures):
                    self._interruption.wait()
            finally:
                self._close_inputs()
                if self._server:
                    self._server.stop(timeout_s=self._interruption.deadline.within(SERVER_S))
                if self._event_log:
                    self._event_log.close()
        return self._status(sinks)

    def _carried_on(self, item: Input) -> Input:
        """The input under the name that its session had in an earlier process, where that is kept."""
        earlier = self._event_log.earlier("s1") if self._event_log and not item.path else None
        return replace(item, name=earlier) if earlier else item

    def _publish(self, event: Event) -> None:
        if self._event_log:
            self._event_log.write(event)
        if self._server:
            pipeline = self._pipelines.get(event.session)
            self._server.publish(event, pipeline.captured_s - event.audio_t if pipeline else None)

    def _open_sessions(self) -> None:
        """Open the sessions of the program's own inputs, and say where their pages are."""
        if not self._server:
            return
        for name in self._names:
            kept = self._event_log.kept.get(name) if self._event_log else None
            self._server.open_session(self._info(name), *((kept.entries, kept.lost_to) if kept else ()))
        if not self._settings.output.quiet:
            announce(self._server, self._settings, tuple(self._senders), self._after())

    def _info(self, name: str) -> SessionInfo:
        """What clients are told of a session; as long as there is no model, the one that was asked for."""
        model = self._engines.model
        own = next((item.settings.audio for item in self._inputs if item.name == name), None)
        source: Origin = "sender" if own is None else "microphone" if own.input is None else "input"
        if model is None:
            return SessionInfo(name, Path(self._settings.model.name).name, None, SAMPLE_RATE, source=source)
        head = model.head.name if model.head else None
        kept = self._event_log.kept.get(name) if self._event_log else None
        opened_at = time.time() - (kept.start_s if kept else 0.0)
        return SessionInfo(name, model.name, head, SAMPLE_RATE, opened_at if self._live else None, source)

    def _after(self) -> str:
        """How long people have waited so far, where that is known."""
        return "" if self._began_s is None else f" (after {time.monotonic() - self._began_s:.1f} s)"

    def _to(self) -> str:
        """What is listened to, for people."""
        names = [("" if one.settings.audio.input else "microphone ") + one.source.name for one in self._inputs]
        played = f", playing in {self._monitor.output}" if self._monitor else ""
        return f", to {', '.join(names) or 'senders'}{played}"

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(item.name for item in self._inputs)

    def _status(self, sinks: Sinks) -> int:
        """The exit status; says what failed. One of several sources that failed is 1, whatever it was."""
        if self._failure is None and len(self._inputs) == 1:
            self._failure = self._failures.pop(self._names[0], None)
        for name, failure in self._failures.items():
            log.error("streamer: %s: %s", name, failure)
        if self._failure:
            log.error("streamer: %s", self._failure)
            return 2 if isinstance(self._failure, UsageError) else 1
        return 1 if sinks.failed or self._failures else 0

    def _open_deliveries(self) -> Deliveries:
        """The deliveries know each run from every other; a run is all that share a history of events."""
        named = not self._live or bool(self._settings.sources)
        run = self._event_log.run if self._event_log else session_name("s1") if named else None
        return open_deliveries(self._settings, live=self._live, run=run)

    def _emitter(self, outlet: Outlet) -> Emit:
        def emit(events: Sequence[Event]) -> None:
            self._deliveries.put(events)
            self._captions.put(events)
            for event in events:
                self._publish(event)
                if self._monitor:
                    self._monitor.tell(event)
            outlet.put(events)

        return emit

    def _run_at_once(self, engine: StepEngine, outlet: Outlet) -> None:
        """Speed 0: the reader waits for every hop, nothing is dropped; only what is written has a thread of its own."""
        outlet.start(screen(self._settings.output))

        def make(item: Input) -> Stream:
            own, elsewhere = (engine.own, None) if isinstance(engine, Engine) else (None, engine)
            return Stream(engine.model, item.settings, name=item.name, source=item.origin, own=own, engine=elsewhere)

        streams = [self._checked(item, make) for item in self._inputs]

        def close_when_asked() -> None:
            self._interruption.wait()
            self._close_inputs()

        threading.Thread(target=close_when_asked, name="closer", daemon=True).start()
        sources = [item.source for item in self._inputs]
        self._failures |= hear_at_once(
            sources, streams, self._emitter(outlet), lambda: self._interruption.asked or outlet.reader_gone
        )

    def _run_live(self, engine: StepEngine, outlet: Outlet, opening: Opening) -> None:
        hang_s = HANG_S if isinstance(engine, Engine) else FAR_HANG_S
        worker, emit = Worker(engine, spare=self._engines.spare, hang_s=hang_s), self._emitter(outlet)
        self._worker = worker
        self._deliveries.put(opening.events)
        outlet.put(opening.events)

        opener = SessionOpener(
            pipelines=self._pipelines,
            worker=worker,
            model=lambda: self._engines.model or engine.model,
            told=opening.told,
            emit=emit,
            deliveries=self._deliveries,
            teaching=self._teaching,
            server=self._server,
            info=self._info,
            greet=self._shared.greet,
        )
        own = [self._checked(item, opener.open) for item in self._inputs]
        book = opener.book = self._book = self._open_book(self._actions.asked) if self._open_book else None
        if self._server and book and book.run and not self._inputs and not self._event_log:
            self._server.share_run(book.run)
        ingests = self._actions.ingests = Ingests(
            opener.open_sender, opener.closed, self._settings, self._senders, worker.refusal, book
        )
        worker.start()
        if isinstance(engine.model, Model):
            self._uploads.begin(engine.model, worker)
            self._teaching.begin(engine.model, worker)
        else:
            assert self._recordings is not None
            self._uploads.begin_elsewhere(self._recordings(engine.model))
        if not self._settings.output.quiet:  # before there is a live line that it would run into
            log.warning("listening with %s%s%s; Ctrl-C ends", described(engine.model), self._to(), self._after())
        outlet.start(screen(self._settings.output))
        for pipeline in own:
            pipeline.start()
        self._systemd.ready()
        self._watch(own, worker, outlet, ingests)
        self._systemd.stopping()
        self._actions.ingests = None  # no more senders
        if book:  # senders go on elsewhere, from what was written down
            book.leave()
            if self._server and not own:
                self._server.stop(RECONNECT, "reconnect", timeout_s=self._interruption.deadline.within(SERVER_S))
        self._uploads.end()
        self._teaching.end()
        if not end_sessions(list(self._pipelines.values()), worker, self._interruption.deadline):
            lost = EngineError("the end came while events waited to be written: some are lost")
            self._failure = self._failure or lost
        self._failure = self._failure or worker.failure
        self._failures |= {pipeline.name: pipeline.failure for pipeline in own if pipeline.failure}

    def _tell_of_captions(self, detail: str) -> None:
        """What OBS, YouTube or Zoom does with captions (a service's thread): a notice, as what is heard is well."""
        for pipeline in list(self._pipelines.values()):
            pipeline.lane.ask(lambda session: session.status("listening", detail, subject="output"))

    def _watch(self, own: Sequence[Pipeline], worker: Worker, outlet: Outlet, ingests: Ingests) -> None:
        """Until the end of all inputs (unless the program stays up), a signal, or a failure."""
        waits = bool(self._senders) or self._settings.audio.input == SENDER
        stays = self._server is not None and (self._settings.output.stay or waits)
        while not self._interruption.wait(WATCH_S) and not outlet.reader_gone and worker.failure is None:
            worker.watch()
            if worker.responsive:
                self._systemd.alive(time.monotonic())
            live = [pipeline for pipeline in own if not pipeline.done]
            if not live and not stays:
                break
            if own and not live:
                own = ()
                log.warning("all was heard; the pages stay up, Ctrl-C ends")
            ingests.sweep()
            if self._times:
                self._times.look(live)
            if self._monitor and self._monitor.report.silent != self._silent:
                self._silent = self._monitor.report.silent
                self._shared.tell_trouble("headphones", self._silent and f"the headphones are silent: {self._silent}")
            levels = [pipeline.level_dbfs for pipeline in live if pipeline.level_dbfs is not None]
            outlet.meter(max(levels, default=None), max((pipeline.lag_s for pipeline in live), default=0.0))

    def _checked(self, item: Input, make: Callable[[Input], Made]) -> Made:
        """What `make` makes of an input; a setting that does not fit the model is named with the source's entry."""
        try:
            return make(item)
        except ConfigError as error:
            raise ConfigError(f"{item.path}.settings.{error}" if item.path else str(error)) from None

    def _close_inputs(self) -> None:
        for item in self._inputs:
            item.source.close()
        if self._monitor:
            report = self._monitor.report
            log.info("monitor: %s", ", ".join(f"{name} {value}" for name, value in asdict(report).items()))

    def _open_server(self) -> ServerThread | None:
        """A server that listens; without it, speed 0 goes on where nobody asked for this port."""
        given = self._settings.server
        if not given.enabled:
            return None
        mine, recorder = self._actions, self._deliveries.recorder
        actions = Actions(
            ack=mine.ack,
            flush=mine.flush,
            mark=marking(recorder),
            set_language=mine.set_language,
            teach=None if self._teaching.lessons is None else mine.teach,
            set_program=self._monitor.hold if self._monitor else None,
            fitting=asdict(self._monitor.fitting) if self._monitor else None,
            health=mine.health,
            open_ingest=mine.open_ingest,
            takes_senders=mine.takes_senders,
            transcribe=self._uploads.transcribe,
            model=self._uploads.model,
            seek=self._seek,
            pass_on=self._pass_on,
            resumes=self._open_book is not None,
        )
        actions = replace(actions, metrics=self._numbers)
        run = self._event_log.run if self._event_log else None
        server = ServerThread(given, actions, on_failure=self._server_failed, run=run)
        if recorder is not None:
            recorder.on_marks = server.show_marks
        try:
            server.start()
        except ConfigError as error:
            if self._live or self._port_given:
                raise
            log.warning("streamer: %s; going on without the server", error)
            return None
        return server

    async def _numbers(self) -> str:
        own = numbers.render(self._pipelines, self._worker, self._deliveries, self._monitor)
        return own + (await self._metrics() if self._metrics else "")

    async def _seek(self, session: str) -> None:
        if self._book and self._server:
            await self._book.seek(session, self._server.mirrored)

    def _pass_on(self, message: Ack | Flush) -> None:
        if self._book:
            self._book.pass_on(message)

    def _server_failed(self, error: Exception) -> None:
        self._failure = error
        self._interruption.ask()
