"""The worker's engine that is elsewhere: replicas go, windows are sent again; what cannot be done is said once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from random_whisper import random_model

from streamer.audio.fine_spectrum import BANDS
from streamer.audio.mel import MelFrames
from streamer.cluster.engine import STEP_S, RemoteEngine
from streamer.cluster.wire import Answer, Refused, SentMel, SentWindow, SpectrumWanted
from streamer.errors import DeviceFailed, EngineError
from streamer.events.plans import DecodeTask, StepRequest
from streamer.model.engine import Engine, Work
from streamer.model.own_sounds import Background, OwnLayer, OwnSound

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
            try:
                return scripted or self.engine.step([(SentMel(window), window.request)])[0]
            except SpectrumWanted as error:
                return Refused(str(error), spectrum=True)

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


def own_layer(model) -> OwnLayer:
    width, random = model.dims.n_audio_layer * model.dims.n_audio_state, np.random.default_rng(5)
    projection = random.normal(size=(width, 8)).astype(np.float32)
    none = np.zeros((0, 0, 0), np.int8)
    background = Background("e", "m", np.zeros(width, np.float32), projection, none, none)
    weight = random.normal(size=8 + BANDS).astype(np.float32)
    return OwnLayer(background, (OwnSound("bell", "info", "e", "m", 3, weight, 0.0, 0.0, 1, 0, 1.0, 1.0),))


def test_the_fine_spectrum_is_sent_where_sounds_are_learned_and_nowhere_else(work):
    """A replica that comes later may know sounds that the first one did not: what it lacks is sent once more."""
    model = random_model(4)
    judged = [(mel, replace(request, tag_spans_s=(1.0,))) for mel, request in work]
    plain, knowing = Engine(model), Engine(model, own=own_layer(model))
    replicas = Replicas(plain)
    there = remote(replicas)
    there.step(judged)
    assert [window.spectrum for window in replicas.windows] == [None] * 3
    replicas.engine, replicas.windows = knowing, []
    found = there.step(judged)
    assert [one.own for one in found] == [knowing.step([one])[0].own for one in judged]
    assert all(one.own for one in found)
    assert [window.spectrum is not None for window in replicas.windows] == [False] * 3 + [True] * 3
    replicas.windows = []
    there.step(judged)
    assert all(window.spectrum is not None for window in replicas.windows)
    assert len(replicas.windows) == 3


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
