"""Want of memory, emulated: batches get smaller, no window is lost, and only where not even one fits it ends."""

import logging
import weakref

import pytest
import torch
from graph_tape import TapeRecorder
from recorded_engines import engine, same, work

from streamer.errors import EngineError
from streamer.model import whisper
from streamer.model.batch_limit import BatchLimit
from streamer.model.checkpoint import load_model
from streamer.model.engine import Engine
from streamer.model.memory import ran_out_of_memory

CPU = torch.device("cpu")
SAID = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB\nmore lines"


class Memory:
    """What a device holds: `rows` of encoder passes, of buffers, and of recordings (0: not even one)."""

    def __init__(self, rows: int = 16, recorded_rows: int = 16) -> None:
        self.rows, self.recorded_rows = rows, recorded_rows
        self.failures = 0

    def need(self, rows: int) -> None:
        if rows > self.rows:
            self.failures += 1
            raise torch.OutOfMemoryError(SAID)

    def watch(self, made: Engine) -> Engine:
        blocks, zeros = made.model._encoder.blocks, made.search._cache._zeros

        def limited_blocks(mel, lengths=None):
            for number, x in enumerate(blocks(mel, lengths)):
                if number:  # in the middle of the pass
                    self.need(len(mel))
                yield x

        def limited_zeros(*size):
            self.need(size[0])
            return zeros(*size)

        made.model._encoder.blocks = limited_blocks
        made.search._cache._zeros = limited_zeros
        return made


class Capturing(TapeRecorder):
    """A recorder whose captures need memory of their own; what fails there is an error of the capture."""

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self._memory, self.last_rows = memory, 0

    def record(self, work):
        replay, outputs = super().record(work)
        self.last_rows = len(outputs[0])
        if self.last_rows > self._memory.recorded_rows:
            self._memory.failures += 1
            try:
                raise torch.OutOfMemoryError(SAID)
            except torch.OutOfMemoryError:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")  # noqa: B904
        return replay, outputs


@pytest.mark.parametrize(
    ("error", "out"),
    [
        (torch.OutOfMemoryError("anything"), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
        (None, False),
    ],
)
def test_what_want_of_memory_looks_like(error, out):
    assert ran_out_of_memory(error) == out


@pytest.mark.usefixtures("short_warm_up")
@pytest.mark.parametrize("memory", [Memory(rows=2), Memory(recorded_rows=2)])
def test_the_warm_up_takes_fewer_rows_where_more_do_not_fit_and_says_so_once(memory, caplog):
    tape = Capturing(memory)
    made, eager = memory.watch(engine(tape)), engine(lambda device: None)
    with caplog.at_level(logging.WARNING):
        made.warm_up()
    assert memory.failures > 0
    assert [record.getMessage() for record in caplog.records] == [
        "the memory of cpu is short: the model whisper takes at most 2 of 4 windows together from now on"
    ]
    tried = tape.tried
    same(made.step(work(4, 2.4)), eager.step(work(4, 2.4)))  # beyond the cap: split
    same(made.step(work(3, 1.0)), eager.step(work(3, 1.0)))
    assert tape.tried == tried
    assert len(caplog.records) == 1
    assert made.model.encoder_passes == 7


@pytest.mark.usefixtures("short_warm_up")
def test_one_row_that_fits_only_without_recording_serves(caplog):
    memory = Memory(rows=1, recorded_rows=0)
    made = memory.watch(engine(Capturing(memory)))
    with caplog.at_level(logging.WARNING):
        made.warm_up()
    (record,) = caplog.records
    assert "at most 1 of 4 windows together from now on, and its work is no longer recorded" in record.getMessage()
    same(made.step(work(3, 2.4)), engine(lambda device: None).step(work(3, 2.4)))


@pytest.mark.usefixtures("short_warm_up")
@pytest.mark.parametrize("recorder", [TapeRecorder(), lambda device: None])
def test_where_not_one_row_fits_the_warm_up_refuses_in_one_line(recorder):
    made = Memory(rows=0).watch(engine(recorder))
    with pytest.raises(EngineError, match="the warm-up failed: the memory of cpu does not hold one window") as error:
        made.warm_up()
    assert "\n" not in str(error.value)
    assert "a smaller --model" in str(error.value)


@pytest.mark.usefixtures("short_warm_up")
@pytest.mark.parametrize("recorder", [TapeRecorder(), lambda device: None])
def test_memory_that_runs_out_while_serving_splits_the_batch_and_loses_no_window(recorder, caplog):
    memory = Memory()
    made, eager = memory.watch(engine(recorder)), engine(lambda device: None)
    made.warm_up()
    decoded = made.search.windows
    same(made.step(work(4, 2.4)), eager.step(work(4, 2.4)))
    buffer = weakref.ref(made.search._cache.cross[0])
    made._release(True)  # nothing is left from before
    assert buffer() is None or made.model.records  # the emulated recorder keeps the last recording
    memory.rows = 1
    with caplog.at_level(logging.WARNING):
        same(made.step(work(4, 2.4)), eager.step(work(4, 2.4)))
    assert len(caplog.records) == 1
    assert "at most 1 of 4 windows" in caplog.text
    assert made.model.encoder_passes == 8  # what failed did not count
    assert made.search.windows - decoded == eager.search.windows == 8
    memory.rows = 16
    same(made.step(work(4, 1.0)), eager.step(work(4, 1.0)))
    assert made._limit.rows == 1  # for good


def test_a_window_that_fits_no_more_fails_alone():
    memory = Memory()
    made = memory.watch(engine(lambda device: None))
    made.step(work(1, 2.4))
    memory.rows = 0
    with pytest.raises(EngineError, match="does not hold one window of the model whisper"):
        made.step(work(1, 2.4))
    memory.rows = 16
    same(made.step(work(2, 2.4)), engine(lambda device: None).step(work(2, 2.4)))


def test_what_failed_is_free_before_the_next_try():
    held, given_back = [], []

    def work(batch):
        tensor = torch.zeros(3)
        held.append(weakref.ref(tensor))
        if len(batch) > 2:
            raise torch.OutOfMemoryError(SAID)
        done.extend(batch)

    def release(record):
        given_back.append((record, held[-1]() is None))

    done: list[int] = []
    limit = BatchLimit("any", CPU, release, records=True)
    limit.run(range(11), work)
    assert done == list(range(11))
    assert given_back == [(True, True)] * 3  # 11, 8 and 4 rows were too many
    assert limit.rows == 2


def test_a_model_that_does_not_fit_is_refused_in_one_line(monkeypatch):
    def full(*args):
        raise torch.OutOfMemoryError(SAID)

    monkeypatch.setattr(whisper, "cast_weights", full)
    with pytest.raises(EngineError, match=r"the memory of cpu does not hold the model nano: .*\(CUDA out") as error:
        load_model("nano", device="cpu")
    assert "\n" not in str(error.value)


def test_another_failure_is_none_of_memory():
    limit = BatchLimit("any", CPU, lambda record: None, records=True)

    def work(batch):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        limit.run([1, 2], work)
    assert (limit.rows, limit.reductions) == (16, 0)
