"""The engine deployment: `Engine.step` behind `serve.batch`, one model to a replica. Only where Ray is.

The event loop of the replica gathers batches by what they cost, several at a time; one thread owns the model, as in the
single program, and does one batch after the other (`Turns` says which).
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray import serve

from streamer.cluster.turns import Turns
from streamer.cluster.wire import Answer, Refused, SentMel, SentWindow
from streamer.cluster.wish import ModelWish
from streamer.errors import DeviceFailed, EngineError
from streamer.model.choice import Wish, load_model
from streamer.model.engine import Engine
from streamer.model.outline import ModelOutline
from streamer.model.own_sounds import own_layer

log = logging.getLogger(__name__)

BATCH_FRAMES = 16_000  # mel frames with their padding: 160 s of audio, 16 windows of 10 s
GATHER_S = 0.002  # a batch waits so long for more; what an ingress sends at once comes within that
BATCHES_WAITING = 4  # that are gathered while one is done


class Replica:
    """One replica: a model, its engine, and the thread that owns both."""

    def __init__(self, wish: ModelWish, cpus: int) -> None:
        """Load and warm up; Serve sends nothing before. Raises what loading raises."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._engine = self._thread.submit(_load, wish, cpus).result()
        self._turns = Turns()
        self._failed = ""
        self._windows = self._batches = 0

    async def __call__(self, window: SentWindow) -> Answer:
        """Do one window; with it go those that come at the same time."""
        found: Answer = await self._together(window)
        return found

    @serve.batch(  # type: ignore[untyped-decorator]
        max_batch_size=BATCH_FRAMES,
        batch_wait_timeout_s=GATHER_S,
        max_concurrent_batches=BATCHES_WAITING,
        batch_size_fn=lambda windows: sum(window.total_frames for window in windows),
    )
    async def _together(self, windows: list[SentWindow]) -> list[Answer]:
        async with self._turns.turn(urgent=any(window.request.urgent for window in windows)):
            answers = await asyncio.get_running_loop().run_in_executor(self._thread, self._step, windows)
        self._windows += len(windows)
        self._batches += 1
        return answers

    async def outline(self) -> ModelOutline:
        """What the ingresses have to know of the model."""
        return self._engine.model.outline()

    async def facts(self) -> dict[str, Any]:
        """What it did, and which process it is."""
        return {"pid": os.getpid(), "windows": self._windows, "batches": self._batches}

    def check_health(self) -> None:
        """Serve puts another replica in the place of one whose device failed."""
        if self._failed:
            raise RuntimeError(self._failed)

    def _step(self, windows: Sequence[SentWindow]) -> list[Answer]:
        """In the thread of the engine. One bad window does not cost the others theirs."""
        try:
            return list(self._engine.step([(SentMel(window), window.request) for window in windows]))
        except DeviceFailed as error:
            self._failed = str(error)
            return [Refused(str(error), device=True)] * len(windows)
        except Exception as error:  # noqa: BLE001  whatever the model raises
            if len(windows) > 1:
                return [answer for window in windows for answer in self._step([window])]
            said = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
            return [Refused(said.partition("\n")[0])]


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
