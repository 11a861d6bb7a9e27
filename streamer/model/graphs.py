"""Work on a GPU that is recorded once for its shapes and then replayed: hundreds of kernels for one launch.

What is recorded reads its inputs from, and writes its results to, memory that stays where it is. A Python number inside
it keeps the value that it had while it was recorded: whatever differs between two uses of a key has to be a tensor.
Source: docs.pytorch.org/docs/stable/notes/cuda.html, "CUDA Graphs".
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakSet

import torch
from torch import Tensor

from streamer.model.memory import pinned, ran_out_of_memory

_log = logging.getLogger(__name__)

BATCH_BUCKETS = (1, 2, 4, 8, 16)  # rows of recorded work: batches are filled up to the next of them
WARM_UPS = 3  # runs before a recording: libraries choose their kernels and take their memory in the first ones

Outputs = tuple[Tensor, ...]


class Recorder(Protocol):
    """Where work is recorded: `CudaRecorder`, or what a test puts in its place."""

    def record(self, work: Callable[[], Outputs]) -> tuple[Callable[[], object], Outputs]:
        """Run the work some times, then record it: how to replay it, and the tensors that a replay writes.

        Raises:
            RuntimeError: it cannot be recorded.
        """


class CudaRecorder:
    """Records CUDA graphs. They share one pool of memory: a replay may overwrite what another graph gave back."""

    def __init__(self, device: torch.device):
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graphs: WeakSet[torch.cuda.CUDAGraph] = WeakSet()  # those that hold the pool

    def record(self, work: Callable[[], Outputs]) -> tuple[Callable[[], object], Outputs]:
        """As `Recorder.record`. Other threads may use the device meanwhile."""
        with torch.cuda.device(self._device):
            if not self._graphs:  # torch gives a pool up with its last graph
                self._pool = torch.cuda.graph_pool_handle()
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):  # leaves the stream also where the end of a capture fails
                for _ in range(WARM_UPS):
                    work()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                    outputs = work()
            torch.cuda.current_stream().wait_stream(self._stream)
            self._graphs.add(graph)
            return graph.replay, outputs


def recorder_for(device: torch.device) -> Recorder | None:
    """What records on this device; None where nothing does, and all work simply runs."""
    return CudaRecorder(device) if device.type == "cuda" else None


@dataclass(frozen=True, slots=True)
class _Recorded:
    inputs: Outputs
    outputs: Outputs
    replay: Callable[[], object]


class Graphs:
    """Recorded work by key, the `limit` last used; one thread's.

    What cannot be recorded runs eagerly from then on, and one warning says so; for want of memory alone nothing is
    settled, since less at a time may fit. `drop` when memory that the work uses beside its inputs moves.

    What is kept: for each piece its inputs and results, and one pool for all that comes in between, as large as the
    largest piece needs. More kinds than `limit` in turn would be recorded again and again: whoever makes keys rounds
    sizes up until there are no more kinds than that.
    """

    def __init__(self, recorder: Recorder | None, device: torch.device, limit: int):
        self._recorder = recorder
        self._device = device
        self._limit = limit
        self._pieces: OrderedDict[Hashable, _Recorded | None] = OrderedDict()  # None: could not be recorded

    def __len__(self) -> int:
        """How many pieces of work are recorded."""
        return sum(piece is not None for piece in self._pieces.values())

    @property
    def records(self) -> bool:
        """Whether work is recorded at all: else there is no reason to fill it up to buckets."""
        return self._recorder is not None

    def run(self, key: Hashable, inputs: Sequence[Tensor], work: Callable[..., Outputs]) -> Outputs:
        """The results of `work(*inputs)`, recorded at the key's first use.

        `inputs`: on the device or on the host, of the same shapes and types for every use of a key. The work runs
        several times when it is recorded: doing it twice must leave what doing it once leaves. Results stand in memory
        that the next run of any work of the same recorder overwrites: use or clone them before.

        Raises:
            RuntimeError: the work itself failed, or memory ran out, also while it was recorded.
        """
        if self._recorder is None:
            return work(*inputs)
        if key not in self._pieces:
            self._pieces[key] = self._record(self._recorder, key, inputs, work)
            if len(self._pieces) > self._limit:
                self._pieces.popitem(last=False)
        self._pieces.move_to_end(key)
        piece = self._pieces[key]
        if piece is None:
            return work(*[pinned(item, self._device).to(self._device, non_blocking=True) for item in inputs])
        for static, item in zip(piece.inputs, inputs, strict=True):
            static.copy_(pinned(item, self._device), non_blocking=True)
        piece.replay()
        return piece.outputs

    def drop(self) -> None:
        """Forget all recorded work."""
        self._pieces.clear()

    def stop(self) -> None:
        """Forget all recorded work and record nothing more."""
        self._recorder = None
        self.drop()

    def _record(
        self, recorder: Recorder, key: Hashable, inputs: Sequence[Tensor], work: Callable[..., Outputs]
    ) -> _Recorded | None:
        static = tuple(torch.empty_like(item, device=self._device).copy_(item) for item in inputs)
        try:
            replay, outputs = recorder.record(lambda: work(*static))
        except RuntimeError as error:  # what torch raises for whatever cannot be captured, and for want of memory
            if ran_out_of_memory(error):
                raise
            _log.warning("%s is not recorded and runs slower: %s", key, str(error).partition("\n")[0])
            return None
        return _Recorded(static, outputs, replay)


def batch_bucket(count: int) -> int:
    """The rows that recorded work has for so many: the next bucket, or their own number behind the largest."""
    return next((rows for rows in BATCH_BUCKETS if rows >= count), count)


def buckets_up_to(rows: int) -> tuple[int, ...]:
    """The buckets of at most so many rows, the largest first."""
    return tuple(bucket for bucket in reversed(BATCH_BUCKETS) if bucket <= rows)
