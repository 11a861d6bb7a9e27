"""One live stream: source → capture thread → ring buffer → listener thread → lane → (the shared) worker thread.

The capture thread only copies blocks into the ring and notes losses and states; the listener thread owns the
`Listener`. A failure of either ends this stream with its last words committed; `failure` says why.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from streamer.audio.block import Source
from streamer.audio.ring import RingBuffer, RingRead
from streamer.events import SAMPLE_RATE, State
from streamer.plans import Plan
from streamer.runtime.listener import Listener
from streamer.runtime.stream import Emit, Hearing
from streamer.runtime.worker import Lane, Worker
from streamer.settings.config import Settings

log = logging.getLogger(__name__)

WAIT_S = 0.2  # how long the listener waits for sound before it looks for a change of the source's state
READ_SAMPLES = SAMPLE_RATE  # most that the listener takes at once
CAPTURE = "capture"
CATCH_UP_S = 5.0  # sound that came in a burst may wait so long before the worker leaves anything out


class Pipeline:
    """Carries `source` to `worker`; events go to `emit`, in the worker's thread."""

    def __init__(
        self,
        source: Source,
        settings: Settings,
        worker: Worker,
        hearing: Hearing,
        emit: Emit,
        waiting_samples: Callable[[], int] = lambda: 0,
    ) -> None:
        """`waiting_samples`: as in `Input`."""
        self.source = source
        self.name = hearing.session.name
        self.failure: Exception | None = None
        self._waiting_samples = waiting_samples
        self._ring = RingBuffer(round(settings.audio.buffer_s * SAMPLE_RATE))
        self._listener = Listener(settings)
        self._states: deque[tuple[int, State, str]] = deque()
        self._state: tuple[State, str] = ("starting", "")
        self._last_audio_s = time.monotonic()
        patience_s = 0.0 if source.live else CATCH_UP_S
        self.lane: Lane = worker.add(hearing, emit, patience_s, settings.window, self._unread_samples)
        self._threads = [
            threading.Thread(target=self._capture, name=f"capture-{self.name}", daemon=True),
            threading.Thread(target=self._listen, name=f"listener-{self.name}", daemon=True),
        ]

    def start(self) -> None:
        """Start both threads."""
        self.lane.ask(lambda session: session.status("starting", self.source.name))
        for thread in self._threads:
            thread.start()

    @property
    def done(self) -> bool:
        """Whether the last event of this stream was emitted."""
        return self.lane.done.is_set()

    @property
    def level_dbfs(self) -> float | None:
        """Level of the last hop."""
        return self._listener.level_db

    @property
    def captured_s(self) -> float:
        """Seconds of audio that were captured."""
        return self._ring.end / SAMPLE_RATE

    @property
    def lag_s(self) -> float:
        """Seconds of audio that were captured and are not judged yet."""
        return self._heard_samples / SAMPLE_RATE + self.lane.lag_s

    @property
    def _heard_samples(self) -> int:
        return self._ring.end - self._listener.position

    def _unread_samples(self) -> int:
        """Audio that was received and has not reached the lane."""
        return self._waiting_samples() + self._heard_samples

    @property
    def last_audio_age_s(self) -> float:
        """Seconds since the source delivered sound."""
        return time.monotonic() - self._last_audio_s

    def _capture(self) -> None:
        try:
            for block in self.source.blocks():
                if (block.state, block.trouble) != self._state:
                    self._state = (block.state, block.trouble)
                    self._states.append((self._ring.end, *self._state))
                if block.notice:
                    self._states.append((self._ring.end, "listening", block.notice))
                self._ring.lost(block.lost_samples, block.reason)
                if len(block.samples):
                    self._make_room(len(block.samples))
                    self._ring.write(block.samples)
                    self._last_audio_s = time.monotonic()
        except Exception as error:  # noqa: BLE001  the top of the thread
            self._fail(CAPTURE, error)
        finally:
            self._ring.finish()

    def _make_room(self, count: int) -> None:
        """A source that can wait is made to wait until the listener has caught up."""
        while not self.source.live and not self.lane.done.is_set():
            if self._ring.wait_for_room(count, WAIT_S):
                return

    def _listen(self) -> None:
        try:
            position = 0
            while True:
                self._ring.wait_until(position + 1, WAIT_S)
                ended = self._ring.ended  # before the end is read: a last block may come in between
                self.lane.put(self._state_plans(position))
                end = min(self._ring.end, position + READ_SAMPLES)
                if end > position:
                    self.lane.put(self._plans(self._ring.read(position, end)))
                    position = end
                    self._ring.release(position)
                elif ended:
                    break
            self.lane.put(self._listener.finish())
        except Exception as error:  # noqa: BLE001  the top of the thread
            self._fail("listener", error)
            self.source.close()
        finally:
            self.lane.finish()

    def _fail(self, where: str, error: Exception) -> None:
        log.error("%s: %s", where, error, exc_info=log.isEnabledFor(logging.DEBUG))
        self.failure = self.failure or error
        detail = f"{where}: {error}"
        if where == CAPTURE:  # in its place behind the sound that there was
            self._states.append((self._ring.end, "degraded", detail))
        else:
            self.lane.ask(lambda session: session.status("degraded", detail))

    def _state_plans(self, position: int) -> list[Plan]:
        plans: list[Plan] = []
        while self._states and self._states[0][0] <= position:
            _, state, detail = self._states.popleft()
            plans.append(self._listener.state(state, detail))
        return plans

    def _plans(self, read: RingRead) -> list[Plan]:
        plans: list[Plan] = []
        start = read.start_sample
        position = start
        for lost in read.lost:
            plans += self._listener.step(read.samples[position - start : lost.start_sample - start])
            plans += self._listener.lost(lost.end_sample - lost.start_sample, lost.reason)
            position = lost.end_sample
        return plans + self._listener.step(read.samples[position - start :])
