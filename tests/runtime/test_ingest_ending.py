"""The end of the program while a sender's sound waits: what was received is heard, and no more is taken."""

import asyncio

import numpy as np
import pytest
from demo_speech import demo_speech

import streamer
from streamer.errors import StreamerError
from streamer.events import Event, Status, Transcript
from streamer.model.engine import Engine
from streamer.runtime.inputs import IngestSource
from streamer.runtime.pipeline import Pipeline
from streamer.runtime.shutdown import stop_all
from streamer.runtime.stream import Hearing, Stream
from streamer.runtime.worker import Worker
from streamer.server.ingest import PcmQueue
from streamer.server.messages import IngestStart
from streamer.settings.config import Settings

SECONDS = 8


def finals(events: list[Event]) -> list[str]:
    return [word for event in events if isinstance(event, Transcript) and event.final for word in event.text.split()]


@pytest.mark.parametrize("started", [True, False])
def test_what_a_sender_sent_is_transcribed_before_the_end(started):
    model, settings, audio = streamer.load_model("nano", dtype="float32"), Settings(), demo_speech(SECONDS)
    events: list[Event] = []
    worker, queue = Worker(Engine(model)), PcmQueue(IngestStart(16_000), "in1")
    source = IngestSource(queue, settings.audio.stall_s)
    pipeline = Pipeline(source, settings, worker, Hearing(model, settings, "in1"), events.extend)
    pcm = np.round(audio * 32767).astype("<i2").tobytes()
    asyncio.run(queue.write(pcm))
    if started:
        worker.start()
        pipeline.start()
        stop_all([pipeline], 60.0)
    else:  # everything is still in the sender's queue when the end comes
        source.close()
        worker.start()
        pipeline.start()
        stop_all([pipeline], 60.0)
    with pytest.raises(StreamerError, match="over"):
        asyncio.run(queue.write(pcm))
    worker.stop(5)
    stream = Stream(model, settings)
    alone = finals(stream.push(audio) + stream.finish())
    assert isinstance(events[-1], Status)
    assert (events[-1].state, events[-1].detail, events[-1].audio_t) == ("stopped", "", SECONDS)
    assert len(alone) >= 4
    assert len(set(alone) & set(finals(events))) >= 0.7 * len(set(alone))  # fewer windows may read a word otherwise
