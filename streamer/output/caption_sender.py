"""One service that takes captions live, with its queue and the thread that brings it lines.

    worker thread ── put (never waits) ──► lines ──► captions-NAME thread ── CaptionService.send ──► a service

Captions are of use only while they are new: a line that is older than the service's `late_s` is left out, and so is the
oldest where `LIMIT_LINES` wait. A service that fails is tried again ever less often (`errors.Backoff`); that it failed,
why, and that it works again is said once each, in the log and to `tell`. It never stops the program.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from streamer.errors import Backoff

log = logging.getLogger(__name__)

LIMIT_LINES = 200  # that wait
LOOK_S = 1.0  # how often a service may look after its connection while there is nothing to send
ASKED_MAX_S = 60.0  # the longest rest that a service may ask for

Lines = tuple["Line", ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of plain text. `said_at`: Unix time of its beginning; `made_s`: `time.monotonic` when it was there."""

    text: str
    said_at: float
    made_s: float


class NotTakenError(Exception):
    """The service did not take it now; it is tried again, after `retry_after_s` if it said so. Holds no secret."""

    def __init__(self, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class NotWantedError(Exception):
    """The service is there and has no use for captions now: what was to be sent is left out."""


class CaptionService:
    """What brings lines to one service; called in one thread. `send` and `idle` may wait some seconds for an answer.

    `name`: for people; `cells`: columns of a line; `at_once`: so many lines at most go out together; `late_s`: the age
    at which a line is of no use any more.
    """

    name: str
    cells: int
    at_once: int
    late_s: float

    def send(self, lines: Lines) -> float:
        """Show these lines; seconds until the next ones may follow. Raises NotTakenError, NotWantedError.

        The very same tuple comes again where it failed.
        """
        raise NotImplementedError

    def idle(self) -> bool:
        """Nothing is to be sent: look after the connection, if there is one. Whether there is. Raises NotTakenError."""
        return False

    def close(self) -> None:
        """Called once, at the end."""


class CaptionSender:
    """Brings lines to `service`. Everything public may be called from any thread; only `join` waits.

    `tell` is told in a line, in the service's thread, what people should know.
    """

    def __init__(self, service: CaptionService, tell: Callable[[str], None] = lambda detail: None) -> None:
        self.service, self._tell = service, tell
        self.left_out = 0  # lines that came too late for the service
        self._changed = threading.Condition()
        self._waiting: deque[Line] = deque()
        self._batch: Lines = ()  # what is being sent
        self._not_before_s = 0.0
        self._backoff = Backoff()
        self._said = ""  # the trouble that people know of
        self._failing = False  # that trouble is that it cannot be reached, or refuses
        self._ending = self._given_up = False
        self._thread = threading.Thread(target=self._top, name=f"captions-{service.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, line: Line) -> None:
        """Queue a line; never waits."""
        with self._changed:
            self._waiting.append(line)
            if len(self._waiting) > LIMIT_LINES:
                self._waiting.popleft()
                self.left_out += 1
            self._changed.notify()

    def finish(self) -> None:
        """Nothing more comes: what waits is tried once more, without rests; then the thread ends."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end after `finish`; False when it did not come in time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _top(self) -> None:
        try:
            while (lines := self._next()) is not None:
                self._attempt(lines)
            if last := len(self._batch) + len(self._waiting):
                log.warning("%s: the last %d lines were not taken", self.service.name, last)
        except Exception as error:  # noqa: BLE001 - the top of the thread; the text of an error may hold an address
            log.error("%s: captions end: unexpected %s", self.service.name, type(error).__name__)
            self._tell(f"{self.service.name}: captions end after an error")
        finally:
            self.service.close()

    def _next(self) -> Lines | None:
        """Wait for what is to be sent next; (): nothing, it is time to look after the connection; None: the end."""
        with self._changed:
            look_at_s = time.monotonic() + LOOK_S
            while True:
                now_s = time.monotonic()
                self._leave_out(now_s)
                work = bool(self._batch or self._waiting)
                if self._ending and (self._given_up or not work):
                    return None
                rested = now_s >= self._not_before_s or self._ending
                if rested and work:
                    if not self._batch:
                        count = min(self.service.at_once, len(self._waiting))
                        self._batch = tuple(self._waiting.popleft() for _ in range(count))
                    return self._batch
                if rested and now_s >= look_at_s:
                    return ()
                until_s = self._not_before_s if work else max(look_at_s, self._not_before_s)
                self._changed.wait(max(until_s - now_s, 0.0))

    def _leave_out(self, now_s: float) -> None:
        oldest_s = now_s - self.service.late_s
        if self._batch and self._batch[-1].made_s < oldest_s:
            self.left_out += len(self._batch)
            self._batch = ()
        while self._waiting and self._waiting[0].made_s < oldest_s:
            self._waiting.popleft()
            self.left_out += 1

    def _attempt(self, lines: Lines) -> None:
        rest_s, reached = 0.0, True
        try:
            if lines:
                rest_s = self.service.send(lines)
            else:
                reached = self.service.idle()
        except NotTakenError as error:
            self._failed(error)
            return
        except NotWantedError as error:
            self._failing = False
            self._say(str(error))
        else:
            if self._said and (lines or (reached and self._failing)):
                self._well_again("captions are taken" if lines else "it is there")
        if reached:
            self._backoff.went_well()
        with self._changed:
            self._batch = ()
            self._not_before_s = time.monotonic() + rest_s

    def _failed(self, error: NotTakenError) -> None:
        now_s = time.monotonic()
        rest_s = max(self._backoff.rest_s(now_s), min(error.retry_after_s or 0.0, ASKED_MAX_S))
        with self._changed:
            self._not_before_s = now_s + rest_s
            self._given_up = self._ending
        self._failing = True
        self._say(f"captions are not taken: {error}; trying again")

    def _well_again(self, what: str) -> None:
        with self._changed:
            left_out, self.left_out = self.left_out, 0
        self._say(what + (f"; {left_out} lines came too late and were left out" if left_out else ""))
        self._said, self._failing = "", False

    def _say(self, what: str) -> None:
        if what != self._said:
            self._said = what
            log.warning("%s: %s", self.service.name, what)
            self._tell(f"{self.service.name}: {what}")
