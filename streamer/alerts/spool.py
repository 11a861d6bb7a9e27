"""Parcels on disk until they are delivered: one small file each, written whole or not at all, for this user only.

A spool is a folder that one process holds at a time (a lock file says so). A second process with the same settings
gets a folder of its own beside it; whoever starts next takes over what a process that is gone left behind.
"""

import contextlib
import fcntl
import json
import logging
import os
from pathlib import Path

from streamer.alerts.parcels import Parcel, read_alert
from streamer.errors import ConfigError

log = logging.getLogger(__name__)

MAX_PROCESSES = 16  # with the same spool
_SUFFIX = ".json"


class Spool:
    """The folder of one target. Not for several threads at once."""

    def __init__(self, root: Path, name: str) -> None:
        """Hold a folder under `root`. ConfigError where none can be made or written."""
        self._lock = -1
        try:
            for number in range(1, MAX_PROCESSES + 1):
                folder = root / (name if number == 1 else f"{name}.{number}")
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
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
            found.append((Parcel(int(path.stem), alert, str(data["key"]), float(data["made_at"])), path))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("delivery.spool: %s cannot be read and stays aside: %s", path, type(error).__name__)
            with contextlib.suppress(OSError):
                path.rename(path.with_suffix(".bad"))
    return found


def _hold(folder: Path) -> int | None:
    """The descriptor of the folder's lock, or None while another process holds it."""
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
