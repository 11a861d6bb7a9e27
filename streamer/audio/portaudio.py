"""PortAudio through sounddevice: the device list, the format to open a device with, and the open stream itself.

PortAudio freezes its list at initialisation and re-initialising kills running streams: `refresh` only when none runs.
sounddevice is imported on first use, since that fails where the PortAudio library is missing.
"""

import threading
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.audio.devices import Device
from streamer.errors import DeviceLost, InputError

MISSING = (
    "--device: the PortAudio library is missing; `sudo apt-get install libportaudio2` (Debian, Ubuntu), "
    "`brew install portaudio` (macOS), or use --input FILE"
)
_MOST_CHANNELS = 8  # a device that offers more is ALSA's gateway to a sound server, which mixes better than we can
_COMMON_RATES = (48_000, 44_100, 16_000, 32_000)
_CALLBACK_S = 0.02

Hear = Callable[[NDArray[np.float32], bool], None]  # frames [n, channels], valid during the call; whether it overflowed


class OpenStream(Protocol):
    """A device that records."""

    def close(self) -> None:
        """Stop at once and let go of the device."""


class Backend(Protocol):
    """What the microphone needs of an audio system. Every method belongs to the thread that reads the sound."""

    def devices(self) -> tuple[Device, ...]:
        """The devices that can record, by index. Raises InputError when there is no audio system."""

    def refresh(self) -> None:
        """Look for devices again; only while no stream runs. Raises DeviceLost when the audio system is down."""

    def native_format(self, device: Device) -> tuple[int, int]:
        """Rate in Hz and channels to open the device with. Raises DeviceLost when it takes none."""

    def open(self, device: Device, rate: int, channels: int, hear: Hear, ended: Callable[[], None]) -> OpenStream:
        """Start recording; `hear` and `ended` are called on the device's own thread. Raises DeviceLost."""


class PortAudio:
    """The machine's audio system."""

    def __init__(self) -> None:
        self._sd = _load()

    def devices(self) -> tuple[Device, ...]:
        """The devices that can record, by index."""
        default = self._default_index()
        try:
            hosts, rows = self._sd.query_hostapis(), self._sd.query_devices()
        except self._sd.PortAudioError as error:
            raise InputError(f"--device: PortAudio cannot list devices: {_first_line(error)}") from None
        return tuple(
            Device(
                index=index,
                name=str(row["name"]),
                host_api=str(hosts[row["hostapi"]]["name"]),
                channels=int(row["max_input_channels"]),
                rate=round(row["default_samplerate"]),
                default=index == default,
            )
            for index, row in enumerate(rows)
            if row["max_input_channels"] > 0
        )

    def refresh(self) -> None:
        """Initialise PortAudio again: the only way to see what was plugged in. Raises DeviceLost when it cannot."""
        # sounddevice has no public name for this; its own documentation and issue tracker point to these two.
        try:
            self._sd._terminate()
            self._sd._initialize()
        except self._sd.PortAudioError as error:
            raise DeviceLost(f"PortAudio cannot start: {_first_line(error)}") from None

    def native_format(self, device: Device) -> tuple[int, int]:
        """The device's own rate and channels; where it refuses them, the nearest common ones."""
        channels = [device.channels, 2, 1] if device.channels <= _MOST_CHANNELS else [1, 2]
        for rate in (device.rate, *_COMMON_RATES):
            for count in channels:
                try:
                    self._sd.check_input_settings(device.index, count, "float32", samplerate=rate)
                except (self._sd.PortAudioError, ValueError):
                    continue
                return rate, count
        raise DeviceLost(f"{device.name!r} cannot be opened; another program may hold it, see --list-devices")

    def open(self, device: Device, rate: int, channels: int, hear: Hear, ended: Callable[[], None]) -> OpenStream:
        """Start recording, float32, in blocks of about 20 ms."""

        def callback(frames: NDArray[np.float32], _count: int, _time: Any, status: Any) -> None:
            hear(frames, bool(status.input_overflow))

        stream = None
        try:
            stream = self._sd.InputStream(
                samplerate=rate,
                blocksize=round(rate * _CALLBACK_S),
                device=device.index,
                channels=channels,
                dtype="float32",
                callback=callback,
                finished_callback=ended,
            )
            stream.start()
        except (self._sd.PortAudioError, ValueError) as error:
            if stream is not None:
                stream.close(ignore_errors=True)
            raise DeviceLost(f"{device.name!r} cannot be opened: {_first_line(error)}") from None
        return _Stream(stream)

    def _default_index(self) -> int:
        try:
            return int(self._sd.query_devices(kind="input")["index"])
        except (self._sd.PortAudioError, ValueError):
            return -1


class _Stream:
    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            self._stream.abort(ignore_errors=True)
            self._stream.close(ignore_errors=True)


def list_devices() -> tuple[Device, ...]:
    """The devices that can record, by index. Raises InputError when PortAudio is missing."""
    return PortAudio().devices()


def _load() -> ModuleType:
    try:
        return import_module("sounddevice")
    except OSError:  # sounddevice's import finds no PortAudio, or PortAudio finds no way to start
        raise InputError(MISSING) from None
    except ImportError:
        raise InputError("--device: the package sounddevice is missing; `pip install sounddevice`") from None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
