import os
import signal

import pytest

from streamer.bench.processes import as_done
from streamer.errors import UsageError

_factor = []


def prepare(factor):
    _factor[:] = [factor]


def times(item):
    return item * _factor[0]


def end_on_three(item):
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@pytest.mark.parametrize("processes", [1, 2])
def test_every_item_is_attempted_once_after_the_preparation(processes):
    assert dict(as_done(times, range(7), processes, prepare, (10,))) == {place: 10 * place for place in range(7)}


def test_nothing_is_prepared_for_nothing():
    assert list(as_done(times, [], 2, pytest.fail, ("prepared",))) == []


def test_a_process_that_is_ended_from_outside_ends_the_run_with_a_line():
    with pytest.raises(UsageError, match="--processes: one was ended from outside"):
        list(as_done(end_on_three, range(8), 2, prepare, (1,)))
