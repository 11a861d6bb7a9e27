"""Sessions that another server of a cluster has, shown here to who names them: what brings their events feeds this.

Everything may be called from any thread, and waits for nothing but the lock of the hub.
"""

import threading
from collections.abc import Callable, Sequence

from streamer.events import Event
from streamer.server.hub import Hub
from streamer.server.messages import SessionInfo
from streamer.server.replay import Entry


class MirroredSessions:
    """The hub of one server, for who mirrors sessions into it. `wake`, with the lock held: clients have something."""

    def __init__(self, hub: Hub, lock: threading.Lock, wake: Callable[[], None]) -> None:
        self._hub, self._lock, self._wake = hub, lock, wake

    def has(self, session: str) -> bool:
        """Whether its events come in here already, be it this server's own or mirrored."""
        with self._lock:
            return self._hub.is_live(session) or self._hub.is_mirrored(session)

    def is_own(self, session: str) -> bool:
        """Whether this server has the session itself."""
        with self._lock:
            return self._hub.is_live(session) and not self._hub.is_mirrored(session)

    def is_wanted(self, session: str) -> bool:
        """Whether anybody is here who named it."""
        with self._lock:
            return self._hub.is_named(session)

    def begin(self, info: SessionInfo, events: Sequence[Event], lost_to: int) -> bool:
        """Show a session with all that is kept of it, of which nothing up to `lost_to` is; again where there is a hole.

        False: it is this server's own.
        """
        kept = [Entry.of(event) for event in events]
        with self._lock:
            if self._hub.is_live(info.session) and not self._hub.is_mirrored(info.session):
                return False
            self._hub.open_session(info, kept, lost_to, again=True, mirrored=True)
            self._wake()
        return True

    def add(self, session: str, events: Sequence[Event]) -> bool:
        """What came since. False: it is not mirrored any more, but this server's own."""
        with self._lock:
            mirrored = self._hub.mirror(session, events)
            self._wake()
        return mirrored

    def drop(self, session: str) -> None:
        """Nobody wants it here any more."""
        with self._lock:
            self._hub.drop_mirrored(session)
