"""The worker's engine that is elsewhere: replicas go, windows are sent again; what cannot be done is said once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from random_whisper import random_model

from streamer.audio.mel import MelFrames
from streamer.cluster.engine import STEP_S, RemoteEngine
from streamer.cluster.wire import Answer, Refused, SentMel, SentWindow
from streamer.errors import DeviceFailed, EngineError
from streamer.events.plans import DecodeTask, StepRequest
from streamer.model.engine import Engine, Work

SECOND = 16_000


class GoneError(Exception):
    """A replica is no longer there."""


@dataclass
class Reply:
    found: Callable[[], Answer]

    def result(self, *, timeout_s: float | None = None) -> Answer:
        return self.found()


class Replicas:
    """A handle whose replica is a real engine in this process; what it does with its n-th window can be scripted."""

    def __init__(self, engine: Engine, script: Sequence[BaseException | Answer | None] = ()) -> None:
        self.engine, self.script = engine, list(script)
        self.windows: list[SentWindow] = []

    def remote(self, window: SentWindow) -> Reply:
        self.windows.append(window)
        scripted = self.script.pop(0) if self.script else None

        def found() -> Answer:
            if isinstance(scripted, BaseException):
                raise scripted
            return scripted or self.engine.step([(SentMel(window), window.request)])[0]

        return Reply(found)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(random_model(4))


@pytest.fixture(scope="module")
def work() -> list[Work]:
    mel = MelFrames(80)
    mel.append(np.random.default_rng(1).normal(0.0, 0.05, 6 * SECOND).astype(np.float32))
    task = DecodeTask(language="en", max_new_tokens=4)
    return [(mel, StepRequest(160 * place, (3 + place) * SECOND, (), task)) for place in range(3)]


def remote(replicas: Replicas) -> RemoteEngine:
    clock = Clock()
    lost = lambda error: isinstance(error, GoneError)  # noqa: E731
    return RemoteEngine(replicas.engine.model.outline(), replicas, lost, clock=clock, pause=clock.pause)


def test_results_are_those_of_an_engine_here_in_the_same_order(engine, work):
    found = remote(Replicas(engine)).step(work)
    assert found == [engine.step([one])[0] for one in work]
    assert [one.request for one in found] == [request for _, request in work]


def test_what_went_with_a_replica_is_sent_again_and_nothing_else(engine, work):
    replicas = Replicas(engine, [None, GoneError(), None, GoneError()])
    there = remote(replicas)
    assert there.step(work) == [engine.step([one])[0] for one in work]
    again = [window.request for window in replicas.windows[3:]]
    assert again == [work[1][1]] * 2
    assert there.facts.resent == 2


def test_a_replica_whose_device_failed_is_not_asked_for_the_last_word(engine, work):
    found = remote(Replicas(engine, [Refused("no memory", device=True)])).step(work[:1])
    assert found == engine.step(work[:1])


def test_a_window_that_no_replica_can_do_is_an_error_at_once(engine, work):
    replicas = Replicas(engine, [None, Refused("not finite")])
    with pytest.raises(EngineError, match="not finite") as caught:
        remote(replicas).step(work)
    assert not isinstance(caught.value, DeviceFailed)
    assert len(replicas.windows) == 3


def test_a_fault_of_our_own_code_there_is_not_tried_again(engine, work):
    replicas = Replicas(engine, [ValueError("a bug")])
    with pytest.raises(EngineError, match="ValueError: a bug"):
        remote(replicas).step(work)
    assert len(replicas.windows) == 3


@pytest.mark.parametrize("failure", [GoneError("died"), TimeoutError()])
def test_where_no_replica_comes_back_it_says_so_in_time(engine, work, failure):
    replicas = Replicas(engine, [failure] * 10_000)
    there = remote(replicas)
    with pytest.raises(EngineError, match=f"no engine of the cluster did 1 windows in {STEP_S:g} s"):
        there.step(work[:1])
    assert there._clock() <= STEP_S
