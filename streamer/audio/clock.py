"""Monotonic time that sources wait on: injected, so that tests can script it."""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic time and waiting, injected so that tests can script both."""

    def now(self) -> float:
        """Seconds that never go back."""

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until `event` is set or `timeout_s` is over; whether it is set."""


class SystemClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Seconds of `time.monotonic`."""
        return time.monotonic()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait for real."""
        return event.wait(timeout_s)


class Pacer:
    """Lets blocks go in step with the clock: none before the moment its last sample would have been recorded.

    `samples_per_s` a little above 16,000 lets a live pipe whose own clock is fast never pile up. After a stall of the
    consumer the schedule moves on instead of catching up in a burst.
    """

    MAX_BEHIND_S = 1.0

    def __init__(self, clock: Clock, closed: threading.Event, samples_per_s: float) -> None:
        self._clock, self._closed, self._rate = clock, closed, samples_per_s
        self._due: float | None = None

    def wait_for(self, samples: int) -> bool:
        """Wait until `samples` more have had time to sound; False when the source was closed meanwhile."""
        now = self._clock.now()
        due = (now if self._due is None else self._due) + samples / self._rate
        self._due = due = max(due, now - self.MAX_BEHIND_S)
        if due > now:
            return not self._clock.wait(self._closed, due - now)
        return not self._closed.is_set()
