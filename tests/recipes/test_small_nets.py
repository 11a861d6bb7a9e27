import os
import signal
import time

import pytest

from streamer.errors import UsageError
from streamer.recipes.small_nets import as_done

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


def note(path):
    path.touch()
    time.sleep(0.05)
    if path.name == "0":
        raise ValueError("the first one fails")


def test_what_was_not_begun_is_left_undone_when_an_attempt_fails(tmp_path):
    with pytest.raises(ValueError, match="the first one fails"):
        list(as_done(note, [tmp_path / str(place) for place in range(60)], 2, prepare, (1,)))
    assert len(list(tmp_path.iterdir())) < 60


def test_a_process_that_is_ended_from_outside_ends_the_run_with_a_line():
    with pytest.raises(UsageError, match="--processes: one was ended from outside"):
        list(as_done(end_on_three, range(8), 2, prepare, (1,)))
