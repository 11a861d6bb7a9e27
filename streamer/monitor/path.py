"""The way of the sound inside the hearing aid's process: from the microphone's blocks to the output device.

    microphone's thread ─hear: copies─► inbox ─► `monitor` thread: Chain ─► PlayBuffer ─► output's thread: copies
    main thread ─begin, end─┘             ▲
    `control` thread ─steer───────────────┘ (picked up between two blocks)

The `monitor` thread owns the chain and the output device. It waits for the microphone only; nobody waits for it.
Full-inbox rule: the oldest block is dropped and counted. Nothing that it hears is kept.
"""

import logging
import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.audio.portaudio import Device, OpenStream, SharedAudio, choose_device
from streamer.errors import DeviceLost, InputError
from streamer.monitor.chain import Chain
from streamer.monitor.messages import Report, Steer
from streamer.monitor.playing import PlayBuffer
from streamer.settings.monitor import MonitorSettings

INBOX_BLOCKS: Final = 20  # a sound server that was late delivers as much at once; later than that is late for good
WARM_UP_BLOCKS: Final = 4  # the first call of a function of numpy's takes longer
AGAIN_S: Final = 2.0  # after which an output that could not be opened, or went away, is tried again
STOP_S: Final = 1.0

log = logging.getLogger(__name__)


class Monitor:
    """Plays a microphone in headphones. A `Tap` of the microphone; opens and closes the output along with it.

    Raises InputError where no output fits.
    """

    def __init__(self, settings: MonitorSettings, audio: SharedAudio, priority: str = "normal") -> None:
        self._settings, self._audio, self._priority = settings, audio, priority
        self.block_s = settings.block_ms / 1000
        self._device = _choose(audio, settings.output)
        self._wake, self._stopped = threading.Event(), threading.Event()
        self._inbox: deque[tuple[NDArray[np.float32], float]] = deque()  # and when they came
        self._opened: tuple[int, float] | None = None  # rate and latency of the microphone while it is open
        self._steer = Steer(None, alarm=False)
        self._alarmed = False  # since the last block: an alarm that is over at once is one
        self._output_ended = False
        self._silent = ""  # why no output is open though the microphone is
        self._blocks = self._dropped = self._device_underruns = self._underruns = self._howls = 0
        self._used_s = self._process_used_s = 0.0
        self._held_s: deque[float] = deque()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    @property
    def name(self) -> str:
        """The output's name."""
        return self._device.name

    @property
    def plain_name(self) -> str:
        """The same without what changes when it is plugged in again."""
        return self._device.plain_name

    @property
    def report(self) -> Report:
        """How it went so far. From any thread."""
        held_s, sounded_s = list(self._held_s), max(self._blocks * self.block_s, 1e-9)
        return Report(
            blocks=self._blocks,
            underruns=self._underruns,
            dropped=self._dropped,
            device_underruns=self._device_underruns,
            howls=self._howls,
            priority=self._priority,
            share=self._used_s / sounded_s,
            process_share=self._process_used_s / sounded_s,
            held_ms=1000 * statistics.median(held_s) if held_s else 0.0,
            process=os.getpid(),
            silent=self._silent,
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Close the output and end the thread."""
        self._stopped.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def steer(self, steer: Steer) -> None:
        """The program to use, and whether the alarm's signal sounds, from the next block on. From any thread."""
        if steer.alarm:
            self._alarmed = True
        self._steer = steer

    def begin(self, rate: int, latency_s: float) -> None:
        """The microphone was opened (capture thread)."""
        self._opened = rate, latency_s
        self._wake.set()

    def hear(self, frames: NDArray[np.float32]) -> None:
        """Native frames [n, channels] of the microphone, copied (its own thread)."""
        self._inbox.append((frames.copy(), time.monotonic()))
        if len(self._inbox) > INBOX_BLOCKS:
            self._inbox.popleft()
            self._dropped += 1
        self._wake.set()

    def end(self) -> None:
        """The microphone was closed: the output is too (capture thread)."""
        self._opened = None
        self._wake.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            opened = self._opened
            if opened is None:
                self._wake.wait()
                self._wake.clear()
                continue
            try:
                self._play(*opened)
            except DeviceLost as error:
                if str(error) != self._silent:
                    log.warning("monitor: %s; trying again", error)
                self._silent = str(error)
                self._stopped.wait(AGAIN_S)
            except Exception as error:
                log.error("monitor: %s: %s", type(error).__name__, error, exc_info=log.isEnabledFor(logging.DEBUG))
                self._silent = f"{type(error).__name__}: {error}"
                self._stopped.wait(AGAIN_S)

    def _play(self, rate: int, latency_s: float) -> None:
        """From one opening of the microphone to its end, or to that of the output. Always begins silent."""
        block = round(rate * self.block_s)
        reserve = round(rate * self._settings.reserve_ms / 1000)
        buffer = PlayBuffer(rate, block, reserve)

        def play(frames: NDArray[np.float32], ran_dry: bool) -> None:
            self._device_underruns += ran_dry
            buffer.pull(frames, time.monotonic())

        chain = Chain(self._settings, rate, block)
        for _ in range(WARM_UP_BLOCKS):
            chain.step(np.zeros(block, np.float32))
        self._inbox.clear()
        self._output_ended = False
        output: OpenStream = self._audio.open_output(self._device, rate, self.block_s, play, self._end_output)
        self._silent = ""
        chain.howling.loop_s = latency_s + output.latency + (block + reserve) / rate
        log.info("monitor: %s at %d Hz, blocks of %d, priority %s", self.name, rate, block, self._priority)
        underruns, howls, self._held_s = self._underruns, self._howls, buffer.held_s
        used_s, process_used_s = self._used_s - time.thread_time(), self._process_used_s - time.process_time()
        steer = None
        try:
            for samples, heard_s in self._heard(rate, block):
                if steer is not self._steer:
                    steer = self._steer
                    if steer.scene is not None:
                        chain.choose(steer.scene)
                    alarmed, self._alarmed = self._alarmed, False
                    if alarmed:
                        chain.alarm(True)
                    if not steer.alarm:
                        chain.alarm(False, at_once=steer.seen)
                buffer.push(chain.step(samples), heard_s)
                self._blocks += 1
                self._used_s = used_s + time.thread_time()
                self._process_used_s = process_used_s + time.process_time()
                self._underruns, self._howls = underruns + buffer.underruns, howls + chain.howling.howls
        finally:
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
                channels = frames.shape[1]
                mono = frames[:, 0] if channels == 1 else frames @ np.full(channels, 1 / channels, np.float32)
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
        text = text.replace("; see `streamer doctor`, or use --input FILE", "; see `streamer doctor --monitor`")
        raise InputError(text) from None
