"""One delivery: the bounded queue and the threads that bring alerts to one target, so that none delays another.

    worker thread ── put (never waits) ──► AlertQueue ──► delivery thread(s) ── Target.send ──► a service
                                             │ clerk thread (only with a spool)
                                             └──► disk

`put` is called by the thread that makes events. The clerk writes parcels to the spool while a sender may be waiting for
an answer. A target that fails is tried again with growing pauses (a random part of them, so that many clients of one
service do not come back all at once), sooner when a critical alert is raised: it may be there again. One that hangs
holds up its own queue and nothing else. The full-queue rule stands in `streamer.alerts.parcels`; what goes is said in
the log. Whoever relies on it reads no log: what is wrong, and that it is well again, is told to `on_trouble` too. A
sender that fails is started again, after a while that grows.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Literal

from streamer.alerts.parcels import AlertQueue, Parcel, Spool, parcel_key
from streamer.errors import Backoff, Rests
from streamer.events import Alert

log = logging.getLogger(__name__)

WAIT_S = 3600.0  # longest wait without a reason to wake
FAULTS_MAX = 3  # unexpected errors with one parcel
SECONDS = Rests(first_s=1.0)  # for who asks for nothing else


class NotDeliveredError(Exception):
    """It was not delivered now; try again, after `retry_after_s` if the service said so. The text holds no secret."""

    def __init__(self, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class RefusedError(Exception):
    """It will never be delivered, trying again is no use. The text holds no secret."""


class Target:
    """What brings one parcel to one service. `send` may wait as long as the target's own time limit.

    `name`: what log lines call it, without a secret; `place`: the service or host behind it, for whoever tries it out.
    `tick_s`: how often `tick` is called, in seconds; None: never.
    """

    name: str
    place: str = ""
    tick_s: float | None = None

    def start(self) -> None:
        """Called once, in the delivery's thread."""

    def send(self, parcel: Parcel) -> None:
        """Deliver. Raises NotDeliveredError, RefusedError."""
        raise NotImplementedError

    def tick(self) -> None:
        """Say again what must not be forgotten. Raises NotDeliveredError."""

    def close(self) -> None:
        """Called once, after the last `send`."""


class Delivery:
    """Brings alerts to `target`. Everything public may be called from any thread.

    `limit`: so many wait; `wanted`: which changes the target gets; `senders`: threads that send (of one alert one
    change at a time); `give_up_s`: older alerts are given up; `run`: see `parcel_key`; `wall`: Unix time.
    """

    def __init__(
        self,
        target: Target,
        *,
        limit: int,
        wanted: Callable[[Alert], bool] = lambda alert: True,
        rests: Rests = SECONDS,
        spool: Spool | None = None,
        senders: int = 1,
        give_up_s: float | None = None,
        run: str | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.target = target
        self.dropped = 0  # parcels that went because the queue was full, or were given up
        # Told why alerts do not arrive, "" when they do again; called by a sender, without the lock.
        self.on_trouble: Callable[[str], None] = lambda why: None
        self._wanted, self._rests, self._spool = wanted, rests, spool
        self._give_up_s, self._run_name, self._wall = give_up_s, run, wall
        self._changed = threading.Condition()
        self._queue = AlertQueue(limit)
        self._number = 0
        self._to_keep: dict[int, Parcel] = {}  # on disk, by the clerk
        self._to_remove: dict[int, Parcel] = {}  # from there
        self._failures = 0
        self._not_before = 0.0
        self._soonest = 0.0  # the earliest that a critical alert may have it tried again
        self._ticked = time.monotonic()
        self._ending = False
        self._sending = senders
        self._faults: tuple[int, int] = (0, 0)  # number of a parcel, unexpected errors with it
        self._troubles: dict[Literal["send", "tick"], str] = {}  # what the last attempt failed for
        self._senders = [
            threading.Thread(target=self._send_to_the_end, name=f"delivery-{target.name}", daemon=True)
            for _ in range(senders)
        ]
        if spool is not None:
            self._take_up(spool.left())
        self._clerk = threading.Thread(target=self._clerk_top, name=f"clerk-{target.name}", daemon=True)

    def start(self) -> None:
        """Start the threads."""
        if self._spool is not None:
            self._clerk.start()
        for thread in self._senders:
            thread.start()

    @property
    def name(self) -> str:
        """What log lines call it."""
        return self.target.name

    @property
    def waiting(self) -> int:
        """How many parcels wait or are under way."""
        with self._changed:
            return len(self._queue)

    def put(self, alert: Alert) -> None:
        """Queue one change of an alert, if it is wanted; never waits."""
        with self._changed:
            if not self._wanted(alert):
                if alert.state == "cleared":
                    self._queue.forget((alert.session, alert.id))
                return
            if alert.severity == "critical" and alert.state == "raised":  # it may be there again: no long pause now
                self._not_before = min(self._not_before, self._soonest)
            self._number += 1
            parcel = Parcel(self._number, alert, parcel_key(alert, self._run_name), self._wall())
            if self._spool is not None:
                self._to_keep[parcel.number] = parcel
            self._say_gone(self._queue.put(parcel))
            self._changed.notify_all()

    def wake(self) -> None:
        """Try and refresh at once: the service is there again."""
        with self._changed:
            self._not_before, self._ticked = 0.0, -WAIT_S
            self._changed.notify_all()

    def finish(self) -> None:
        """Nothing more comes: what waits is tried once more without pauses, then the threads end."""
        with self._changed:
            self._ending = True
            self._not_before = 0.0
            self._changed.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end after `finish`; False when it did not come in time. Says what was not delivered."""
        until = time.monotonic() + timeout_s
        for thread in (*self._senders, *([self._clerk] if self._spool else [])):
            thread.join(max(0.0, until - time.monotonic()))
        ended = not any(thread.is_alive() for thread in (*self._senders, self._clerk))
        if waiting := self.waiting:
            later = "they stay on disk for the next run" if self._spool else "they are lost"
            log.warning("%s: %d alerts were not delivered; %s", self.name, waiting, later)
        if ended:
            self.target.close()
            if self._spool is not None:
                self._spool.close()
        return ended

    def _take_up(self, left: Iterable[Parcel]) -> None:
        """What an earlier run did not deliver comes first."""
        for parcel in left:
            self._number = max(self._number, parcel.number)
            self._say_gone(self._queue.put(parcel))
        if self._queue:
            log.warning("%s: %d alerts of an earlier run are still to be delivered", self.name, len(self._queue))

    def _clerk_top(self) -> None:
        try:
            self._keep_and_remove()
        except Exception as error:  # noqa: BLE001  the top of the thread
            log.error("%s: nothing is kept on disk any more: %s", self.name, fault(error))

    def _send_to_the_end(self) -> None:
        backoff = Backoff()
        try:
            while not self._send_all(backoff):
                pass
        finally:
            with self._changed:
                self._sending -= 1
                self._changed.notify_all()

    def _send_all(self, backoff: Backoff) -> bool:
        """Send until the end; False: it failed for no reason of the service's, and is to be tried again now."""
        try:
            if threading.current_thread() is self._senders[0]:
                self.target.start()
            while (work := self._next()) is not None:
                if isinstance(work, Parcel):
                    self._attempt(work)
                else:
                    self._tick()
        except Exception as error:  # noqa: BLE001  the top of the thread
            rest_s = backoff.rest_s(time.monotonic())
            log.error("%s: failed: %s; it is started again in %g s", self.name, fault(error), rest_s)
            self._tell("send", f"unexpected {fault(error)}")
            with self._changed:
                return self._changed.wait_for(lambda: self._ending, rest_s)
        return True

    def _next(self) -> Parcel | bool | None:
        """Wait for the next parcel; True: a tick is due; None: the end."""
        with self._changed:
            while True:
                now = time.monotonic()
                if now >= self._not_before and (parcel := self._queue.take()) is not None:
                    return parcel
                if self._ending and (self._failures or not self._queue):
                    return None
                every = self.target.tick_s
                due = WAIT_S if every is None else self._ticked + every - now
                if due <= 0 and not self._ending:
                    self._ticked = now
                    return True
                waits_s = (due, self._not_before - now, WAIT_S)
                self._changed.wait(min(wait_s for wait_s in waits_s if wait_s > 0))

    def _tick(self) -> None:
        try:
            self.target.tick()
        except NotDeliveredError as error:
            log.debug("%s: not refreshed: %s", self.name, error)
            self._tell("tick", str(error))
        except Exception as error:  # noqa: BLE001  as in _attempt
            log.error("%s: not refreshed: unexpected %s", self.name, fault(error))
            self._tell("tick", f"unexpected {fault(error)}")
        else:
            self._tell("tick", "")

    def _tell(self, what: Literal["send", "tick"], why: str) -> None:
        """What the last attempt failed for, "" for nothing: told where that is news."""
        with self._changed:
            before = next(iter(self._troubles.values()), "")
            self._troubles.pop(what, None)
            if why:
                self._troubles[what] = why
            now = next(iter(self._troubles.values()), "")
        if now != before:
            self.on_trouble(now)

    def _attempt(self, parcel: Parcel) -> None:
        late = self._give_up_s is not None and self._wall() - parcel.made_at > self._give_up_s
        try:
            if late:
                raise RefusedError(f"it is older than {self._give_up_s:g} s")
            self.target.send(parcel)
        except RefusedError as error:
            self._abandon(parcel, str(error))
            self._tell("send", str(error))
        except NotDeliveredError as error:
            self._failed(parcel, str(error), error.retry_after_s)
            self._tell("send", str(error))
        except Exception as error:  # noqa: BLE001  a target's own fault must not end the deliveries to it
            log.debug("%s: %s", self.name, fault(error))
            self._fault(parcel, f"unexpected {fault(error)}")
            self._tell("send", f"unexpected {fault(error)}")
        else:
            self._delivered(parcel)
            self._tell("send", "")

    def _fault(self, parcel: Parcel, why: str) -> None:
        """Not the service but we (or its library) failed: a few times more, then it would only block the others."""
        number, count = self._faults
        self._faults = (parcel.number, count + 1 if number == parcel.number else 1)
        if self._faults[1] >= FAULTS_MAX:
            self._abandon(parcel, why)
        else:
            self._failed(parcel, why, None)

    def _abandon(self, parcel: Parcel, why: str) -> None:
        with self._changed:
            self._say_gone(self._queue.abandon(parcel), why)
            self._changed.notify_all()

    def _delivered(self, parcel: Parcel) -> None:
        with self._changed:
            self._queue.done(parcel)
            self._is_gone([parcel])
            if self._failures:
                log.warning("%s: delivers again; %d wait", self.name, len(self._queue))
            self._failures, self._not_before = 0, 0.0
            self._changed.notify_all()

    def _failed(self, parcel: Parcel, why: str, asked_s: float | None) -> None:
        with self._changed:
            self._queue.back(parcel)
            self._failures += 1
            if self._failures == 1:
                log.warning("%s: not delivered: %s; trying again, %d wait", self.name, why, len(self._queue))
            pause_s = self._rests.rest_s(self._failures, random.random(), asked_s)
            now = time.monotonic()
            self._not_before = now + pause_s
            self._soonest = now + min(pause_s, max(self._rests.first_s, asked_s or 0.0))
            self._changed.notify_all()

    def _say_gone(self, gone: Iterable[Parcel], why: str = "too many wait") -> None:
        gone = list(gone)
        for parcel in gone:
            alert = parcel.alert
            what = f"{alert.severity} alert {alert.rule} {alert.state}"
            log.error("%s: %s is not delivered: %s", self.name, what, why)
        self.dropped += len(gone)
        self._is_gone(gone)

    def _is_gone(self, parcels: Iterable[Parcel]) -> None:
        """Nothing of these is to stay on disk; what was not written yet never is."""
        if self._spool is not None:
            for parcel in parcels:
                if self._to_keep.pop(parcel.number, None) is None:
                    self._to_remove[parcel.number] = parcel

    def _keep_and_remove(self) -> None:
        """The clerk: keeps what was put, removes what was delivered."""
        assert self._spool is not None
        broken = False
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._to_keep or self._to_remove or (self._ending and not self._sending))
                if not (self._to_keep or self._to_remove):
                    return
                work = [(self._spool.keep, parcel) for parcel in self._to_keep.values()]
                work += [(self._spool.remove, parcel) for parcel in self._to_remove.values()]
                self._to_keep, self._to_remove = {}, {}
            for do, parcel in work:
                try:
                    do(parcel)
                    broken = False
                except OSError as error:
                    if not broken:
                        log.error("%s: cannot be kept on disk: %s; going on without", self.name, error.strerror)
                    broken = True


def fault(error: Exception) -> str:
    """The kind and place of an error, without its text, which may hold an address."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" in {trace.tb_frame.f_code.co_qualname}, line {trace.tb_lineno}" if trace is not None else ""
    return type(error).__name__ + place
