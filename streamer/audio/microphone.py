"""The microphone as a source: native sound in, 16 kHz blocks out, and a watch over a device that falls silent.

The thread that iterates `blocks` (the capture thread) resamples and owns the device; the device's own thread only
copies into the `CaptureBuffer`, notes the time and wakes it. That thread owns `CaptureBuffer.push`, the capture thread
`pop`; every counter has one writer, so neither waits.
"""

import logging
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.audio.block import AudioBlock, Clock, empty
from streamer.audio.portaudio import CALLBACK_S, Device, OpenStream, SharedAudio, choose_device, find_again
from streamer.audio.resample import BlockMaker
from streamer.errors import DeviceLost, InputError

_SETTLE_S = 2.0  # a gap is measured when callbacks come at their own pace again, at the latest after so much sound
FULL = "the capture thread was too slow"
OVERFLOW = "the device overflowed"
SLEPT = "the machine or this program was stopped"
SLEPT_S = 5.0  # longer than any device holds sound
STALL_S = 0.7  # no callback for so long: the device is silent or gone
FIRST_S = 5.0  # a device that was just opened may take longer (a sound server fills its buffers first)
BUFFER_S = 10.0
_GRACE_S = 0.25  # after a late wake-up (a suspended process, a busy machine) callbacks may be about to come
_RETRY_S = (0.25, 0.5, 1.0, 2.0)  # who plugs it in again waits for it

_log = logging.getLogger(__name__)


class Tap(Protocol):
    """Who hears the device at once, beside the capture thread: the monitor. The device is opened in blocks as short."""

    block_s: float

    def begin(self, rate: int, latency_s: float) -> None:
        """The device was opened, at this rate; `latency_s`: how long it says that it holds sound (capture thread)."""

    def hear(self, frames: NDArray[np.float32]) -> None:
        """Native frames [n, channels], to be copied: called on the device's own thread, must not wait."""

    def end(self) -> None:
        """The device was closed (capture thread)."""


@dataclass(frozen=True, slots=True)
class Missing:
    """`frames` native samples that never came, and why."""

    frames: int
    reason: str


@dataclass(slots=True)
class _Gap:
    """A loss whose length only the clock knows: nothing was heard from `since_s` on; `frames` came afterwards."""

    since_s: float
    reason: str
    frames: int = 0


class CaptureBuffer:
    """Native frames float32 [n, channels] in; the same, and `Missing`, out.

    Full-buffer rule: a block that does not fit is dropped whole and counted to the frame. A device that overflows does
    not say how much it lost: the clock does, measured once the blocks that it still held have come in. The same where
    the machine slept, which not every device tells.
    `silent_since_s`: when the device was last heard by its predecessor; the time until the first block is a loss.
    """

    def __init__(self, rate: int, capacity_s: float, silent_since_s: float | None = None, away: str = "") -> None:
        self.rate = rate
        self.last_arrival_s: float | None = None
        self._capacity = max(1, round(rate * capacity_s))
        self._written = self._read = 0  # frames
        self._ready: deque[NDArray[np.float32] | Missing] = deque()
        self._gap = None if silent_since_s is None else _Gap(silent_since_s, away)
        self._behind: list[NDArray[np.float32] | Missing] = []  # the gap, which is not measured yet

    def push(self, frames: NDArray[np.float32], arrived_s: float, overflowed: bool = False) -> None:
        """Called by the device: copy `frames` [n, channels], which were complete at `arrived_s`."""
        count = len(frames)
        before_s, self.last_arrival_s = self.last_arrival_s, arrived_s
        if before_s is not None and self._gap is None:
            slept = arrived_s - before_s > SLEPT_S
            if overflowed or slept:
                self._gap = _Gap(before_s, SLEPT if slept else OVERFLOW)
        fits = count <= self._capacity - (self._written - self._read)
        if self._gap is not None:
            # It came at its own pace, not in the burst of what the device still held.
            own_pace = self._gap.frames > 0 and before_s is not None and arrived_s - before_s >= 0.5 * count / self.rate
            self._gap.frames += count
            if own_pace or not fits or self._gap.frames > _SETTLE_S * self.rate:
                self._close(self._gap, arrived_s)
        (self._ready if self._gap is None else self._behind).append(frames.copy() if fits else Missing(count, FULL))
        self._written += count if fits else 0

    def pop(self) -> list[NDArray[np.float32] | Missing]:
        """Everything that is certain by now, in order; sound behind a gap waits until the gap is measured."""
        out: list[NDArray[np.float32] | Missing] = []
        while self._ready:
            piece = self._ready.popleft()
            self._read += 0 if isinstance(piece, Missing) else len(piece)
            out.append(piece)
        return out

    def settle(self) -> None:
        """The device is closed: measure an open gap by what came, so that `pop` hands out everything."""
        if self._gap is not None and self._gap.frames and self.last_arrival_s is not None:
            self._close(self._gap, self.last_arrival_s)

    def _close(self, gap: _Gap, arrived_s: float) -> None:
        frames = round((arrived_s - gap.since_s) * self.rate) - gap.frames
        self._ready.extend([Missing(frames, gap.reason)] if frames > 0 else [])
        self._ready.extend(self._behind)
        self._gap, self._behind = None, []


class Microphone:
    """A capture device, at its native rate and channels, mixed to mono. It is looked for again, by name, when it goes.

    Raises InputError when no device fits `device` (index, part of a name, or None for the default) or it cannot record.
    """

    live = True

    def __init__(
        self,
        device: int | str | None = None,
        *,
        backend: SharedAudio | None = None,
        clock: Clock | None = None,
        stall_s: float = STALL_S,
        tap: Tap | None = None,
    ) -> None:
        self._backend, self._clock, self._stall_s = backend or SharedAudio(), clock or Clock(), stall_s
        self._tap = tap
        self._wanted = device
        self._device = choose_device(self._backend.devices(), device)
        self._closed, self._wake = threading.Event(), threading.Event()
        try:
            self._backend.native_format(self._device)
        except DeviceLost as error:
            raise InputError(f"--device {self._device.index}: {error}") from None

    @property
    def name(self) -> str:
        """The device's name."""
        return self._device.name

    def blocks(self) -> Iterator[AudioBlock]:
        """Blocks as the device delivers them, until `close`; a silence of the device is a `no_audio` block, once.

        When it is back, the time that it was away is a loss, to the sample by the clock. Whatever else fails on the way
        from the device is treated in the same way.
        """
        try:
            session = _Session(self._backend, self._device, self._clock, self._wake, None, self._tap)
        except DeviceLost as error:
            raise InputError(f"--device {self._device.index}: {error}") from None
        maker, away = BlockMaker(session.buffer.rate), False
        try:
            while True:
                try:
                    for block in self._listen(session, maker):
                        away = False
                        yield block
                except Exception as error:  # noqa: BLE001  the top of one opening of the device
                    if not away:
                        _log.error("%s failed and is opened again: %s: %s", self.name, type(error).__name__, error)
                        _log.debug("", exc_info=error)
                    session.close()
                    maker = BlockMaker(session.buffer.rate)
                if self._closed.is_set():
                    return
                if not away:
                    away = True
                    yield AudioBlock(empty(), reason=f"no sound from {self.name!r}; waiting for it", state="no_audio")
                session = self._open_again(session)
                yield from maker.change_rate(session.buffer.rate)
        finally:
            session.close()

    def close(self) -> None:
        """End `blocks` and let go of the device."""
        self._closed.set()
        self._wake.set()

    def _listen(self, session: "_Session", maker: BlockMaker) -> Iterator[AudioBlock]:
        """Blocks until the device ends, falls silent for too long, or the source is closed."""
        while not self._closed.is_set():
            ended = session.ended
            yield from _blocks(maker, session)
            patience_s = session.patience_s(self._clock.now(), self._stall_s)
            if ended or (patience_s <= 0 and not self._clock.wait(self._wake, _GRACE_S)):
                _log.warning("%s fell silent", self.name)
                session.close()
                session.buffer.settle()
                yield from _blocks(maker, session)
                yield from maker.finish()
                return
            if patience_s > 0:
                self._clock.wait(self._wake, patience_s)
            self._wake.clear()

    def _open_again(self, lost: "_Session") -> "_Session":
        """Try, ever less often, until the device is back; when closed meanwhile, the old session."""
        attempt = 0
        while not self._clock.wait(self._closed, _RETRY_S[min(attempt, len(_RETRY_S) - 1)]):
            attempt += 1
            try:
                self._backend.refresh()
                devices = self._backend.devices()
                device = find_again(devices, self._device)
                if device is None and self._wanted is None and devices:
                    device = choose_device(devices, None)
                if device is None:
                    continue
                session = _Session(self._backend, device, self._clock, self._wake, lost.silent_since_s, self._tap)
            except (DeviceLost, InputError) as error:
                _log.info("%s is not back: %s", self.name, error)
                continue
            except Exception as error:  # noqa: BLE001  as in `blocks`
                _log.info("%s is not back: %s: %s", self.name, type(error).__name__, error)
                continue
            self._device = device
            _log.info("opened %s again", device.name)
            return session
        return lost


class _Session:
    """One opening of the device, from start to loss."""

    def __init__(
        self,
        backend: SharedAudio,
        device: Device,
        clock: Clock,
        wake: threading.Event,
        silent_since_s: float | None,
        tap: Tap | None,
    ) -> None:
        self._clock, self._wake, self._tap = clock, wake, tap
        self.ended = False
        self._opened_s = clock.now()
        self._before_s = silent_since_s
        rate, channels = backend.native_format(device)
        away = f"{device.name!r} was away"
        self.buffer = CaptureBuffer(rate, BUFFER_S, silent_since_s, away)
        self._untold, self._telling = 0, round(rate * CALLBACK_S) if tap else 1
        block_s = tap.block_s if tap else CALLBACK_S
        self._stream: OpenStream | None = backend.open(device, rate, channels, self._hear, self._end, block_s)
        if tap:
            tap.begin(rate, self._stream.latency)

    @property
    def silent_since_s(self) -> float | None:
        """When the device was last heard, by this session or an earlier one."""
        return self._before_s if self.buffer.last_arrival_s is None else self.buffer.last_arrival_s

    def patience_s(self, now_s: float, stall_s: float) -> float:
        """How much longer to wait for the next callback."""
        if self.buffer.last_arrival_s is None:
            return self._opened_s + max(FIRST_S, stall_s) - now_s
        return self.buffer.last_arrival_s + stall_s - now_s

    def close(self) -> None:
        """Let go of the device; any number of times."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
            if self._tap:
                self._tap.end()

    def _hear(self, frames: NDArray[np.float32], overflowed: bool) -> None:
        if self._tap:
            self._tap.hear(frames)
        self.buffer.push(frames, self._clock.now(), overflowed)
        self._untold += len(frames)
        if self._untold >= self._telling:  # short blocks for a tap do not wake the capture thread more often
            self._untold = 0
            self._wake.set()

    def _end(self) -> None:
        self.ended = True
        self._wake.set()


def _blocks(maker: BlockMaker, session: _Session) -> Iterator[AudioBlock]:
    """Everything that the session has ready."""
    for piece in session.buffer.pop():
        yield from maker.lost(piece.frames, piece.reason) if isinstance(piece, Missing) else maker.mix(piece)
