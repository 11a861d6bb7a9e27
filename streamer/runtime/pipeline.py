"""One live stream: source → capture thread → ring buffer → listener thread → lane → (the shared) worker thread.

The capture thread only puts the source's blocks into the ring; the listener thread owns the `Listener`. A failure of
the source ends this stream with its last words committed; `failure` says why. A listener that fails is started again,
where the last whole hop ended and after a while that grows with each failure: what it missed is a `gap`.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable

from streamer.alerts.recorder import ClipRing
from streamer.audio.block import AudioBlock, Source, empty
from streamer.audio.files import StdinSource
from streamer.audio.ring import RingBuffer
from streamer.errors import Backoff
from streamer.events import SAMPLE_RATE
from streamer.events.plans import Hop, Plan, SegmentClosed, SpeechOver
from streamer.runtime.handover import NOT_SENT, Handover
from streamer.runtime.lane import Lane
from streamer.runtime.stream import Emit, Hearing, Listener
from streamer.runtime.told import Told
from streamer.runtime.worker import Worker
from streamer.settings.config import Settings

log = logging.getLogger(__name__)

WAIT_S = 0.2  # how long a source waits for room before it looks whether the session is over
PIPE_STALL_S = 2.0  # whoever writes into a pipe may pause longer than a microphone
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
        clips: ClipRing | None = None,
        told: Told | None = None,
        handover: Handover | None = None,
    ) -> None:
        """`waiting_samples`: as in `Input`. `clips` keeps the last seconds for whoever cuts from it.

        `told`: what an earlier process said of this session, whose clock goes on where that ended; None: nothing.
        `handover`: another process of a cluster had the session, and its sender is there still.
        """
        told = handover.told if handover else told
        start_sample = handover.begin_sample if handover else told.audio_sample if told else 0
        self.source = source
        self.name = hearing.session.name
        self.failure: Exception | None = None
        self._waiting_samples, self.clips = waiting_samples, clips
        self._missing_samples = handover.lost_samples if handover else 0  # before the first sound that comes
        self._ring = RingBuffer(round(settings.audio.buffer_s * SAMPLE_RATE), start_sample + self._missing_samples)
        self._listener = Listener(settings, "starting", start_sample)
        # What reads a pipe waits in it, often within a decoder, and cannot say that nothing comes.
        piped, reason = isinstance(source, StdinSource) and source.live, f"no sound comes from {source.name}"
        self._silence = AudioBlock(empty(), state="no_audio", reason=reason) if piped else None
        self._silent_after_s = max(settings.audio.stall_s, PIPE_STALL_S)
        if handover:
            hearing.take_up(handover.told, start_sample)
        self._last_audio_s = time.monotonic()
        self._backoff, self._deaf_until_s = Backoff(), 0.0  # of the listener
        self.listener_restarts = 0
        self._missed_samples, self._missed_for = 0, ""  # what it did not hear since it failed
        self._planned_sample = start_sample  # end of the last hop that went to the lane
        patience_s = 0.0 if source.live else CATCH_UP_S
        self.lane: Lane = worker.add(hearing, emit, patience_s, settings.window, self._unread_samples, told)
        if handover:
            self.lane.backlog.schedule.begin_at(start_sample)
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
        return self._unheard_samples / SAMPLE_RATE + self.lane.lag_s

    @property
    def _unheard_samples(self) -> int:
        return self._ring.end - self._listener.position - self._missed_samples

    def _unread_samples(self) -> int:
        """Audio that was received and has not reached the lane."""
        return self._waiting_samples() + self._unheard_samples

    @property
    def last_audio_age_s(self) -> float:
        """Seconds since the source delivered sound."""
        return time.monotonic() - self._last_audio_s

    def _capture(self) -> None:
        try:
            for block in self.source.blocks():
                if self.clips is not None:
                    self.clips.push(block)
                while not (self.source.live or self.lane.done.is_set()):  # a source that can wait is made to wait
                    if self._ring.wait_for_room(len(block.samples), WAIT_S):
                        break
                self._ring.write(block)
                if len(block.samples):
                    self._last_audio_s = time.monotonic()
        except Exception as error:  # noqa: BLE001  the top of the thread
            detail = self._fail("capture", error)
            self._ring.write(AudioBlock(empty(), state="degraded", reason=detail))  # behind the sound that there was
        finally:
            self._ring.finish()
            if self.clips is not None:
                self.clips.ended = True

    def _listen(self) -> None:
        try:
            self._pass_on(self._listener.lost(self._missing_samples, NOT_SENT))
            for block in self._ring.blocks(self._silence, self._silent_after_s):
                if self.lane.done.is_set():
                    return  # nobody will hear the rest
                self._hear(block)
            self._pass_on(self._listener.lost(self._missed_samples, self._missed_for))
            self.lane.put(self._listener.finish())
        except Exception as error:  # noqa: BLE001  the top of the thread
            detail = self._fail("listener", error)
            self.lane.ask(lambda session: session.status("degraded", detail))
            self.source.close()
        finally:
            self.lane.finish()

    def _hear(self, block: AudioBlock) -> None:
        """Hear one block; a listener that fails on it is started again behind it."""
        before = self._listener.position
        if time.monotonic() < self._deaf_until_s:
            self._missed_samples += block.lost_samples + len(block.samples)
            return
        try:
            if self._missed_samples:
                self._pass_on(self._listener.lost(self._missed_samples, self._missed_for))
                before, self._missed_samples = self._listener.position, 0
                self.lane.ask(lambda session: session.status("listening", subject="listener"))
            self._pass_on(self._listener.hear(block))
        except Exception as error:  # noqa: BLE001  the top of a listener
            self._missed_samples += before - self._planned_sample + block.lost_samples + len(block.samples)
            self._restart_listener(error)

    def _pass_on(self, plans: Iterable[Plan]) -> None:
        for plan in plans:
            if isinstance(plan, Hop):
                self._planned_sample = plan.end_sample
            self.lane.put([plan])

    def _restart_listener(self, error: Exception) -> None:
        """A new listener where the last whole hop ended: what came since is lost, and what comes for a while too."""
        now_s, at = time.monotonic(), self._planned_sample
        rest_s = self._backoff.rest_s(now_s)
        self._deaf_until_s = now_s + rest_s
        self.listener_restarts += 1
        what = f"{type(error).__name__}: {error}".partition("\n")[0]
        self._missed_for = f"the listener failed ({what})"
        told = f"{self._missed_for}; it is started again in {rest_s:g} s"
        log.error("%s: %s", self.name, told)
        log.debug("", exc_info=error)
        self._listener = self._listener.again(at)
        self.lane.put([SegmentClosed(at, at), SpeechOver(at, at)])
        self.lane.ask(lambda session: session.status("degraded", told, subject="listener"))

    def _fail(self, where: str, error: Exception) -> str:
        """Keep the error; what people are told of it."""
        log.error("%s: %s", where, error, exc_info=log.isEnabledFor(logging.DEBUG))
        self.failure = self.failure or error
        return f"{where}: {error}"
