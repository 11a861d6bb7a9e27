"""One audio system for several microphones of one process.

PortAudio is not thread-safe, and looking for devices again kills every running stream. So all calls of all microphones
go through one lock, and while one of them records the list of devices stays as it is: another that was lost is opened
again as it was known. It is looked for anew, under another index or name, only when no microphone records.
"""

import threading
from collections.abc import Callable

from streamer.audio.devices import Device
from streamer.audio.portaudio import Backend, Hear, OpenStream, PortAudio
from streamer.errors import DeviceLost


class SharedAudio:
    """A `Backend` for the capture threads of several microphones. `backend` None: the machine's audio system."""

    def __init__(self, backend: Backend | None = None) -> None:
        self._backend = backend or PortAudio()
        self._lock = threading.Lock()
        self._recording = 0

    def devices(self) -> tuple[Device, ...]:
        """The devices that can record, as of the last `refresh`."""
        with self._lock:
            return self._backend.devices()

    def refresh(self) -> None:
        """Look for devices again, unless a microphone records."""
        with self._lock:
            if not self._recording:
                self._backend.refresh()

    def native_format(self, device: Device) -> tuple[int, int]:
        """Rate in Hz and channels to open the device with."""
        with self._lock:
            self._require(device)
            return self._backend.native_format(device)

    def open(self, device: Device, rate: int, channels: int, hear: Hear, ended: Callable[[], None]) -> OpenStream:
        """Start recording."""
        with self._lock:
            self._require(device)
            stream = self._backend.open(device, rate, channels, hear, ended)
            self._recording += 1
            return _Shared(stream, self._close)

    def _require(self, device: Device) -> None:
        """Another microphone's `refresh` may have given the index to another device meanwhile."""
        if not any((other.index, other.name) == (device.index, device.name) for other in self._backend.devices()):
            raise DeviceLost(f"{device.name!r} is another device now")

    def _close(self, stream: OpenStream) -> None:
        with self._lock:
            self._recording -= 1
            stream.close()


class _Shared:
    """An open stream that is closed once, under the lock."""

    def __init__(self, stream: OpenStream, close: Callable[[OpenStream], None]) -> None:
        self._stream: OpenStream | None = stream
        self._close = close

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            self._close(stream)
