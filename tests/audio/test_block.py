import math
import threading

import numpy as np
import pytest
from media_files import ScriptedClock

from streamer.audio.block import Clock, Pacer, dbfs


def test_nothing_goes_before_it_has_sounded():
    clock = ScriptedClock()
    pacer = Pacer(clock, threading.Event(), 100)
    for count in (10, 0, 5):
        assert pacer.wait_for(count)
    assert clock.now() == pytest.approx(0.15)


def test_a_late_consumer_is_made_up_for_by_a_second_at_most():
    clock = ScriptedClock()
    pacer = Pacer(clock, threading.Event(), 100)
    pacer.wait_for(10)
    clock.now_s = 0.6
    pacer.wait_for(30)
    assert clock.now() == 0.6  # due at 0.4 s: goes at once
    clock.now_s = 100.0
    pacer.wait_for(10)
    pacer.wait_for(100)
    assert clock.now() == 100.0
    pacer.wait_for(10)
    assert clock.now() == pytest.approx(100.1)


def test_as_fast_as_they_go_is_an_infinite_rate_and_still_ends_when_closed():
    clock, closed = ScriptedClock(), threading.Event()
    pacer = Pacer(clock, closed, math.inf)
    assert all(pacer.wait_for(10**6) for _ in range(3))
    assert clock.now() == 0
    closed.set()
    assert not pacer.wait_for(1)


def test_closing_ends_the_wait():
    clock, closed = ScriptedClock(), threading.Event()
    clock.at(3.0, closed.set)
    pacer = Pacer(clock, closed, 100)
    assert pacer.wait_for(200)
    assert not pacer.wait_for(200)
    assert clock.now() == 3.0
    assert not pacer.wait_for(0)


def test_the_system_clock_waits_on_the_event():
    clock, event = Clock(), threading.Event()
    before = clock.now()
    assert not clock.wait(event, 0.001)
    event.set()
    assert clock.wait(event, 60)
    assert clock.now() >= before


def test_dbfs():
    assert dbfs(np.zeros(100, np.float32)) == dbfs(np.zeros(0, np.float32)) == -120
    assert dbfs(np.ones(100, np.float32)) == pytest.approx(0)
    assert dbfs(np.full(100, 0.1, np.float32)) == pytest.approx(-20, abs=1e-3)
