"""PortAudio through sounddevice: the device list, the format to open a device with, and the open stream itself.

PortAudio freezes its list at initialisation and re-initialising kills running streams: `refresh` only when none runs.
sounddevice is imported on first use, since that fails where the PortAudio library is missing.

PortAudio is not thread-safe, so all calls of all microphones of one process go through one lock (`SharedAudio`), and
while one of them records the list of devices stays as it is: another that was lost is opened again as it was known. It
is looked for anew, under another index or name, only when no microphone records and no output plays.
"""

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.errors import DeviceLost, InputError

SEE_LIST = "see --list-devices"
MISSING = (
    "--device: the PortAudio library is missing; `sudo apt-get install libportaudio2` (Debian, Ubuntu), "
    "`brew install portaudio` (macOS), or use --input FILE"
)
_MOST_CHANNELS = 8  # a device that offers more is ALSA's gateway to a sound server, which mixes better than we can
_COMMON_RATES = (48_000, 44_100, 16_000, 32_000)
CALLBACK_S = 0.02
HELD_BLOCKS = 2  # of short blocks that a device holds: one that is played, one to come


@dataclass(frozen=True, slots=True)
class Device:
    """One device that can record, or play: `channels` is the most it offers for that, `rate` its native one in Hz."""

    index: int
    name: str
    host_api: str
    channels: int
    rate: int
    default: bool = False

    @property
    def plain_name(self) -> str:
        """The name without ALSA's card number, which may be another after a replug."""
        return re.sub(r"\s*\(hw:\d+,\d+\)$", "", self.name)


def choose_device(devices: Sequence[Device], wanted: int | str | None) -> Device:
    """The device with that index, else the only one whose name contains `wanted` (any case); None: the default.

    An exact name wins over a part; of a device that several host APIs list, the default's host API wins.
    Raises InputError of one line that names --device and what there is.
    """
    if not devices:
        raise InputError("--device: this machine shows no microphone; see `streamer doctor`, or use --input FILE")
    if wanted is None:
        return next((device for device in devices if device.default), devices[0])
    if isinstance(wanted, int) or wanted.strip().isdecimal():
        return _by_index(devices, int(wanted))
    word = wanted.strip().casefold()
    if not word:
        raise InputError(f"--device: the name is empty; give an index or a part of a name, {SEE_LIST}")
    matches = [device for device in devices if word in device.name.casefold()]
    exact = [device for device in matches if word in (device.name.casefold(), device.plain_name.casefold())]
    if not matches:
        raise InputError(f"--device {wanted}: no microphone's name contains that; there are {_listed(devices)}")
    return _only(devices, exact or matches, wanted)


def find_again(devices: Sequence[Device], lost: Device) -> Device | None:
    """The device that went away, by its name (its index may be another one's now), or None while it is away."""
    named = [device for device in devices if device.plain_name == lost.plain_name]
    return next((device for device in named if device.host_api == lost.host_api), named[0] if named else None)


def _by_index(devices: Sequence[Device], index: int) -> Device:
    for device in devices:
        if device.index == index:
            return device
    raise InputError(f"--device {index}: is no microphone; there are {_listed(devices)}")


def _only(devices: Sequence[Device], matches: Sequence[Device], wanted: str) -> Device:
    if len(matches) > 1:
        host_api = choose_device(devices, None).host_api
        matches = [device for device in matches if device.host_api == host_api] or matches
    if len(matches) > 1:
        raise InputError(f"--device {wanted}: fits {_listed(matches)}; give an index or more of the name")
    return matches[0]


def _listed(devices: Sequence[Device]) -> str:
    shown = ", ".join(f"{device.index} {device.name!r}" for device in devices[:6])
    return shown if len(devices) <= 6 else f"{shown} and {len(devices) - 6} more ({SEE_LIST})"


Hear = Callable[[NDArray[np.float32], bool], None]  # frames [n, channels], valid during the call; whether it overflowed
Play = Callable[[NDArray[np.float32], bool], None]  # frames [n, channels] to fill; whether the device ran dry before


class OpenStream(Protocol):
    """A device that records or plays."""

    latency: float  # how long it says that it holds sound, in seconds

    def close(self) -> None:
        """Stop at once and let go of the device."""


class PortAudio:
    """The machine's audio system. Every method belongs to the thread that reads the sound."""

    def __init__(self) -> None:
        self._sd = _load()

    def devices(self) -> tuple[Device, ...]:
        """The devices that can record, by index. Raises InputError when there is no audio system."""
        return self._list("input")

    def outputs(self) -> tuple[Device, ...]:
        """The devices that can play."""
        return self._list("output")

    def _list(self, kind: Literal["input", "output"]) -> tuple[Device, ...]:
        default, channels = self._default_index(kind), f"max_{kind}_channels"
        try:
            hosts, rows = self._sd.query_hostapis(), self._sd.query_devices()
        except self._sd.PortAudioError as error:
            raise InputError(f"--device: PortAudio cannot list devices: {_first_line(error)}") from None
        return tuple(
            Device(
                index=index,
                name=str(row["name"]),
                host_api=str(hosts[row["hostapi"]]["name"]),
                channels=int(row[channels]),
                rate=round(row["default_samplerate"]),
                default=index == default,
            )
            for index, row in enumerate(rows)
            if row[channels] > 0
        )

    def refresh(self) -> None:
        """Initialise PortAudio again: the only way to see what was plugged in; only while no stream runs.

        Raises DeviceLost when it cannot.
        """
        # sounddevice has no public name for this; its own documentation and issue tracker point to these two.
        try:
            self._sd._terminate()
            self._sd._initialize()
        except self._sd.PortAudioError as error:
            raise DeviceLost(f"PortAudio cannot start: {_first_line(error)}") from None

    def native_format(self, device: Device) -> tuple[int, int]:
        """Rate in Hz and channels: the device's own, else the nearest common ones. Raises DeviceLost: it takes none."""
        channels = [device.channels, 2, 1] if device.channels <= _MOST_CHANNELS else [1, 2]
        for rate in (device.rate, *_COMMON_RATES):
            for count in channels:
                try:
                    self._sd.check_input_settings(device.index, count, "float32", samplerate=rate)
                except (self._sd.PortAudioError, ValueError):
                    continue
                return rate, count
        raise DeviceLost(f"{device.name!r} cannot be opened; another program may hold it, see --list-devices")

    def open(
        self,
        device: Device,
        rate: int,
        channels: int,
        hear: Hear,
        ended: Callable[[], None],
        block_s: float = CALLBACK_S,
    ) -> OpenStream:
        """Start recording, float32, in blocks of about 20 ms; `hear` and `ended` are called on the device's own thread.

        Shorter blocks are for who hears at once: then the device is also asked to hold no more than it must. Raises
        DeviceLost.
        """

        def callback(frames: NDArray[np.float32], _count: int, _time: Any, status: Any) -> None:
            hear(frames, bool(status.input_overflow))

        latency = None if block_s == CALLBACK_S else HELD_BLOCKS * block_s
        blocks = {"samplerate": rate, "blocksize": round(rate * block_s), "channels": channels, "latency": latency}
        return self._started(self._sd.InputStream, device, "", callback=callback, finished_callback=ended, **blocks)

    def open_output(
        self, device: Device, rate: int, block_s: float, play: Play, ended: Callable[[], None]
    ) -> OpenStream:
        """Start playing two channels, float32, in blocks of `block_s`, held as briefly as the device allows.

        `play` and `ended` are called on the device's own thread. Raises DeviceLost.
        """

        def callback(frames: NDArray[np.float32], _count: int, _time: Any, status: Any) -> None:
            play(frames, bool(status.output_underflow))

        blocks = {
            "samplerate": rate,
            "blocksize": round(rate * block_s),
            "channels": 2,
            "latency": HELD_BLOCKS * block_s,
        }
        at = f" at {rate} Hz"
        return self._started(self._sd.OutputStream, device, at, callback=callback, finished_callback=ended, **blocks)

    def _started(self, kind: Callable[..., Any], device: Device, at: str, **wishes: Any) -> OpenStream:
        """A stream of sounddevice, running. Raises DeviceLost, with `at` behind what could not be done."""
        stream = None
        try:
            stream = kind(device=device.index, dtype="float32", **wishes)
            stream.start()
        except (self._sd.PortAudioError, ValueError) as error:
            if stream is not None:
                stream.close(ignore_errors=True)
            raise DeviceLost(f"{device.name!r} cannot be opened{at}: {_first_line(error)}") from None
        opened: OpenStream = stream
        return opened

    def _default_index(self, kind: str) -> int:
        try:
            return int(self._sd.query_devices(kind=kind)["index"])
        except (self._sd.PortAudioError, ValueError):
            return -1


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


class SharedAudio:
    """An audio system for the capture threads of one or several microphones. None: the machine's."""

    def __init__(self, backend: PortAudio | None = None) -> None:
        self._backend = backend or PortAudio()
        self._lock = threading.Lock()
        self._open = 0

    def devices(self) -> tuple[Device, ...]:
        """The devices that can record, as of the last `refresh`."""
        with self._lock:
            return self._backend.devices()

    def refresh(self) -> None:
        """Look for devices again, unless one is open."""
        with self._lock:
            if not self._open:
                self._backend.refresh()

    def native_format(self, device: Device) -> tuple[int, int]:
        """Rate in Hz and channels to open the device with."""
        with self._lock:
            self._require(device)
            return self._backend.native_format(device)

    def outputs(self) -> tuple[Device, ...]:
        """The devices that can play, by index, as of the last `refresh`."""
        with self._lock:
            return self._backend.outputs()

    def open(
        self,
        device: Device,
        rate: int,
        channels: int,
        hear: Hear,
        ended: Callable[[], None],
        block_s: float = CALLBACK_S,
    ) -> OpenStream:
        """Start recording."""
        with self._lock:
            self._require(device)
            return self._opened(self._backend.open(device, rate, channels, hear, ended, block_s))

    def open_output(
        self, device: Device, rate: int, block_s: float, play: Play, ended: Callable[[], None]
    ) -> OpenStream:
        """Start playing."""
        with self._lock:
            return self._opened(self._backend.open_output(device, rate, block_s, play, ended))

    def _opened(self, stream: OpenStream) -> OpenStream:
        self._open += 1
        return _Shared(stream, self._close)

    def _require(self, device: Device) -> None:
        """Another microphone's `refresh` may have given the index to another device meanwhile."""
        if not any((other.index, other.name) == (device.index, device.name) for other in self._backend.devices()):
            raise DeviceLost(f"{device.name!r} is another device now")

    def _close(self, stream: OpenStream) -> None:
        with self._lock:
            self._open -= 1
            stream.close()


class _Shared:
    """An open stream that is closed once, under the lock."""

    def __init__(self, stream: OpenStream, close: Callable[[OpenStream], None]) -> None:
        self._stream: OpenStream | None = stream
        self._close = close
        self.latency = getattr(stream, "latency", 0.0)

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            self._close(stream)
