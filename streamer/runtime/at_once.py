"""Speed 0: files as fast as they go, side by side in audio time, in the thread that calls; nothing is dropped.

Each source has a `Stream` of its own, and no two share a step of the model, so the events of each are those that it has
alone, and the order of the events of several files is the same in every run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from streamer.audio.block import AudioBlock
from streamer.errors import StreamerError
from streamer.events import Event, State
from streamer.runtime.inputs import Input
from streamer.runtime.stream import Stream
from streamer.runtime.worker import Emit


@dataclass(slots=True)
class _Reader:
    """One source on its way: how far it was heard, in samples."""

    input: Input
    stream: Stream
    blocks: Iterator[AudioBlock] = field(init=False)
    position: int = 0
    state: State = "listening"

    def __post_init__(self) -> None:
        self.blocks = iter(self.input.source.blocks())


def hear_at_once(
    inputs: Sequence[Input], streams: Sequence[Stream], emit: Emit, asked_to_end: Callable[[], bool]
) -> Mapping[str, Exception]:
    """Hear everything, the source that is furthest behind first; what failed, by the session's name.

    A source that fails or ends leaves the others alone. `asked_to_end`: the last words are committed, then all is over.
    """
    readers = [_Reader(given, stream) for given, stream in zip(inputs, streams, strict=True)]
    failures: dict[str, Exception] = {}
    while readers and not asked_to_end():
        reader = min(readers, key=lambda one: one.position)
        try:
            if _step(reader, emit):
                continue
        except StreamerError as error:
            failures[reader.input.name] = error
            emit(reader.stream.status("degraded", str(error)))
        readers.remove(reader)
        emit(reader.stream.finish())
    for reader in readers:
        emit(reader.stream.finish())
    return failures


def _step(reader: _Reader, emit: Emit) -> bool:
    """Hear one block; False at the end."""
    block = next(reader.blocks, None)
    if block is None:
        return False
    for events in heard(reader.stream, block, reader.state):
        emit(events)
    reader.state = block.state
    reader.position += block.lost_samples + len(block.samples)
    return True


def heard(stream: Stream, block: AudioBlock, before: State) -> Iterator[list[Event]]:
    """The events of a block, of what is known about its way here too; `before`: the state of the source so far."""
    if block.lost_samples:
        yield stream.lost(block.lost_samples, block.reason)
    for state, detail in block.news(before):
        yield stream.status(state, detail)
    yield stream.push(block.samples)
