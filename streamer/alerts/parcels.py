"""Alerts that wait to be delivered to one target: the queue, what goes when too many wait, and the spool on disk.

The queue is pure: no threads, files or clock. `put` takes an alert's change in, `take` hands out what is next, `done`,
`back` or `abandon` says what became of it. The most severe goes first, otherwise the oldest; changes of one alert keep
their order, and of one alert only one change is out at a time.

Full-queue rule. When more than `limit` wait:
1. the oldest `updated` or `acknowledged` goes (later changes say more);
2. else the least severe and oldest alert whose `raised` still waits goes as a whole, so that nobody is told of the end
   of something whose beginning was never told; what comes of it later goes too;
3. else (all that wait are ends of alerts that were delivered as raised) nothing goes. Every rule has at most one alert
   that stands, so no more can wait beyond the limit than alerts stand.
Whoever calls `put` says in the log what went.

The spool keeps parcels until they are delivered: one small file each, written whole or not at all, for this user only.
It is a folder that one process holds at a time (a lock file says so). A second process with the same settings gets a
folder of its own beside it; whoever starts next takes over what a process that is gone left behind.
"""

import contextlib
import json
import logging
import math
import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from streamer.errors import ConfigError
from streamer.events import SEVERITY_RANK, WITHDRAWN, Alert, read_event
from streamer.settings.deliveries import make_private

log = logging.getLogger(__name__)

MAX_PROCESSES = 16  # with the same spool
_SUFFIX = ".json"
_PASSING = ("updated", "acknowledged")
AlertKey = tuple[str, int]  # session, id


@dataclass(frozen=True, slots=True)
class Parcel:
    """One change of an alert on its way. `number`: order of arrival; `made_at`: Unix time; `key`: see `parcel_key`."""

    number: int
    alert: Alert
    key: str
    made_at: float

    @property
    def alert_key(self) -> AlertKey:
        """Which alert it belongs to."""
        return (self.alert.session, self.alert.id)


def parcel_key(alert: Alert, run: str | None = None) -> str:
    """What a receiver knows a repeated delivery by: `session:id:state`, with the event's number where states repeat.

    `run` takes the session's place, or stands before it, where the session's name is the same in every run.
    """
    session = alert.session
    if run is not None:
        session = run if run.startswith(f"{session}-") else f"{run}:{session}"
    key = f"{session}:{alert.id}:{alert.state}"
    return f"{key}:{alert.seq}" if alert.state == "updated" else key


def read_alert(data: dict[str, Any]) -> Alert:
    """The alert of an event's JSON form. Raises KeyError, TypeError or ValueError where it is none."""
    event = read_event(data)
    if not isinstance(event, Alert):
        raise ValueError(f"type: must be alert, is {data['type']!r}")
    return event


def without_words(alert: Alert, spoken: Collection[str]) -> Alert:
    """The alert without what was said. `spoken`: the rules for words, whose labels are what was said too."""
    labels = tuple(label for label in alert.labels if label == WITHDRAWN) if alert.rule in spoken else alert.labels
    return replace(alert, text="", labels=labels)


class AlertQueue:
    """The parcels of one target, oldest first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parcels: dict[int, Parcel] = {}
        self._out: dict[AlertKey, int] = {}
        self._dropped: set[AlertKey] = set()

    def __len__(self) -> int:
        return len(self._parcels)

    def put(self, parcel: Parcel) -> list[Parcel]:
        """Take a parcel in; the parcels that went for it (perhaps itself)."""
        key = parcel.alert_key
        if key in self._dropped:
            if parcel.alert.state == "cleared":
                self._dropped.discard(key)
            return []
        self._parcels[parcel.number] = parcel
        return self._make_room() if len(self._parcels) > self._limit else []

    def forget(self, key: AlertKey) -> None:
        """The alert is over and nothing more will be put of it."""
        self._dropped.discard(key)

    def take(self) -> Parcel | None:
        """The next parcel, which is out until `done`, `back` or `abandon`; None: nothing, or all alerts are out."""
        best: Parcel | None = None
        seen: set[AlertKey] = set()
        for parcel in self._parcels.values():
            if parcel.alert_key in self._out or parcel.alert_key in seen:
                continue
            seen.add(parcel.alert_key)  # only the oldest of each alert
            if best is None or SEVERITY_RANK[parcel.alert.severity] > SEVERITY_RANK[best.alert.severity]:
                best = parcel
        if best is not None:
            self._out[best.alert_key] = best.number
        return best

    def done(self, parcel: Parcel) -> None:
        """It was delivered."""
        self._parcels.pop(parcel.number, None)
        self._out.pop(parcel.alert_key, None)

    def back(self, parcel: Parcel) -> None:
        """It was not delivered and waits again, at its place."""
        self._out.pop(parcel.alert_key, None)

    def abandon(self, parcel: Parcel) -> list[Parcel]:
        """It will never be delivered. What went: it alone, or with its `raised` the whole alert."""
        self._out.pop(parcel.alert_key, None)
        return self._drop_alert(parcel.alert_key) if parcel.alert.state == "raised" else self._drop([parcel])

    def _make_room(self) -> list[Parcel]:
        free = [parcel for parcel in self._parcels.values() if self._out.get(parcel.alert_key) != parcel.number]
        for parcel in free:
            if parcel.alert.state in _PASSING:
                return self._drop([parcel])
        raised = [parcel for parcel in free if parcel.alert.state == "raised"]
        if not raised:
            return []
        victim = min(raised, key=lambda parcel: (SEVERITY_RANK[parcel.alert.severity], parcel.number))
        return self._drop_alert(victim.alert_key)

    def _drop_alert(self, key: AlertKey) -> list[Parcel]:
        gone = self._drop([parcel for parcel in self._parcels.values() if parcel.alert_key == key])
        if not any(parcel.alert.state == "cleared" for parcel in gone):
            self._dropped.add(key)
        return gone

    def _drop(self, parcels: list[Parcel]) -> list[Parcel]:
        for parcel in parcels:
            del self._parcels[parcel.number]
        return parcels


class Spool:
    """The folder of one target. Not for several threads at once."""

    def __init__(self, root: Path, name: str) -> None:
        """Hold a folder under `root`. ConfigError where none can be made or written."""
        self._lock = -1
        try:
            for number in range(1, MAX_PROCESSES + 1):
                folder = root / (name if number == 1 else f"{name}.{number}")
                make_private(folder)
                if (lock := _hold(folder)) is not None:
                    self._folder, self._lock = folder, lock
                    break
            else:
                raise ConfigError(f"delivery.spool: {root / name}: {MAX_PROCESSES} processes use it already")
            self._adopt(root, name)
        except OSError as error:
            raise ConfigError(f"delivery.spool: {root}: cannot be used: {error.strerror}; name another") from None

    def left(self) -> list[Parcel]:
        """What earlier runs did not deliver, oldest first; the next parcel's number must be higher than theirs."""
        return [parcel for parcel, _ in _read(self._folder)]

    def keep(self, parcel: Parcel) -> None:
        """Write a parcel; it is on the disk when this returns. Raises OSError."""
        data = {"key": parcel.key, "made_at": parcel.made_at, "event": parcel.alert.to_dict()}
        path = self._path(parcel)
        begun = path.with_suffix(".tmp")
        descriptor = os.open(begun, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(data, file, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        begun.replace(path)

    def remove(self, parcel: Parcel) -> None:
        """It was delivered or given up; nothing happens where it never was written. Raises OSError."""
        self._path(parcel).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the folder; any number of times."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _path(self, parcel: Parcel) -> Path:
        return self._folder / f"{parcel.number:012d}{_SUFFIX}"

    def _adopt(self, root: Path, name: str) -> None:
        """Take over what processes that are gone left in their folders."""
        number = max((parcel.number for parcel in self.left()), default=0)
        for folder in (root / name, *sorted(root.glob(f"{name}.[0-9]*"))):
            if folder == self._folder or not folder.is_dir() or (lock := _hold(folder)) is None:
                continue
            for _, path in _read(folder):
                number += 1
                path.rename(self._folder / f"{number:012d}{_SUFFIX}")
            os.close(lock)


def _read(folder: Path) -> list[tuple[Parcel, Path]]:
    """The parcels in a folder and their files, oldest first; what is none is said and stays aside."""
    found = []
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            alert = read_alert(data["event"])
            made_at = float(data["made_at"])
            if not math.isfinite(made_at):
                raise ValueError("made_at: must be finite")
            found.append((Parcel(int(path.stem), alert, str(data["key"]), made_at), path))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            log.warning("delivery.spool: %s cannot be read and stays aside: %s", path, type(error).__name__)
            with contextlib.suppress(OSError):
                path.rename(path.with_suffix(".bad"))
    return found


def _hold(folder: Path) -> int | None:
    """The descriptor of the folder's lock, or None while another process holds it."""
    import fcntl  # Windows has none, and no webhooks

    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
