"""Transcripts that are kept on disk: in one folder, a text file for each session and day, with the times of day.

`2026-11-29 kitchen.txt` holds lines such as `20:18:05 The bread is in the oven.`; a source with a name of its own that
is heard again on the same day writes on in it. A file is open while its session makes events. Nothing is deleted: a day
of talk is less than 1 MB.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from streamer.errors import UsageError
from streamer.events import Event, Status
from streamer.output.captions import PlainLines
from streamer.output.event_file import EventFile

OPTION = "output.transcripts"


@dataclass(slots=True)
class _Open:
    """A session's file of one day. `opened_s`: Unix time of the session's beginning, as its newest event says."""

    date: str
    file: EventFile
    opened_s: float


class DailyFiles:
    """The files of one folder. Not for several threads; UsageError from the constructor: it cannot be written."""

    def __init__(self, folder: str, now: Callable[[], float] = time.time) -> None:
        self._folder, self._now = Path(folder).expanduser(), now
        self._open: dict[str, _Open] = {}
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{OPTION} {folder}: cannot be made: {error.strerror}; give a folder") from None
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise UsageError(f"{OPTION} {folder}: cannot be written; give a folder of your own")

    def file_for(self, event: Event) -> tuple[EventFile, EventFile | None]:
        """The file of an event's session, and the one of the day before, which is to be closed."""
        now_s = self._now()
        date, opened_s = time.strftime("%Y-%m-%d", time.localtime(now_s)), now_s - event.audio_t
        current = self._open.get(event.session)
        if current is not None and current.date == date:
            current.opened_s = opened_s
            return current.file, None

        def stamp(start: float) -> str:
            return time.strftime("%H:%M:%S ", time.localtime(made.opened_s + start))

        path = self._folder / f"{date} {event.session}.txt"
        made = _Open(date, EventFile(str(path), "text", OPTION, onto=PlainLines(stamp)), opened_s)
        self._open[event.session] = made
        return made.file, current.file if current is not None else None

    def ended(self, event: Event) -> EventFile | None:
        """The file that is to be closed because its session is over with this event."""
        if not (isinstance(event, Status) and event.state == "stopped"):
            return None
        current = self._open.pop(event.session, None)
        return current.file if current is not None else None

    def all(self) -> list[EventFile]:
        """Those that are open."""
        return [item.file for item in self._open.values()]
