"""The other side of the deliveries, for `streamer bench outage`: a broker, web services and those who watch them."""

import contextlib
import io
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from streamer.errors import UsageError

if TYPE_CHECKING:
    from paho.mqtt.client import Client

START_S = 10.0  # seconds that a broker may take to listen
POLL_S = 0.01
ALERT_S = 4.0  # from one alert to the next on the session's clock: starts and ends of their own in whole seconds
Change = tuple[int, str]  # an alert's id and its state


class Arrivals:
    """What arrived and when (time.monotonic), for one channel. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at: dict[Change, list[float]] = {}

    def note(self, change: Change) -> None:
        """This change of an alert arrived just now."""
        with self._lock:
            self._at.setdefault(change, []).append(time.monotonic())

    def times(self) -> dict[Change, list[float]]:
        """All arrivals of each change, the first one first."""
        with self._lock:
            return {change: list(times) for change, times in self._at.items()}


class Broker:
    """A real mosquitto on a port of its own that keeps nothing on disk; `kill` ends it at once, by its process id."""

    def __init__(self, folder: Path) -> None:
        """Raises UsageError where mosquitto is not installed."""
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            raise UsageError("bench outage: needs mosquitto: apt install mosquitto")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        config = folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\npersistence false\nallow_anonymous true\n", encoding="utf-8"
        )
        self._command = [program, "-c", str(config)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return when it listens. Raises UsageError where it does not."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + START_S
        while not self._listens():
            if time.monotonic() > until or self._process.poll() is not None:
                raise UsageError(f"bench outage: mosquitto does not listen on port {self.port}")
            time.sleep(POLL_S)

    def kill(self) -> None:
        """SIGKILL; nothing where it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Subscriber:
    """Everything that the broker says about alerts. Nobody keeps messages for it: it must be back before they come."""

    def __init__(self, port: int, topic: str, arrivals: Arrivals) -> None:
        self._port, self._topic, self._arrivals = port, topic, arrivals
        self._ready = threading.Event()
        self._client: Client | None = None

    def join(self) -> None:
        """Connect anew, as soon as the broker listens, and return when the subscription stands. Raises UsageError."""
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.leave()
        self._ready.clear()
        client = Client(CallbackAPIVersion.VERSION2)
        client.on_connect = self._connected
        client.on_subscribe = self._subscribed
        client.on_message = self._message
        until = time.monotonic() + 2 * START_S
        while True:
            try:
                client.connect("127.0.0.1", self._port)
                break
            except OSError:
                if time.monotonic() > until:
                    raise UsageError(f"bench outage: mosquitto does not answer on port {self._port}") from None
                time.sleep(POLL_S / 4)
        client.loop_start()
        self._client = client
        self._ready.wait(START_S)

    def leave(self) -> None:
        """Disconnect."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None

    def _connected(self, client: "Client", userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        client.subscribe(self._topic, qos=1)

    def _subscribed(self, client: "Client", userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        self._ready.set()

    def _message(self, client: "Client", userdata: Any, message: Any) -> None:
        event = json.loads(message.payload)
        self._arrivals.note((event["id"], event["state"]))


class Service:
    """A web server that takes POSTs. `fail` "500" answers so; "hang" never answers, to the end of the connection."""

    def __init__(self, read: Callable[[bytes], Change], arrivals: Arrivals) -> None:
        self.fail: str | None = None
        self.attempts = 0
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.attempts += 1
                fail = service.fail
                if fail == "hang":
                    with contextlib.suppress(OSError):
                        self.connection.recv(1)  # until the client gives up
                    self.close_connection = True
                    return
                self.send_response(500 if fail else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()
                if not fail:
                    arrivals.note(read(body))

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing on stderr."""

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that goes away is no error here."""

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="service", daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


def read_event(body: bytes) -> Change:
    """The change that a webhook's body tells of."""
    event = json.loads(body)
    return event["id"], event["state"]


def read_push(body: bytes) -> Change:
    """The change that a push notification tells of: its label holds the alert's id."""
    data = json.loads(body)
    found = re.search(r"Number (\d+)", data["message"])
    return int(found[1]) if found else -1, "cleared" if data["type"] == "success" else "raised"


class Screen(io.StringIO):
    """A screen without a terminal's abilities: the terminal view's plain lines, noted when they are written."""

    def __init__(self, arrivals: Arrivals) -> None:
        super().__init__()
        self._arrivals = arrivals

    def write(self, text: str) -> int:
        """Note the alerts in a line; keep nothing."""
        for state, minutes, seconds in re.findall(r"ALERT .*? (raised|cleared) at ((?:\d+:)?\d+):(\d\d)", text):
            hours, _, rest = minutes.rpartition(":")
            clock_s = (int(hours or 0) * 60 + int(rest)) * 60 + int(seconds)
            self._arrivals.note((int(clock_s // ALERT_S), state))
        return len(text)


@contextlib.contextmanager
def watching(url: str, arrivals: Arrivals) -> Iterator[None]:
    """A websocket client that notes all alerts."""
    with connect(f"{url.replace('http', 'ws', 1)}/ws?types=alert", compression=None, max_queue=None) as connection:
        thread = threading.Thread(target=_watch, args=(connection, arrivals), name="watching", daemon=True)
        thread.start()
        try:
            yield
        finally:
            connection.close()
            thread.join(START_S)


def _watch(connection: ClientConnection, arrivals: Arrivals) -> None:
    with contextlib.suppress(ConnectionClosed):
        for text in connection:
            event = json.loads(text)
            if event["type"] == "alert":
                arrivals.note((event["id"], event["state"]))
