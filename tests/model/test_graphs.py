import logging

import pytest
import torch
from graph_tape import TapeRecorder

from streamer.model.graphs import BATCH_BUCKETS, CudaRecorder, Graphs, batch_bucket, recorder_for

CPU = torch.device("cpu")


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def test_a_replay_computes_with_the_new_inputs_and_runs_no_python():
    runs = []

    def work(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        runs.append(1)
        z = x.repeat(2)
        z[1:3].mul_(y)
        return z, (z + torch.arange(4)).sum()

    tape = TapeRecorder()
    graphs = Graphs(tape, CPU, 4)
    for x, y in ((numbers(1, 2), numbers(3)), (numbers(5, 7), numbers(-2)), (numbers(0, 1), numbers(9))):
        z, total = graphs.run("key", [x, y], work)
        eager = work(x, y)
        runs.pop()
        assert torch.equal(z, eager[0])
        assert total == eager[1]
    assert len(runs) == 4  # three warm-ups and the recording
    assert (tape.tried, tape.replays, len(graphs)) == (1, 3, 1)


def test_a_number_of_python_stays_what_it_was():
    graphs = Graphs(TapeRecorder(), CPU, 4)
    for factor, expected in ((2, 6.0), (5, 6.0)):
        (y,) = graphs.run("key", [numbers(3)], lambda x, factor=factor: (x * factor,))
        assert y.item() == expected


def test_results_last_until_the_next_run():
    graphs = Graphs(TapeRecorder(), CPU, 4)
    (first,) = graphs.run("first", [numbers(1)], lambda x: (x + 1,))
    kept = first.clone()
    graphs.run("second", [numbers(1)], lambda x: (x + 1,))
    assert kept.item() == 2
    assert first.isnan().all()


def read(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (x * 2 if x.sum() > 0 else x,)


def listed(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (x * sum(x.tolist()),)


def chosen(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (x[x > 0],)


def made(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (x + torch.tensor([1.0, 2.0]),)


def picked(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (x[[1, 0]],)


def carried(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (x + torch.from_numpy(torch.ones(2).numpy().copy()),)


@pytest.mark.parametrize("work", [read, listed, chosen, made, picked, carried])
def test_what_cannot_be_recorded_runs_eagerly_and_says_so_once(work, caplog):
    graphs = Graphs(TapeRecorder(), CPU, 4)
    with caplog.at_level(logging.WARNING):
        for x in (numbers(1, 2), numbers(-1, -2), numbers(3, -1)):
            assert torch.equal(graphs.run("this work", [x], work)[0], work(x)[0])
    assert len(graphs) == 0
    assert [record.getMessage().startswith("this work is not recorded") for record in caplog.records] == [True]


def test_a_failure_of_the_work_itself_is_raised():
    def fails(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (x @ torch.zeros(3, 3),)

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        Graphs(TapeRecorder(), CPU, 4).run("key", [numbers(1, 2)], fails)


def test_one_failed_recording_leaves_the_others(caplog):
    graphs = Graphs(TapeRecorder(refuse=2), CPU, 4)
    for _ in range(2):
        for key in range(3):
            assert graphs.run(key, [numbers(key)], lambda x: (x + 1,))[0].item() == key + 1
    assert len(graphs) == 2
    assert len(caplog.records) == 1
    assert "\n" not in caplog.records[0].getMessage()


def test_the_oldest_unused_work_is_thrown_away():
    tape = TapeRecorder()
    graphs = Graphs(tape, CPU, 2)
    for key in (1, 2, 1, 3, 1, 2):  # 3 drives 2 out, 2 drives 3 out; 1 stays
        assert graphs.run(key, [numbers(5)], lambda x, key=key: (x + key,))[0].item() == 5 + key
        assert len(graphs) <= 2
    assert tape.tried == 4


def test_dropped_work_is_recorded_anew():
    buffer = numbers(1)
    graphs = Graphs(TapeRecorder(), CPU, 4)
    assert graphs.run("key", [numbers(1)], lambda x: (x + buffer,))[0].item() == 2
    buffer = numbers(10)
    assert graphs.run("key", [numbers(1)], lambda x: (x + buffer,))[0].item() == 2
    graphs.drop()
    assert len(graphs) == 0
    assert graphs.run("key", [numbers(1)], lambda x: (x + buffer,))[0].item() == 11


def test_without_a_recorder_work_just_runs():
    graphs = Graphs(recorder_for(CPU), CPU, 4)
    x = numbers(1)
    assert not graphs.records
    assert graphs.run("key", [x], lambda given: (given,))[0] is x
    assert len(graphs) == 0


def test_buckets():
    assert [batch_bucket(count) for count in (1, 2, 3, 5, 8, 9, 16, 17)] == [1, 2, 4, 8, 8, 16, 16, 17]


@pytest.mark.gpu
def test_cuda_graphs_replay_fall_back_and_outlive_each_other():
    device = torch.device("cuda")
    weight = torch.randn(64, 64, device=device)
    graphs = Graphs(recorder_for(device), device, 3)
    assert isinstance(graphs._recorder, CudaRecorder)
    with torch.inference_mode():
        for turn in range(3):
            for rows in BATCH_BUCKETS:  # more keys than are kept
                x = torch.randn(rows, 64)
                (y,) = graphs.run(rows, [x], lambda x: (torch.relu(x @ weight),))
                torch.testing.assert_close(y.cpu(), torch.relu(x @ weight.cpu()), atol=1e-3, rtol=1e-3)
            if turn == 1:
                graphs.drop()
        (y,) = graphs.run("reads", [torch.ones(2)], read)
        assert y.tolist() == [2, 2]
        assert graphs.run("reads", [-torch.ones(2)], read)[0].tolist() == [-1, -1]
        (y,) = graphs.run("after", [torch.ones(2)], lambda x: (x + 1,))
        assert y.tolist() == [2, 2]
    assert len(graphs) == 2  # of the three kept, one could not be recorded
