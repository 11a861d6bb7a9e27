"""What every source of sound hands on, how loud that is, the shape of a source, and the clock that it waits on."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.events import State

SILENCE_DBFS = -120.0  # what digital silence counts as
BLOCK_SAMPLES = 800  # 50 ms at 16 kHz: the longest block a file or stdin hands out


@dataclass(frozen=True, slots=True)
class AudioBlock:
    """A piece of 16 kHz mono sound, and what is known about its way here.

    `samples` is float32 [n], n may be 0. `lost_samples` (16 kHz) went missing just before `samples`: the capture clock
    advances over them too. `state` is the source's state from here on: `listening`; `no_audio` (the device is silent
    or gone, we keep trying); `degraded` (something is wrong with the input and `reason` says what). `reason` explains
    a loss or a state other than `listening`, in one line. `notice` tells people something once, in one line, that is no
    trouble from here on: which track is heard, what was mended.
    """

    samples: NDArray[np.float32]
    lost_samples: int = 0
    reason: str = ""
    state: State = "listening"
    notice: str = ""

    @property
    def trouble(self) -> str:
        """What is wrong from here on, in one line; nothing while it is `listening`."""
        return "" if self.state == "listening" else self.reason

    @property
    def is_loss(self) -> bool:
        """Whether it is a loss and nothing else."""
        return bool(self.lost_samples) and not (len(self.samples) or self.notice) and self.state == "listening"

    def news(self, before: tuple[State, str]) -> list[tuple[State, str]]:
        """What people should be told: each a state and its detail. `before`: state and trouble so far."""
        changed = [(self.state, self.trouble)] if (self.state, self.trouble) != before else []
        return [*changed, ("listening", self.notice)] if self.notice else changed


class Source(Protocol):
    """Where sound comes from.

    `live`: blocks come in step with wall time, so a consumer that is too slow must drop; else the source waits for it.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def live(self) -> bool: ...  # noqa: D102

    def blocks(self) -> Iterator[AudioBlock]:
        """Blocks in order, waiting for sound; ends at the end of the input or after `close`.

        Raises DeviceLost when a device is gone for good, InputError when the input cannot be read.
        """

    def close(self) -> None:
        """Make `blocks` end within 0.5 s. From any thread, any number of times."""


def dbfs(samples: NDArray[np.float32]) -> float:
    """RMS level of float32 [n] in dB relative to a full-scale square wave, -120 to 0 (above 0 only for |x| > 1)."""
    if samples.size == 0:
        return SILENCE_DBFS
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return max(SILENCE_DBFS, 10.0 * float(np.log10(max(power, 1e-30))))


def empty() -> NDArray[np.float32]:
    """No samples, float32 [0]."""
    return np.zeros(0, np.float32)


_ALWAYS: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)


class Clock:
    """The machine's monotonic clock, given to what waits, so that tests can script both.

    Where there is one (Linux), it is the one that goes on while the machine sleeps: what was not heard then is a loss.
    """

    def now(self) -> float:
        """Seconds that never go back."""
        return time.clock_gettime(_ALWAYS) if _ALWAYS is not None else time.monotonic()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait for real."""
        return event.wait(timeout_s)


class Pacer:
    """Lets blocks go in step with the clock: none before the moment its last sample would have been recorded.

    `samples_per_s` a little above 16,000 lets a live pipe whose own clock is fast never pile up; infinite: as fast as
    they go. After a stall of the consumer the schedule moves on instead of catching up in a burst.
    """

    MAX_BEHIND_S = 1.0

    def __init__(self, clock: Clock, closed: threading.Event, samples_per_s: float) -> None:
        self._clock, self._closed, self._rate = clock, closed, samples_per_s
        self._due: float | None = None

    def let_go(self, block: AudioBlock) -> bool:
        """Wait until the block, and what was lost before it, has had time to sound; False: the source was closed."""
        return self.wait_for(block.lost_samples + len(block.samples))

    def wait_for(self, samples: int) -> bool:
        """Wait until `samples` more have had time to sound; False when the source was closed meanwhile."""
        now = self._clock.now()
        due = (now if self._due is None else self._due) + samples / self._rate
        self._due = due = max(due, now - self.MAX_BEHIND_S)
        if due > now:
            return not self._clock.wait(self._closed, due - now)
        return not self._closed.is_set()
