"""Ctrl-C and SIGTERM: the first asks for a clean end, the second ends at once, and 4.7 s after the first all is over.

A signal handler runs between two instructions of the main thread, whatever locks that holds, so it only sets a flag and
writes a byte into a pipe.
"""

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

LEAVE_S = 4.7  # a clean end takes less; a reader of ours that does not read must not keep us
STUCK = b"streamer: somebody does not read what we write, or the model takes too long: leaving without the rest\n"


class Interruption:
    """The wish to end. `clean`: there is something to flush; before that a signal ends the program at once."""

    def __init__(self) -> None:
        self.asked = False
        self.clean = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def ask(self) -> None:
        """Ask for the end; from any thread and from a signal handler, any number of times."""
        self.asked = True
        with suppress(BlockingIOError):  # it was asked for thousands of times already
            os.write(self._write, b".")

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the end is asked for; False after `timeout_s`."""
        return self.asked or bool(select.select([self._read], [], [], timeout_s)[0])

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals inside the block; in the main thread only, elsewhere nothing is done."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            if hasattr(signal, "setitimer"):
                signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked or not self.clean:
            raise KeyboardInterrupt
        self.ask()
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, _leave)
            signal.setitimer(signal.ITIMER_REAL, LEAVE_S)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, STUCK)
    os._exit(1)
