"""Media files made on the fly with PyAV, and clocks that a test drives."""

import threading
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def tone(rate: int, seconds: float, channels: int = 1, hz: float = 440.0, level: float = 0.3) -> NDArray[np.int16]:
    """A sine, int16 [n, channels], the same in every channel."""
    wave = level * 32_767 * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)
    return np.repeat(wave.astype(np.int16)[:, None], channels, axis=1)


def write_media(
    path: Path, frames: NDArray[np.generic], rate: int, codec: str, *, container: str | None = None, video: bool = False
) -> Path:
    """Encode frames [n, channels] (any type that FFmpeg knows) into `path`; its suffix says the container."""
    names = {"int16": "s16", "int32": "s32", "float32": "flt", "float64": "dbl", "uint8": "u8"}
    with av.open(str(path), "w", format=container) as output:
        picture = _picture_stream(output) if video else None
        stream = output.add_stream(codec, rate=rate)
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
