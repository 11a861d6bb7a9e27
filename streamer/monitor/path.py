"""The monitor's own thread: from the microphone's blocks to the output device, beside everything else.

    microphone's thread ─hear: copies─► inbox ─► `monitor` thread: Chain ─► PlayBuffer ─► output's thread: copies
    capture thread ─begin, end─┘          ▲
    worker, server ─scene, alert, program─┘ (picked up between two blocks)

The `monitor` thread owns the chain and the output device. It waits for the microphone only, never for the model; nobody
waits for it. Full-inbox rule: the oldest block is dropped and counted. Nothing that it hears is kept or sent.
"""

import logging
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from streamer.audio.portaudio import Device, OpenStream, SharedAudio, choose_device
from streamer.errors import DeviceLost, InputError
from streamer.events import SEVERITY_RANK, Alert, Event, Scene, SceneName
from streamer.monitor import headphones
from streamer.monitor.chain import Chain
from streamer.monitor.playing import PlayBuffer
from streamer.monitor.priority import ask_for_priority
from streamer.settings.monitor import MonitorSettings

INBOX_BLOCKS: Final = 8
WARM_UP_BLOCKS: Final = 4  # the first call of a function of numpy's takes longer
SWITCH_S: Final = 0.001  # within so long a thread that computes in Python lets the monitor have its turn
AGAIN_S: Final = 2.0  # after which an output that could not be opened, or went away, is tried again
STOP_S: Final = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Report:
    """How it went so far. `underruns`: blocks that the output wanted and that were not there; `dropped`: of the
    microphone, because the monitor's thread had no turn; `device_underruns`: the output device itself ran dry.
    `share`: of one core, the monitor's thread; `held_ms`: from the microphone's hand to the output's, the
    median of the last seconds.
    """

    blocks: int
    underruns: int
    dropped: int
    device_underruns: int
    howls: int
    priority: str
    share: float
    held_ms: float


class Monitor:
    """Plays a microphone in headphones. A `Tap` of the microphone; opens and closes the output along with it.

    Raises InputError where no output fits, UsageError where nobody said that it is headphones.
    """

    def __init__(self, settings: MonitorSettings, audio: SharedAudio) -> None:
        self._settings, self.audio = settings, audio
        self.block_s = settings.block_ms / 1000
        self._device = _choose(audio, settings.output)
        headphones.require(self._device.plain_name, confirmed=settings.headphones)
        self._wake, self._stopped = threading.Event(), threading.Event()
        self._inbox: deque[tuple[NDArray[np.float32], float]] = deque()  # and when they came
        self._opened: tuple[int, float] | None = None  # rate and latency of the microphone while it is open
        self._scene: SceneName | None = None if settings.program == "auto" else settings.program
        self._held = settings.program != "auto"
        self._alerts: set[tuple[str, int]] = set()
        self._new_microphone = self._output_ended = False
        self._blocks = self._dropped = self._device_underruns = self._underruns = self._howls = 0
        self._priority = "normal"
        self._used_s, self._held_s = 0.0, list[float]()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    @property
    def name(self) -> str:
        """The output's name."""
        return self._device.name

    @property
    def report(self) -> Report:
        """How it went so far."""
        share = self._used_s / max(self._blocks * self.block_s, 1e-9)
        held_ms = 1000 * statistics.median(self._held_s) if self._held_s else 0.0
        return Report(
            self._blocks,
            self._underruns,
            self._dropped,
            self._device_underruns,
            self._howls,
            self._priority,
            share,
            held_ms,
        )

    def start(self) -> None:
        """Start the thread."""
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_S))
        self._thread.start()

    def stop(self) -> None:
        """Close the output and end the thread."""
        self._stopped.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def begin(self, rate: int, latency_s: float) -> None:
        """The microphone was opened (capture thread)."""
        self._new_microphone = True
        self._opened = rate, latency_s
        self._wake.set()

    def hear(self, frames: NDArray[np.float32]) -> None:
        """Native frames [n, channels] of the microphone, copied (its own thread)."""
        if self._new_microphone:
            self._new_microphone = False
            ask_for_priority()
        self._inbox.append((frames.copy(), time.monotonic()))
        if len(self._inbox) > INBOX_BLOCKS:
            self._inbox.popleft()
            self._dropped += 1
        self._wake.set()

    def end(self) -> None:
        """The microphone was closed: the output is too (capture thread)."""
        self._opened = None
        self._wake.set()

    def tell(self, event: Event) -> None:
        """What the session says: the scene chooses the program, alerts sound. From any thread."""
        if isinstance(event, Scene) and not self._held:
            self._scene = event.scene
        elif isinstance(event, Alert) and event.source == "live":
            self._take(event)

    def hold(self, program: SceneName | Literal["auto"]) -> None:
        """Hold one scene's program, or let the scene choose again. From any thread."""
        self._held = program != "auto"
        if program != "auto":
            self._scene = program

    def _take(self, alert: Alert) -> None:
        given, key = self._settings.alarm, (alert.session, alert.id)
        if alert.state in ("acknowledged", "cleared"):
            self._alerts.discard(key)
        elif given.enabled and SEVERITY_RANK[alert.severity] >= SEVERITY_RANK[given.severity]:
            self._alerts.add(key)

    def _run(self) -> None:
        self._priority = ask_for_priority()
        log.debug("monitor: priority %s", self._priority)
        while not self._stopped.is_set():
            opened = self._opened
            if opened is None:
                self._wake.wait()
                self._wake.clear()
                continue
            try:
                self._play(*opened)
            except DeviceLost as error:
                log.warning("monitor: %s; trying again", error)
                self._stopped.wait(AGAIN_S)
            except Exception as error:
                log.error("monitor: %s: %s", type(error).__name__, error, exc_info=log.isEnabledFor(logging.DEBUG))
                self._stopped.wait(AGAIN_S)

    def _play(self, rate: int, latency_s: float) -> None:
        """From one opening of the microphone to its end, or to that of the output. Always begins silent."""
        block = round(rate * self.block_s)
        reserve = round(rate * self._settings.reserve_ms / 1000)
        buffer = PlayBuffer(rate, block, reserve)
        first = True

        def play(frames: NDArray[np.float32], ran_dry: bool) -> None:
            nonlocal first
            if first:
                first = False
                ask_for_priority()
            self._device_underruns += ran_dry
            buffer.pull(frames, time.monotonic())

        chain = Chain(self._settings, rate, block)
        for _ in range(WARM_UP_BLOCKS):
            chain.step(np.zeros(block, np.float32))
        self._inbox.clear()
        self._output_ended = False
        output: OpenStream = self.audio.open_output(self._device, rate, self.block_s, play, self._end_output)
        chain.howling.loop_s = latency_s + output.latency + (block + reserve) / rate
        log.info("monitor: %s at %d Hz, blocks of %d", self._device.name, rate, block)
        underruns, howls = self._underruns, self._howls
        used_s, began_s = self._used_s, time.thread_time()
        try:
            for samples, heard_s in self._heard(rate, block):
                if self._scene is not None:
                    chain.choose(self._scene)
                chain.alarm(bool(self._alerts))
                buffer.push(chain.step(samples), heard_s)
                self._blocks += 1
                self._used_s = used_s + time.thread_time() - began_s
                self._underruns, self._howls = underruns + buffer.underruns, howls + chain.howling.howls
        finally:
            self._held_s = list(buffer.held_s)
            output.close()

    def _heard(self, rate: int, block: int) -> Iterator[tuple[NDArray[np.float32], float]]:
        """The microphone's sound, mono, in whole blocks, and when the last of each came; as long as it and the output
        are open at this rate.
        """
        rest = np.zeros(0, np.float32)
        while not (self._stopped.is_set() or self._output_ended):
            if self._opened is None or self._opened[0] != rate:
                return
            while self._inbox:
                frames, heard_s = self._inbox.popleft()
                mono = frames[:, 0] if frames.shape[1] == 1 else frames.mean(axis=1, dtype=np.float32)
                rest = np.concatenate([rest, mono]) if len(rest) else mono
                while len(rest) >= block:
                    yield rest[:block], heard_s
                    rest = rest[block:]
            self._wake.wait()
            self._wake.clear()

    def _end_output(self) -> None:
        self._output_ended = True
        self._wake.set()


def _choose(audio: SharedAudio, wanted: int | str | None) -> Device:
    """The output device. InputError names --monitor."""
    try:
        return choose_device(audio.outputs(), wanted)
    except InputError as error:
        text = str(error).replace("--device", "--monitor", 1).replace("microphone", "output").split(", see --list")[0]
        raise InputError(text) from None
