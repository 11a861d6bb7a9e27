"""Who talks to the program that is tried: somebody who reads along, senders of sound, and strangers.

A `Reader` and a `Sender` are a thread each, with a connection of their own; all else is the caller's.
"""

import json
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage
from websockets.sync.client import ClientConnection, connect

from streamer.events import SAMPLE_RATE

PIECE_S = 0.1
RETRY_S = 0.3
LAG_EVERY_S = 0.5
Away = (OSError, InvalidHandshake, InvalidMessage, ConnectionClosed, TimeoutError, EOFError)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the program listens."""

    port: int
    token: str

    def connect(self, path: str, token: str | None = None) -> ClientConnection:
        """A websocket; raises one of `Away`."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        url = f"ws://127.0.0.1:{self.port}{path}"
        return connect(url, additional_headers=headers, compression=None, open_timeout=10, close_timeout=2)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a page; 0 where nobody answers."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", headers={"Authorization": f"Bearer {self.token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (OSError, ValueError):
            return 0, ""


class Reader:
    """Reads one session's events as a client that must miss none: it comes back with `since_seq`, whatever happens.

    `events`: each once, in order of their numbers. `gaps`: what the server said that it no longer has. `runs`: names of
    numberings. `repeated`: numbers that came twice, although they must not.
    """

    def __init__(self, place: Place, session: str) -> None:
        self._place, self._session = place, session
        self.events: list[dict[str, Any]] = []
        self.gaps: list[dict[str, Any]] = []
        self.runs: list[str] = []
        self.repeated: list[int] = []
        self.connections = 0
        self._at: list[float] = []  # when each event came
        self._came = threading.Condition()
        self._ended = False
        self._socket: ClientConnection | None = None
        self._thread = threading.Thread(target=self._run, name=f"reader-{session}", daemon=True)
        self._thread.start()

    @property
    def count(self) -> int:
        """How many events came so far."""
        with self._came:
            return len(self.events)

    def count_at(self, at_s: float) -> int:
        """How many events had come at a time that `wait_for` gave, that one included."""
        with self._came:
            return bisect_right(self._at, at_s)

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], since: int, timeout_s: float) -> float | None:
        """The time at which the first such event behind the first `since` came; None: none did in time."""

        def found() -> float | None:
            places = range(since, len(self.events))
            return next((self._at[place] for place in places if wanted(self.events[place])), None)

        with self._came:
            return self._came.wait_for(found, timeout_s)

    def reset(self) -> None:
        """Cut the connection off without a word (RST)."""
        if self._socket is not None:
            cut(self._socket)

    def end(self) -> None:
        """Read no more."""
        self._ended = True
        if self._socket is not None:
            self._socket.close()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._ended:
            try:
                with self._place.connect(f"/ws?session={self._session}&since_seq={self._newest()}") as connection:
                    self._socket = connection
                    self.connections += 1
                    for text in connection:
                        self._take(json.loads(text))
            except Away:
                pass
            if not self._ended:
                time.sleep(RETRY_S)

    def _newest(self) -> int:
        return int(self.events[-1]["seq"]) if self.events else 0

    def _take(self, message: dict[str, Any]) -> None:
        with self._came:
            match message:
                case {"type": "hello"}:
                    if message["run"] not in self.runs:
                        self.runs.append(message["run"])
                case {"type": "gap", "kind": "events"}:
                    self.gaps.append(message)
                case {"seq": int(seq)}:
                    if seq <= self._newest():
                        self.repeated.append(seq)
                    else:
                        self.events.append(message)
                        self._at.append(time.monotonic())
            self._came.notify_all()


class Lags:
    """Asks `/metrics` twice a second how far a session is behind: heartbeats, every 5 s, miss what comes and goes."""

    def __init__(self, place: Place, session: str) -> None:
        self._place, self._line = place, f'streamer_session_lag_seconds{{session="{session}"}} '
        self.rows: list[tuple[float, float]] = []  # (time, s)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lags", daemon=True)
        self._thread.start()

    def worst_s(self, since_s: float) -> float:
        """The largest since then; 0 where nobody answered."""
        return max((lag_s for at_s, lag_s in list(self.rows) if at_s >= since_s), default=0.0)

    def end(self) -> None:
        """Ask no more."""
        self._ended.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._ended.wait(LAG_EVERY_S):
            _, page = self._place.get("/metrics")
            lags_s = [float(line[len(self._line) :]) for line in page.splitlines() if line.startswith(self._line)]
            self.rows += [(time.monotonic(), lag_s) for lag_s in lags_s]


class Sender:
    """Sends float32 [n] at 16 kHz to `/ingest` as it would sound, and takes its session's events on the same socket.

    `speed` 0: as fast as it goes. `leave_s`: it goes away there, in the middle of whatever is said. `refused`: why it
    was not taken.
    """

    def __init__(
        self, place: Place, samples: NDArray[np.float32], *, speed: float = 1.0, leave_s: float | None = None
    ) -> None:
        self._place, self._samples, self._speed, self._leave_s = place, samples, speed, leave_s
        self.events: list[dict[str, Any]] = []
        self.session = self.refused = ""
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Until its last event came, or it is refused; False: not in time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        for _ in range(20):
            try:
                with self._place.connect("/ingest") as connection:
                    self._send(connection)
                return
            except Away as error:
                self.refused = f"{type(error).__name__}: {error}"
                if self.session:  # it was taken, and something cut it off
                    return
                time.sleep(1)  # wrong tokens of somebody else, or no descriptors: as a client would

    def _send(self, connection: ClientConnection) -> None:
        start = {"type": "start", "sample_rate": SAMPLE_RATE, "encoding": "pcm_s16le", "channels": 1, "events": True}
        connection.send(json.dumps(start))
        while (taken := json.loads(connection.recv(timeout=10)))["type"] != "started":
            self.refused = str(taken.get("detail", ""))  # of an `error`; `hello` comes first of all
        self.session, self.refused = str(taken["session"]), ""
        listening = threading.Thread(target=self._listen, args=(connection,), daemon=True)
        listening.start()
        pcm = (np.clip(self._samples, -1, 1) * 32767).astype("<i2")
        piece, began_s = round(PIECE_S * SAMPLE_RATE), time.monotonic()
        for at in range(0, len(pcm), piece):
            if self._leave_s is not None and at >= self._leave_s * SAMPLE_RATE:
                cut(connection)
                return
            connection.send(pcm[at : at + piece].tobytes())
            if self._speed:
                due_s = began_s + (at + piece) / SAMPLE_RATE / self._speed
                time.sleep(max(0.0, due_s - time.monotonic()))
        connection.send('{"type":"stop"}')
        listening.join(60)

    def _listen(self, connection: ClientConnection) -> None:
        with suppress(*Away):
            for text in connection:
                message = json.loads(text)
                if "seq" in message:
                    self.events.append(message)


def cut(connection: ClientConnection) -> None:
    """End a connection without a word. What comes is not read any more, and closing it, which the reading thread does
    then, sends RST.
    """
    with suppress(OSError):
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.socket.shutdown(socket.SHUT_RD)


def stalled(place: Place) -> socket.socket:
    """A viewer that reads nothing from now on."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    one.settimeout(5)
    one.connect(("127.0.0.1", place.port))
    request = (
        "GET /ws?since_seq=0 HTTP/1.1",
        f"Host: 127.0.0.1:{place.port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        f"Authorization: Bearer {place.token}",
    )
    one.sendall("\r\n".join([*request, "", ""]).encode())
    return one


def is_closed(one: socket.socket) -> bool:
    """Whether the other side closed it; reads what is left."""
    one.settimeout(2)
    try:
        while one.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True
