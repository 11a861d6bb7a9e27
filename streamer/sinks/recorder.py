"""The history as a target of a delivery: it writes each alert down, and the sound around it where people want that.

Runs in its delivery's thread, so that a slow disk delays nobody.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from streamer.alert_clips import ClipRing, TappedSource, limit_folder, write_wav
from streamer.alert_history import AlertHistory
from streamer.audio.block import Source
from streamer.delivery_settings import HistorySettings
from streamer.events import SAMPLE_RATE, Alert
from streamer.sinks.delivery import NotDeliveredError
from streamer.sinks.parcels import Parcel

LOOK_S = 0.5  # how often we look whether the sound after an alert is there
MAX_RINGS = 64  # streams whose sound is kept; the oldest that ended go


@dataclass(frozen=True, slots=True)
class _Due:
    """A clip to cut when its sound is there."""

    number: int
    ring: ClipRing
    start: int
    end: int


class Recorder:
    """Writes `history`. `wall`: Unix time."""

    name = "history"

    def __init__(self, history: AlertHistory, settings: HistorySettings, wall: Callable[[], float] = time.time) -> None:
        self._history, self._settings, self._wall = history, settings, wall
        self._lock = threading.Lock()
        self._rings: dict[str, ClipRing] = {}
        self._due: list[_Due] = []

    @property
    def tick_s(self) -> float | None:
        """Clips are looked after so often."""
        return LOOK_S if self._settings.clips else None

    def tap(self, session: str, source: Source) -> Source:
        """The source, with its last seconds kept if clips are wanted."""
        if not self._settings.clips:
            return source
        with self._lock:
            ended = [name for name, ring in self._rings.items() if ring.ended]
            for name in ended[: max(0, len(self._rings) + 1 - MAX_RINGS)]:
                del self._rings[name]
            ring = self._rings[session] = ClipRing()
        return TappedSource(source, ring)

    def start(self) -> None:
        """Nothing to start."""

    def send(self, parcel: Parcel) -> None:
        """Write a change of an alert down. Raises NotDeliveredError."""
        try:
            number = self._history.append(parcel.alert, parcel.made_at)
        except OSError as error:
            raise NotDeliveredError(error.strerror or type(error).__name__) from None
        if parcel.alert.state == "raised":
            self._plan(number, parcel.alert)

    def tick(self) -> None:
        """Write the clips whose sound is there. Raises NotDeliveredError."""
        ready = [due for due in self._due if due.ring.end >= due.end or due.ring.ended]
        self._due = [due for due in self._due if due not in ready]
        for due in ready:
            self._cut(due)

    def close(self) -> None:
        """Write what there is of the clips that still wait for sound."""
        for due in self._due:
            self._cut(due)
        self._due = []

    def _plan(self, number: int, alert: Alert) -> None:
        with self._lock:
            ring = self._rings.get(alert.session)
        if ring is None:
            return
        start = round((alert.start - self._settings.clip_before_s) * SAMPLE_RATE)
        end = round((alert.audio_t + self._settings.clip_after_s) * SAMPLE_RATE)
        self._due.append(_Due(number, ring, max(0, start), end))

    def _cut(self, due: _Due) -> None:
        samples = due.ring.cut(due.start, due.end)
        if not len(samples):
            return
        folder = self._history.path.parent / "clips"
        try:
            write_wav(folder / f"{due.number:06d}.wav", samples)
            limit_folder(folder, round(self._settings.clips_max_mb * 1e6))
            self._history.add_clip(due.number, f"clips/{due.number:06d}.wav", self._wall())
        except OSError as error:
            raise NotDeliveredError(error.strerror or type(error).__name__) from None
