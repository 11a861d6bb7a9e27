"""Nothing of what failed is kept: engines, sessions and threads after many restarts, counted."""

import gc
import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest
from random_whisper import random_model

from streamer.errors import DeviceFailed
from streamer.events.plans import Hop, SegmentOpened
from streamer.model.engine import Engine
from streamer.runtime.session import Session
from streamer.runtime.stream import Hearing
from streamer.runtime.worker import Worker
from streamer.settings.config import Settings

TIMES = 6
SAMPLES = np.full(8000, 0.1, np.float32)


@pytest.mark.parametrize("fault", [SystemExit, DeviceFailed, RuntimeError])
def test_after_many_restarts_there_is_one_engine_one_session_and_one_thread(fault, monkeypatch):
    model, engines, sessions = random_model(1), weakref.WeakSet[Engine](), weakref.WeakSet[Session]()
    real, fails, begun = Engine.step, list[BaseException](), Session.__init__

    def step(engine: Engine, work: Any) -> Any:
        if fails:
            raise fails.pop()
        return real(engine, work)

    def begin(session: Session, *given: Any, **named: Any) -> None:
        begun(session, *given, **named)
        sessions.add(session)

    def engine() -> Engine:
        made = Engine(model)
        engines.add(made)
        return made

    monkeypatch.setattr(Engine, "step", step)
    monkeypatch.setattr(Session, "__init__", begin)
    number, before = 0, threading.enumerate()
    worker = Worker(engine(), lambda: number / 2, engine)  # the clock of the sound
    events = list[Any]()
    lane = worker.add(Hearing(model, Settings()), events.extend)
    worker.start()
    lane.put([SegmentOpened(960, 0)])
    for _ in range(TIMES):
        restarts = len(engines), len(events)
        fails += [fault("no")] * (3 if fault is RuntimeError else 1)  # three in a row, and the session is started again
        while fails or worker._restarts or lane.rests or (len(engines), len(events)) == restarts:
            number += 1
            lane.put([Hop(number * 8000, SAMPLES, (True,) * 25, True, number % 2 == 0, False, -20.0)])
            while lane.waiting or worker._round_s is not None:
                worker.watch()
                time.sleep(0.001)
    gc.collect()
    assert (len(engines), len(sessions)) == (1, 1)
    assert len([thread for thread in threading.enumerate() if thread.name == "worker" and thread not in before]) == 1
    lane.finish()
    assert lane.done.wait(30)
    assert worker.stop(30)
