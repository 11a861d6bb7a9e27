"""How live sessions are opened: a pipeline for each of the program's own inputs, and for each sender while it is there.

The main thread opens those of the program's inputs, the server's event loop those of senders; the main thread closes
what is over.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from streamer.alerts.deliveries import Deliveries
from streamer.model.outline import ModelOutline
from streamer.model.whisper import Model
from streamer.runtime.handover import Book
from streamer.runtime.inputs import Input
from streamer.runtime.lane import Lane
from streamer.runtime.pipeline import Pipeline
from streamer.runtime.stream import Emit, Hearing
from streamer.runtime.teaching import Teaching
from streamer.runtime.told import Told
from streamer.runtime.worker import Worker
from streamer.server.messages import SessionInfo
from streamer.server.replay import Entry
from streamer.server.websocket import ServerThread


@dataclass(slots=True)
class SessionOpener:
    """Opens pipelines on `worker` and keeps them in `pipelines`, by name; their events go to `emit`.

    `model`: the one that is listened with now. `told`: what people know of a session already, by name. `info`: what
    clients are told of one. `greet` has a new one say what was so before it came. `server` None: there is none.
    `book`: where senders' sessions are written down; None: nowhere (yet).
    """

    pipelines: dict[str, Pipeline]
    worker: Worker
    model: Callable[[], Model | ModelOutline]
    told: Mapping[str, Told]
    emit: Emit
    deliveries: Deliveries
    teaching: Teaching
    server: ServerThread | None
    info: Callable[[str], SessionInfo]
    greet: Callable[[Lane], None]
    book: Book | None = None

    def open(self, item: Input) -> Pipeline:
        """The pipeline of an input, which is still to be started. Raises ConfigError: what does not fit the model."""
        told = self.told.get(item.name, Told(item.name))
        hearing = Hearing(
            self.model(), item.settings, item.name, seconds_after_midnight, begun=told.seq, source=item.origin
        )
        if told.audio_sample:
            hearing = hearing.again(told, told.audio_sample)
        begun = item.handover.begin_sample if item.handover else told.audio_sample
        clips = self.deliveries.clips(item.name, begun) or self.teaching.ring(begun)
        say = self.book.emitter(item.name, self.emit, item.source.close) if self.book and item.start else self.emit
        pipeline = Pipeline(
            item.source, item.settings, self.worker, hearing, say, item.waiting_samples, clips, told, item.handover
        )
        self.pipelines[item.name] = pipeline
        self.teaching.meet(pipeline.lane)
        if item.handover:
            say(item.handover.closing)
        self.greet(pipeline.lane)
        return pipeline

    def open_sender(self, item: Input) -> Pipeline:
        """The same for a sender: clients are told of the session first, another process's goes on where that was."""
        handover = item.handover
        if self.server:
            info = self.info(item.name)
            if handover:
                info = replace(info, opened_at=handover.opened_at)
            kept = [Entry.of(event) for event in handover.past] if handover else []
            lost_to = kept[0].seq - 1 if kept else 0
            self.server.open_session(info, kept, lost_to, again=handover is not None)
        if self.book and not handover:
            self.book.open(self.info(item.name), item.start.source if item.start else None)
        return self.open(item)

    def closed(self, name: str) -> None:
        """A sender's session is over."""
        self.pipelines.pop(name, None)
        if self.server:
            self.server.close_session(name)


def seconds_after_midnight() -> float:
    """Local time of day, for quiet hours."""
    now = datetime.now()
    return (now.hour * 60 + now.minute) * 60 + now.second
