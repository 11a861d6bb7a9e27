"""Keeps the times of day on the pages right: a sound card's second is not the clock's.

0.005 % are a usual error: four seconds a day, and minutes over the months that somebody leaves the program on. Owned by
the main thread.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from streamer.runtime.pipeline import Pipeline
from streamer.server.messages import SessionInfo

OFF_S = 5.0  # so far off, and clients are told anew when the session began
HEARD_S = 1.0  # since sound came: while it stays away, nobody knows where the session is


class TimesOfDay:
    """`describe` tells clients what is known of a session; `wall`: Unix time."""

    def __init__(self, describe: Callable[[SessionInfo], None], wall: Callable[[], float] = time.time) -> None:
        self._describe, self._wall = describe, wall
        self._told: dict[str, SessionInfo] = {}

    def tell(self, info: SessionInfo) -> None:
        """What clients are told of a session from now on."""
        self._told[info.session] = info
        self._describe(info)

    def look(self, pipelines: Iterable[Pipeline]) -> None:
        """Tell anew what is too far off by now: times near the present are right again, old ones are not touched."""
        for pipeline in pipelines:
            info = self._told.get(pipeline.name)
            if info is None or info.opened_at is None or pipeline.last_audio_age_s > HEARD_S:
                continue
            opened_at = self._wall() - pipeline.captured_s
            if abs(opened_at - info.opened_at) > OFF_S:
                self.tell(replace(info, opened_at=opened_at))
