"""Media files made on the fly with PyAV, and clocks that a test drives."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def tone(rate: int, seconds: float, channels: int = 1, hz: float = 440.0, level: float = 0.3) -> NDArray[np.int16]:
    """A sine, int16 [n, channels], the same in every channel."""
    wave = level * 32_767 * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)
    return np.repeat(wave.astype(np.int16)[:, None], channels, axis=1)


def write_media(
    path: Path,
    frames: NDArray[np.generic],
    rate: int,
    codec: str,
    *,
    container: str | None = None,
    video: bool = False,
    bit_rate: int | None = None,
) -> Path:
    """Encode frames [n, channels] (any type that FFmpeg knows) into `path`; its suffix says the container."""
    names = {"int16": "s16", "int32": "s32", "float32": "flt", "float64": "dbl", "uint8": "u8"}
    with av.open(str(path), "w", format=container) as output:
        picture = _picture_stream(output) if video else None
        stream = output.add_stream(codec, rate=rate)
        if bit_rate is not None:
            stream.bit_rate = bit_rate
        stream.layout = LAYOUTS[frames.shape[1]]
        if codec == "flac" and frames.dtype == np.int32:
            stream.format = "s32"
        if picture is not None:
            output.mux(picture.encode(av.VideoFrame(64, 64, "yuv420p")))
            output.mux(picture.encode(None))
        for at in range(0, len(frames), 4096):
            packed = np.ascontiguousarray(frames[at : at + 4096].reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(packed, format=names[frames.dtype.name], layout=stream.layout)
            frame.rate, frame.pts = rate, at
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def _picture_stream(output):
    stream = output.add_stream("mpeg4", rate=25)
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    return stream


class ScriptedClock:
    """A clock that moves only when somebody waits; `at` schedules what happens then, in order of time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.waits: list[float] = []
        self._script: list[tuple[float, Callable[[], None]]] = []

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        self._script.append((seconds, action))
        self._script.sort(key=lambda entry: entry[0])

    def now(self) -> float:
        return self.now_s

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self.waits.append(timeout_s)
        until = self.now_s + timeout_s
        while not event.is_set() and self._script and self._script[0][0] <= until:
            moment, action = self._script.pop(0)
            self.now_s = max(self.now_s, moment)
            action()
        if not event.is_set():
            self.now_s = until
        return event.is_set()


@dataclass(frozen=True, slots=True)
class Sound:
    """One audio track to write: frames [n, channels] that begin at `start_s` on the container's clock."""

    frames: NDArray[np.int16]
    codec: str = "libopus"
    rate: int = 48_000
    start_s: float = 0.0
    default: bool = False
    title: str = ""


def write_tracks(path: Path, sounds: Sequence[Sound], *, video_s: float = 0.0, container: str | None = None) -> Path:
    """Mux several audio tracks, behind `video_s` seconds of a picture track where there is one."""
    with av.open(str(path), "w", format=container) as output:
        picture = _picture_stream(output) if video_s else None
        streams = []
        for sound in sounds:
            stream = output.add_stream(sound.codec, rate=sound.rate)
            stream.layout = LAYOUTS[sound.frames.shape[1]]
            stream.disposition = Disposition.default if sound.default else Disposition(0)
            if sound.title:
                stream.metadata["title"] = sound.title
            streams.append(stream)
        packets = []
        for number in range(round(video_s * 25)):
            frame = av.VideoFrame(64, 64, "yuv420p")
            frame.pts = number
            packets += picture.encode(frame)
        packets += picture.encode(None) if picture else []
        for stream, sound in zip(streams, sounds, strict=True):
            packets += _encoded(stream, sound)
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            output.mux(packet)
    return path


def _encoded(stream, sound: Sound):
    packets = []
    for at in range(0, len(sound.frames), 4096):
        packed = np.ascontiguousarray(sound.frames[at : at + 4096].reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=stream.layout)
        frame.rate, frame.pts = sound.rate, at + round(sound.start_s * sound.rate)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def rewrite(
    source: Path, target: Path, moved: Callable[[int, Fraction, int], int | None], container: str | None = None
) -> Path:
    """Copy the packets of the only audio track; `moved(number, seconds, bytes)` gives each its time in ms, or None."""
    with av.open(str(source)) as given, av.open(str(target), "w", format=container) as output:
        stream = output.add_stream_from_template(given.streams.audio[0])
        for number, packet in enumerate(given.demux(given.streams.audio[0])):
            if packet.pts is None:
                continue
            milliseconds = moved(number, packet.pts * packet.time_base, packet.size)
            if milliseconds is None:
                continue
            packet.time_base = Fraction(1, 1000)
            packet.pts = packet.dts = milliseconds
            packet.stream = stream
            output.mux(packet)
    return target


def babble(rate: int, seconds: float, channels: int = 1, seed: int = 1) -> NDArray[np.int16]:
    """Noise in bursts that nothing else resembles, the same in every channel: where it lies can be told."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 1, round(seconds * 4_000))
    wave = np.interp(np.arange(round(rate * seconds)) / rate, np.arange(len(coarse)) / 4_000, coarse)
    bursts = np.repeat(rng.choice([0.03, 1.0], round(seconds * 5) + 1), rate // 5)[: len(wave)]
    return np.repeat((3_000 * wave * bursts).astype(np.int16)[:, None], channels, axis=1)


def place_of(sound: NDArray[np.float32], reference: NDArray[np.float32]) -> tuple[float, float]:
    """Where `reference` begins in `sound`, both at 16 kHz: seconds, and how alike they are there (1: the same)."""
    size = 1 << (len(sound) + len(reference)).bit_length()
    found = np.fft.irfft(np.fft.rfft(sound, size) * np.conj(np.fft.rfft(reference, size)), size)
    at = int(np.argmax(np.abs(found)))
    shift = at if at < size // 2 else at - size
    here = sound[max(0, shift) :][: len(reference)]
    scale = float(np.linalg.norm(here) * np.linalg.norm(reference[max(0, -shift) :][: len(here)]))
    return shift / 16_000, abs(float(found[at])) / max(scale, 1e-9)
