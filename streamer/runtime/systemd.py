"""What systemd is told, where it started us (`Type=notify`): that we listen, that we are alive, that we end.

Datagrams to the socket in NOTIFY_SOCKET, as in sd_notify(3); without one nothing is done. Owned by the main thread.
"""

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)

START_MORE_S = 120  # how much longer a start may take, from each sign on that it gets on (a download takes minutes)


class Systemd:
    """The way to it, as the environment says."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        found = os.environ if environment is None else environment
        path = found.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path  # @: an abstract name
        wanted = (
            found.get("WATCHDOG_USEC", "") if found.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()) else ""
        )
        self._every_s = int(wanted) / 2e6 if wanted.isdigit() else float("inf")  # twice as often as is asked for
        self._beat_s = float("-inf")

    def starting(self, what: str) -> None:
        """The start gets on."""
        self._send(f"STATUS={what}", f"EXTEND_TIMEOUT_USEC={START_MORE_S * 1_000_000}")

    def ready(self) -> None:
        """We listen."""
        self._send("READY=1", "STATUS=listening")

    def alive(self, now_s: float) -> None:
        """All is well at `now_s`; said as often as is asked for."""
        if now_s - self._beat_s >= self._every_s:
            self._beat_s = now_s
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """We are about to end."""
        self._send("STOPPING=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
                way.settimeout(1.0)
                way.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.warning("systemd cannot be told: %s", error)
