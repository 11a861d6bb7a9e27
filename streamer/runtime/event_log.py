"""What every session said, kept on disk (`history.persist`), so that clients go on by `since_seq` after a restart.

One line for each event, a checksum before it:

    9ae0f1c2 1764447478.2 {"v":1,"type":"tags",…}
    0b1c44d0 1764447478.2 {"run":"…","boot":"…","sessions":{"kitchen":{…}}}     at the beginning, and for each start
    55d2e9aa 1764447999.0 {"ended":true}                                        the program ended in order

A line is written before anybody is told of its event, so whoever kills the program (kill -9) finds nothing in a client
that is not here. It is handed to the system and not forced to the disk: that would hold captions up. What a power cut
takes can therefore be missing; a boot of the machine without an end before it, or a line that its checksum does not
fit, gives the numbers a new `run`, by which clients know that they have to begin again.

Bound: two files of half of `history.max_mb` each; the older one goes when the newer is full. A file begins with what
is open in each session then. When the disk is full both files are removed (a later start would give numbers twice),
which the log says, and a new file is tried ever less often. One thread at a time calls in here, under the lock.
"""

import json
import logging
import math
import os
import re
import secrets
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamer.errors import Backoff, ConfigError
from streamer.events import Event, Gap, read_event
from streamer.runtime.opening import Opening
from streamer.runtime.told import Told
from streamer.server.messages import SessionInfo
from streamer.server.replay import Entry
from streamer.server.websocket import ServerThread
from streamer.settings.deliveries import make_private, state_directory
from streamer.settings.server import EventHistorySettings

log = logging.getLogger(__name__)

MB = 1_000_000
OLD_S = 7 * 24 * 3600.0  # nobody waits for what is older: it is removed
MAX_OVER = 4  # sessions that are over and still remembered, as in the hub
AGAIN = "the program was started again"
BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(slots=True)
class Kept:
    """One session as an earlier process left it.

    `entries`: its events, without a hole; those up to `lost_to` are gone. `at`: when the last one was made, Unix time.
    """

    told: Told
    entries: list[Entry] = field(default_factory=list)
    lost_to: int = 0
    at: float = 0.0
    start_s: float = 0.0  # on its clock, where it goes on

    def go_on(self, now: float) -> list[Event]:
        """End what is open, where its audio ended; then the time until now, in which nothing was heard, as a gap.

        The session goes on with whole seconds behind that.
        """
        events = self.told.close(0, "starting", AGAIN)
        start_t, seq = events[-1].audio_t, events[-1].seq + 1
        self.start_s = end_t = float(int(start_t + max(0.0, now - self.at)) + 1)
        gap = Gap(session=self.told.session, seq=seq, audio_t=end_t, start=start_t, end=end_t, reason=AGAIN)
        return [*events, gap]

    def end(self) -> list[Event]:
        """End the session of a sender, who is gone: nothing where it was over."""
        return [] if self.told.over else self.told.close(0, "stopped", AGAIN)


def event_log_paths(settings: EventHistorySettings) -> tuple[Path, Path]:
    """The newer file and the older one."""
    path = state_directory() / "events.log" if settings.path is None else Path(settings.path).expanduser()
    return path, path.with_name(f"{path.name}.1")


class EventLog:
    """The files of one program. `run` names the numbering; `kept`: what there was of each session, by name."""

    def __init__(self, settings: EventHistorySettings, wall: Callable[[], float] = time.time) -> None:
        """Read what there is and go on behind it. ConfigError: it cannot be written, or another program writes it."""
        self.path, self._older = event_log_paths(settings)
        self._half = round(settings.max_mb * MB / 2)
        self._wall, self._lock, self._backoff, self._again_s = wall, threading.Lock(), Backoff(), 0.0
        self._told: dict[str, Told] = {}
        self._fd: int | None = None
        self._size = 0
        try:
            make_private(self.path.parent)
            self._guard: int | None = self._locked()
            self.run, self.kept = self._restore()
            self._told = {name: deepcopy(kept.told) for name, kept in self.kept.items()}
            self._begin()
        except OSError as error:
            why = f"cannot be written: {error.strerror}; name another file"
            raise ConfigError(f"history.path: {self.path}: {why}") from None

    def earlier(self, stem: str) -> str | None:
        """The session of an earlier process that the program's only source, which has no name, goes on with."""
        names = [name for name in self.kept if re.fullmatch(rf"{stem}-\d{{8}}T\d{{6}}", name)]
        return names[-1] if names else None

    def write(self, event: Event) -> None:
        """Keep an event; before anybody is told of it."""
        with self._lock:
            self._told.setdefault(event.session, Told(event.session)).note(event)
            try:
                if self._fd is None and time.monotonic() >= self._again_s:
                    self._begin()
                elif self._fd is not None:
                    self._append(event.to_json())
                    if self._size > self._half:
                        self._turn_over()
            except OSError as error:
                self._give_up(error)

    def close(self) -> None:
        """The program ends in order. Any number of times."""
        with self._lock:
            if self._fd is not None:
                try:
                    self._append('{"ended":true}')
                    os.fsync(self._fd)
                except OSError as error:
                    self._give_up(error)
                    return
                os.close(self._fd)
                self._fd = None
                self._again_s = float("inf")
            if self._guard is not None:
                os.close(self._guard)
                self._guard = None

    def _begin(self) -> None:
        """Open the newer file and say what is so now; an empty one begins with what is open in each session."""
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size
        head: dict[str, Any] = {"run": self.run, "boot": _boot()}
        if not self._size:
            over = [name for name, told in self._told.items() if told.over]
            for name in over[: max(0, len(over) - MAX_OVER)]:
                del self._told[name]
            head["sessions"] = {name: told.to_dict() for name, told in self._told.items()}
        self._append(json.dumps(head, separators=(",", ":")))

    def _append(self, text: str) -> None:
        """One whole line or none. Raises OSError."""
        assert self._fd is not None
        said = f"{self._wall():.1f} {text}".encode("utf-8", "replace")
        line = b"%08x %s\n" % (zlib.crc32(said), said)
        written = os.write(self._fd, line)
        if written < len(line):  # the disk is full
            os.ftruncate(self._fd, self._size)
            raise OSError(28, "no space left on device")
        self._size += written

    def _turn_over(self) -> None:
        assert self._fd is not None
        os.close(self._fd)
        self._fd = None
        os.replace(self.path, self._older)
        self._begin()

    def _give_up(self, error: OSError) -> None:
        """Rather no file than one that lacks what people were told. Tried again later."""
        rest_s = self._backoff.rest_s(time.monotonic())
        self._again_s = time.monotonic() + rest_s
        log.error(
            "history: %s: cannot be written any more: %s; clients begin again after a restart",
            self.path,
            error.strerror,
        )
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        for path in (self.path, self._older):
            try:
                path.unlink(missing_ok=True)
            except OSError as other:
                log.error("history: %s: cannot be removed either: %s", path, other.strerror)

    def _locked(self) -> int:
        """Two programs must not write one history. Where there are no locks, there are none."""
        guard = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            import fcntl

            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(guard)
            raise ConfigError(f"history.path: {self.path}: another program is writing it; name another file") from None
        except (ImportError, OSError):
            pass
        return guard

    def _restore(self) -> tuple[str, dict[str, Kept]]:
        """What stands in both files, and the name of its numbering: another one where something may be missing."""
        reading = _Reading()
        for path in (self._older, self.path):
            reading.good_bytes = 0
            for line in _lines(path):
                reading.take(line)
        if self.path.exists() and self.path.stat().st_size > reading.good_bytes:
            log.warning("history: %s: the last line is not whole and is left out", self.path)
            os.truncate(self.path, reading.good_bytes)  # killed within a line that nobody was told of
        run = reading.run
        old = not run or self._wall() - reading.at > OLD_S
        if old or reading.broken:  # what can be read is served once more; the file begins anew
            self.path.unlink(missing_ok=True)
            self._older.unlink(missing_ok=True)
        if reading.broken:
            log.warning("history: %s: is damaged; what cannot be read is left out, and clients begin again", self.path)
        if old:
            return secrets.token_hex(8), {}
        whole = not reading.broken and (reading.ended or reading.boot == _boot())
        over = [name for name, kept in reading.kept.items() if kept.told.over]
        for name in over[: max(0, len(over) - MAX_OVER)]:
            del reading.kept[name]
        return (run if whole else secrets.token_hex(8)), reading.kept


def say_again(
    kept: Mapping[str, Kept], opening: Opening, server: ServerThread, info: Callable[[str], SessionInfo]
) -> None:
    """Sessions of an earlier process go on, where they are the program's own; those of its senders are over."""
    for name, one in kept.items():
        own = name in opening.told
        if own:
            opening.told[name] = one.told
        else:
            server.open_session(info(name), one.entries, one.lost_to)
        for event in one.go_on(time.time()) if own else one.end():
            opening.say(event)
        if not own:
            server.close_session(name)


class _Reading:
    """Takes the lines of the older file and then those of the newer one."""

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}
        self.run = self.boot = ""
        self.ended = self.broken = False
        self.at = 0.0
        self.good_bytes = 0  # of the newer file, up to the last whole line
        self._torn = False  # the last line so far is not whole

    def take(self, line: "_Line") -> None:
        """Take one line in. Whole lines behind one that is not mean damage, not a death in the middle of a line."""
        if line.data is None:
            self._torn = True
            return
        self.broken, self._torn = self.broken or self._torn, False
        self.good_bytes, self.at = line.end_byte, line.at
        self.ended = "ended" in line.data
        if "run" in line.data:
            self.run, self.boot = str(line.data["run"]), str(line.data.get("boot"))
            for told in line.told:
                kept = self.kept.get(told.session)
                if kept is None or kept.told.seq != told.seq:
                    self.kept[told.session] = Kept(told, lost_to=told.seq, at=line.at)
        elif line.event is not None:
            self._event(line, line.event)

    def _event(self, line: "_Line", event: Event) -> None:
        kept = self.kept.setdefault(event.session, Kept(Told(event.session)))
        if event.seq != kept.told.seq + 1:
            self.broken, kept.lost_to = True, event.seq - 1
            kept.entries.clear()
        kept.told.note(event)
        kept.at = line.at
        kept.entries.append(Entry.of_text(event, line.text))


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a file: what it says and when it was written; `data` None: it is not whole, or says what cannot be.

    `event`: the one that it holds; `told`: what had been said in each session, where a program began.
    """

    data: dict[str, Any] | None
    text: str
    at: float
    end_byte: int
    event: Event | None = None
    told: tuple[Told, ...] = ()


def _lines(path: Path) -> Iterator[_Line]:
    end = 0
    try:
        with path.open("rb") as file:
            for raw in file:
                end += len(raw)
                yield _line(raw, end)
    except FileNotFoundError:
        return


def _line(raw: bytes, end: int) -> _Line:
    checksum, _, said = raw.rstrip(b"\n").partition(b" ")
    try:
        if not raw.endswith(b"\n") or int(checksum, 16) != zlib.crc32(said):
            raise ValueError
        at, _, text = said.decode().partition(" ")
        at_s, data = float(at), json.loads(text)
        if not isinstance(data, dict) or not math.isfinite(at_s):
            raise ValueError
        event = read_event(data) if "type" in data else None
        told = tuple(Told.of_dict(name, one) for name, one in data.get("sessions", {}).items())
        return _Line(data, text, at_s, end, event, told)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return _Line(None, "", 0.0, end)


def _boot() -> str:
    """Which start of the machine this is; elsewhere than on Linux when it was, to some seconds."""
    try:
        return BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return f"{(time.time() - time.monotonic()) / 10:.0f}"
