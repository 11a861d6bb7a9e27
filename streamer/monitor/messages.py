"""What the program and the hearing aid's own process tell each other: pickled records, one after another, over pipes.

    program ─► Begin, then Steer as often as something changes, then Stop ─► process
    process ─► Opened or Refused, then Heard, Report and Said ─► program

Either end is gone when the other reads the end of the pipe.
"""

import pickle
from dataclasses import dataclass
from threading import Lock
from typing import IO, Any

from streamer.audio.block import AudioBlock
from streamer.events import SceneName
from streamer.settings.monitor import MonitorSettings


@dataclass(frozen=True, slots=True)
class Begin:
    """What to play. `device`: the microphone, as --device says. `log_level`: of what is worth saying."""

    settings: MonitorSettings
    device: int | str | None
    stall_s: float
    log_level: int


@dataclass(frozen=True, slots=True)
class Steer:
    """All that may change while it plays. `scene`: whose program to use, None: as it began. `alarm`: its signal.
    `seen`: somebody has seen the last alarm, so that not even the pulses that sound now are of use.
    """

    scene: SceneName | None
    alarm: bool
    seen: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """Close the devices and end."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Names of the devices; `plain_output`: without what changes when it is plugged in again."""

    microphone: str
    output: str
    plain_output: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A device that is not there or cannot be opened, in one line; the process ends."""

    detail: str


@dataclass(frozen=True, slots=True)
class Heard:
    """A block of the microphone, and when it was complete (`time.monotonic`, which all processes share)."""

    block: AudioBlock
    at_s: float


@dataclass(frozen=True, slots=True)
class Report:
    """How it went so far. `underruns`: blocks that the output wanted and that were not there; `dropped`: of the
    microphone, because the thread that works on them had no turn; `device_underruns`: the output device itself ran
    dry. `share`: of one core, the thread that works on the sound; `process_share`: all of them, with those of the
    audio drivers. `held_ms`: from the microphone's hand to the output's, the median of the last seconds. `priority`:
    `real time`, `high` or `normal`. `process`: its id. `silent`: why nothing comes out of the headphones, "": it does.
    """

    blocks: int = 0
    underruns: int = 0
    dropped: int = 0
    device_underruns: int = 0
    howls: int = 0
    priority: str = "normal"
    share: float = 0.0
    process_share: float = 0.0
    held_ms: float = 0.0
    process: int = 0
    silent: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """One line of the log."""

    level: int
    logger: str
    text: str


class Writer:
    """One end of a pipe to write to, from any thread. BrokenPipeError: nobody reads it any more."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe, self._lock = pipe, Lock()

    def write(self, message: object) -> None:
        """All of it, at once; waits while the pipe is full."""
        with self._lock:
            pickle.dump(message, self._pipe, protocol=pickle.HIGHEST_PROTOCOL)
            self._pipe.flush()


def read(pipe: IO[bytes]) -> Any:
    """The next message. Raises EOFError where the other end is gone, also in the middle of one."""
    try:
        return pickle.load(pipe)
    except (pickle.UnpicklingError, ValueError, OSError) as error:
        raise EOFError(str(error)) from None
