"""The end of the program: who asks for it, and how long each part of it may take.

Ctrl-C, SIGTERM and a terminal that is closed (SIGHUP): the first asks for a clean end, a second Ctrl-C or SIGTERM ends
at once, and 4.7 s after the first all is over. From the first on one `Deadline` is handed down: no part gets more than
its share, nor more than is left. Every way ends with the last words final, alerts cleared and `stopped`: what is not
done with the model in time is done without it.
"""

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from streamer.runtime.overload import Drain
from streamer.runtime.pipeline import Pipeline
from streamer.runtime.worker import Worker

# Who gets how long, in seconds, in this order.
LAST_WORDS_S = 2.0  # all sessions, for the last words of each utterance; then the model is not asked any more
WITHOUT_MODEL_S = 0.7  # all sessions, for what then is left of them
STEP_S = 0.2  # the worker, for the step at hand; if it takes longer, the sessions end without what it finds
TAKE_OVER_S = 0.2  # the worker, where it waits for who writes the events
DELIVERIES_S = 0.7  # the last alerts, where somebody waits for the end
DELIVERIES_UNHURRIED_S = 10.0  # where the input just ended
CAPTIONS_S = 0.7  # OBS, YouTube and Zoom, for the last lines; they have had the deliveries' time too
FILES_S = 0.7  # the last events, where somebody waits for the end; else as long as it takes
SERVER_S = 2.0  # clients, to take what is left for them
LEAST_S = 0.2  # everybody, however late it is
LEAVE_S = 4.7  # all of it, from the first signal on: a reader of ours that does not read must not keep us

HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)  # None: Windows
STUCK = b"streamer: somebody does not read what we write, or the model takes too long: leaving without the rest\n"


class Deadline:
    """When all must be over, on `clock`; None: nobody waits for the end."""

    def __init__(self, at_s: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._at_s, self._clock = at_s, clock

    @property
    def hurried(self) -> bool:
        """Whether somebody waits for the end."""
        return self._at_s is not None

    def within(self, share_s: float) -> float:
        """How long a part may take that has this share: no longer than is left, but for `LEAST_S`."""
        return share_s if self._at_s is None else min(share_s, max(LEAST_S, self._at_s - self._clock()))


def end_sessions(pipelines: Sequence[Pipeline], worker: Worker, deadline: Deadline) -> bool:
    """End all sources and sessions, with the model or without; False: some sessions could not be ended."""
    stop_all(pipelines, deadline.within(LAST_WORDS_S))
    return worker.stop(deadline.within(STEP_S)) or worker.take_over(deadline.within(TAKE_OVER_S))


def stop_all(pipelines: Sequence[Pipeline], patience_s: float) -> None:
    """End all sources and commit the last words of what they delivered.

    What takes longer than `patience_s` is done without the model; the last `status` says how much that was.
    """
    for pipeline in pipelines:
        pipeline.source.close()
    until_s = time.monotonic()
    for drain, share_s in ((Drain.ENDING, patience_s), (Drain.OVER, WITHOUT_MODEL_S)):
        until_s += share_s
        for pipeline in pipelines:
            pipeline.lane.drain(drain)
        for pipeline in pipelines:
            pipeline.lane.done.wait(max(0.0, until_s - time.monotonic()))


class Interruption:
    """The wish to end. `clean`: there is something to flush; before that a signal ends the program at once."""

    def __init__(self) -> None:
        self.asked = False
        self.deadline = Deadline()
        self.clean = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def ask(self) -> None:
        """Ask for the end; from any thread and from a signal handler, any number of times."""
        if not self.asked:
            self.deadline, self.asked = Deadline(time.monotonic() + LEAVE_S), True
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
        numbers = [signal.SIGINT, signal.SIGTERM]
        if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:  # nohup has it ignored
            numbers.append(HANGUP)
        before = {number: signal.signal(number, self._handle) for number in numbers}
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, signal.SIG_IGN if number == HANGUP and self.asked else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == HANGUP and self.asked:
            return  # a shell passes it on, and the system says it again when the shell is gone
        if self.asked or not self.clean:
            raise KeyboardInterrupt
        self.ask()
        signal.signal(signal.SIGALRM, _leave)
        signal.setitimer(signal.ITIMER_REAL, LEAVE_S)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, STUCK)
    os._exit(1)
