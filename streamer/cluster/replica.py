"""The engine deployment: `Engine.step` behind `serve.batch`, one model to a replica. Only where Ray is.

    windows ──► serve.batch: what comes within 2 ms ──► Waiting: finals first ──► the engine's thread

The event loop takes windows in, also while the engine works, and makes batches by what they cost; one thread owns the
model, as in the single program.
"""

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ray import serve

from streamer.cluster.connect import ledger
from streamer.cluster.engine_facts import EngineFacts
from streamer.cluster.scaling import LOAD
from streamer.cluster.waiting import Waiting
from streamer.cluster.wire import (
    Answer,
    RecordingAnswer,
    Refused,
    SentMel,
    SentRecordingWindow,
    SentTrack,
    SentWindow,
    SpectrumWanted,
)
from streamer.cluster.wish import ModelWish
from streamer.errors import DeviceFailed, EngineError
from streamer.model.choice import Wish, load_model
from streamer.model.engine import Engine
from streamer.model.outline import ModelOutline
from streamer.model.own_sounds import own_layer
from streamer.runtime.offline import OfflineEngine

log = logging.getLogger(__name__)

BATCH_FRAMES = 16_000  # mel frames with their padding: 160 s of audio, 16 windows of 10 s
FULL_BATCH = 16  # windows; so many of 10 s are that
GATHER_S = 0.002  # a batch waits so long for more; what an ingress sends at once comes within that
REPORT_S = 5.0
HANG_S = 15.0  # a step that takes so long never ends, as far as we can tell
GATHERED = 64  # of these at a time: each only waits for its answers


class Replica:
    """One replica: a model, its engine, and the thread that owns both."""

    def __init__(self, wish: ModelWish, cpus: int) -> None:
        """Load and warm up; Serve sends nothing before. Raises what loading raises."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._engine = self._thread.submit(_load, wish, cpus).result()
        self._waiting: Waiting[tuple[SentWindow, asyncio.Future[Answer]]] = Waiting()
        self._work: asyncio.Task[None] | None = None
        self._recording = asyncio.Lock()
        self._offline: OfflineEngine | None = None  # made for the first recording
        self._failed = ""
        self._began_s: float | None = None  # of the step at hand
        context = serve.get_replica_context()
        self._facts = EngineFacts(context.replica_id.unique_id, context.app_name, os.getpid())
        self._ledger = ledger()
        self._reported_s = -REPORT_S
        self._looked_s, self._looked_windows = time.monotonic(), 0  # when and at how many its load was asked for

    async def __call__(self, window: SentWindow) -> Answer:
        """Do one window; with it go those that come at the same time."""
        found: Answer = await self._together(window)
        return found

    @serve.batch(  # type: ignore[untyped-decorator]
        max_batch_size=BATCH_FRAMES,
        batch_wait_timeout_s=GATHER_S,
        max_concurrent_batches=GATHERED,
        batch_size_fn=lambda windows: sum(window.total_frames for window in windows),
    )
    async def _together(self, windows: list[SentWindow]) -> list[Answer]:
        """With what waits already; the answers in order."""
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[Answer]] = [loop.create_future() for _ in windows]
        for window, answer in zip(windows, answers, strict=True):
            self._waiting.put((window, answer), window.total_frames, urgent=window.request.urgent)
        if self._work is None or self._work.done():
            self._work = loop.create_task(self._work_off())
        return list(await asyncio.gather(*answers))

    async def _work_off(self) -> None:
        """Do what waits, a batch at a time, until nothing does."""
        while self._waiting:
            batch = self._waiting.take(BATCH_FRAMES)
            found, took_s = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._timed_step, [window for window, _ in batch]
            )
            self._facts.stepped(len(batch), took_s)
            self._facts.refused += sum(isinstance(one, Refused) for one in found)
            for (_, answer), one in zip(batch, found, strict=True):
                if not answer.done():  # nobody waits any more
                    answer.set_result(one)

    async def recording_window(self, window: SentRecordingWindow) -> RecordingAnswer | Refused:
        """Do a window of an uploaded recording, between two batches: no more than one of all recordings waits there."""
        async with self._recording:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._recording_step, window)

    async def outline(self) -> ModelOutline:
        """What the ingresses have to know of the model."""
        return replace(self._engine.model.outline(), own_sounds=self._engine.own is not None)

    async def facts(self) -> EngineFacts:
        """What it did, and which process it is."""
        self._facts.queued = len(self._waiting)
        return self._facts.snapshot()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What Serve's autoscaler is told every few seconds (`scaling.py`)."""
        now_s, windows = time.monotonic(), self._facts.windows
        done, past_s = windows - self._looked_windows, max(now_s - self._looked_s, 1e-3)
        self._looked_s, self._looked_windows = now_s, windows
        self._facts.load = self._facts.cost.window_s(FULL_BATCH) * (done / past_s + len(self._waiting))
        return {LOAD: self._facts.load}

    async def check_health(self) -> None:
        """Asked every second: Serve puts another replica in the place of one whose device failed, or whose step does
        not end. The ledger is told what it did at the same time.
        """
        if time.monotonic() - self._reported_s >= REPORT_S:
            self._reported_s = time.monotonic()
            self._ledger.report.remote(await self.facts())
        if self._failed:
            raise RuntimeError(self._failed)
        hangs_s = 0.0 if self._began_s is None else time.monotonic() - self._began_s
        if hangs_s >= HANG_S:
            raise RuntimeError(f"the model has not answered for {hangs_s:.0f} s")

    def _timed_step(self, windows: Sequence[SentWindow]) -> tuple[list[Answer], float]:
        """In the thread of the engine: the answers, and how long they took."""
        began_s = self._began_s = time.monotonic()
        try:
            return self._step(windows), time.monotonic() - began_s
        finally:
            self._began_s = None

    def _step(self, windows: Sequence[SentWindow]) -> list[Answer]:
        """One bad window does not cost the others theirs."""
        try:
            return list(self._engine.step([(SentMel(window), window.request) for window in windows]))
        except DeviceFailed as error:
            self._failed = str(error)
            return [Refused(str(error), device=True)] * len(windows)
        except Exception as error:  # noqa: BLE001  whatever the model raises
            if len(windows) > 1:
                return [answer for window in windows for answer in self._step([window])]
            return [_refused(error)]

    def _recording_step(self, window: SentRecordingWindow) -> RecordingAnswer | Refused:
        """In the thread of the engine."""
        request = window.request()
        try:
            self._offline = self._offline or OfflineEngine(self._engine.model)
            (result,) = self._offline.step([request])
        except Exception as error:  # noqa: BLE001  whatever the model raises
            return _refused(error)
        return RecordingAnswer(result, SentTrack.of(request.track))


def _refused(error: Exception) -> Refused:
    said = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
    return Refused(said.partition("\n")[0], spectrum=isinstance(error, SpectrumWanted))


def _load(wish: ModelWish, cpus: int) -> Engine:
    import torch

    torch.set_num_threads(wish.threads or max(1, cpus))
    model = load_model(
        wish.name,
        head=wish.head,
        device=wish.compute,
        dtype=wish.dtype,
        short_windows=wish.context != "padded",
        wish=Wish(frozenset(wish.languages), translate=wish.translate),
    )
    own = own_layer(model, wish.own_sounds) if wish.own_sounds else None
    engine = Engine(model, context=wish.context, own=own)
    engine.warm_up()
    return engine
