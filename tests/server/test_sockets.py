"""Sockets that harm: floods, silence, other methods, no files left; always against the real server."""

import contextlib
import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from streamer.server import sockets
from streamer.server.actions import Actions, IngestFullError, IngestSink
from streamer.server.addresses import LOOPBACK_TRIES, TRIES, Addresses
from streamer.server.ingest import PcmQueue
from streamer.server.messages import IngestStart
from streamer.server.websocket import ServerThread

TOKEN = "a-long-token"
START = json.dumps({"type": "start", "sample_rate": 16_000, "encoding": "pcm_s16le", "channels": 1})
OPENING = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def client(server: ServerThread, path: str = "/ws", source: str = "127.0.0.1", **options) -> ClientConnection:
    raw = socket.create_connection(("127.0.0.1", server.port), source_address=(source, 0))
    url = f"ws://127.0.0.1:{server.port}{path}"
    return connect(url, sock=raw, compression=None, close_timeout=1, **options)


def closed(connection: ClientConnection) -> tuple[int, str]:
    """The code and reason with which the server closes."""
    with connection:
        try:
            while True:
                connection.recv(timeout=10)
        except ConnectionClosed as error:
            return (error.rcvd.code, error.rcvd.reason) if error.rcvd else (0, "")


def asked(server: ServerThread, text: str) -> tuple[str, bytes]:
    """Status line and headers, and the body, of what comes for a request."""
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.settimeout(10)
        raw.sendall(text.encode("latin-1"))
        answer = b"".join(iter(lambda: raw.recv(65_536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode(), body


def request(method: str, path: str = "/", more: str = "") -> str:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n"


def test_head_gets_the_headers_of_get_and_other_methods_405(serve):
    server = serve()
    head, body = asked(server, request("GET"))
    assert asked(server, request("HEAD")) == (head, b"")
    assert f"Content-Length: {len(body)}" in head
    assert asked(server, request("HEAD", "/nothing"))[0].startswith("HTTP/1.1 404")
    assert asked(server, request("HEAD", "/ws"))[0].startswith("HTTP/1.1 426")
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "BREW"):
        head, body = asked(server, request(method, more="Content-Length: 9\r\n") + "some=body")
        assert head.startswith("HTTP/1.1 405 Method Not Allowed")
        assert "Allow: GET, HEAD" in head
        assert body


@pytest.mark.parametrize(
    "text", ["GET / HTTP/9.9\r\n\r\n", "\x16\x03\x01hello\r\n", "GET /\xff HTTP/1.1\r\n\r\n", "hello\n"]
)
def test_what_is_no_request_gets_400(serve, text):
    assert asked(serve(), text)[0].startswith("HTTP/1.1 400 Bad Request")


@pytest.mark.parametrize(
    "more",
    [
        "Content-Length: 5\r\n\r\nhello",
        "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: localhost\r\n",
    ],
)
def test_what_stands_behind_a_request_is_not_looked_at(serve, more):
    """A body, or the next request: the first is answered, and the connection closed."""
    head, body = asked(serve(), request("GET", "/healthz", more))
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert body == b'{"status":"ok"}\n'


def test_a_request_that_comes_byte_by_byte_is_understood(serve):
    server = serve()
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        for byte in request("HEAD", "/healthz").encode():
            raw.sendall(bytes([byte]))
        raw.settimeout(10)
        assert b"".join(iter(lambda: raw.recv(65_536), b"")).startswith(b"HTTP/1.1 200 OK")


def test_300_wrong_tokens_are_not_looked_at_one_by_one(serve):
    server = serve(token=TOKEN)
    codes: list[int] = []
    waits: list[int] = []
    began_s = time.monotonic()
    for number in range(60):
        try:
            codes.append(closed(client(server, f"/ws?token=wrong-{number}"))[0])
        except InvalidStatus as error:
            codes.append(error.response.status_code)
            waits.append(int(error.response.headers["Retry-After"]))
    looked_at = codes.count(1008)
    assert codes[: int(LOOPBACK_TRIES)] == [1008] * int(LOOPBACK_TRIES)
    assert looked_at <= LOOPBACK_TRIES + (time.monotonic() - began_s) + 1
    assert codes.count(429) == len(waits) == 60 - looked_at
    assert min(waits) >= 1
    assert asked(server, request("GET", "/?token=wrong"))[0].startswith("HTTP/1.1 429")
    assert asked(server, request("GET", "/static/viewer.js"))[0].startswith(
        "HTTP/1.1 200"
    )  # who asks for nothing secret
    with client(server, f"/ws?token={TOKEN}", source="127.0.0.2") as other:
        assert "hello" in other.recv(10)


def test_behind_a_proxy_each_client_has_its_own_tries(serve):
    server = serve(token=TOKEN, proxies=("127.0.0.1",))
    guess = request("GET", "/?token=wrong", "X-Forwarded-For: 198.51.100.1, 192.0.2.7\r\n")
    answers = [asked(server, guess)[0].split()[1] for _ in range(int(TRIES) + 2)]
    assert answers == ["401"] * int(TRIES) + ["429"] * 2
    good = request("GET", f"/?token={TOKEN}", "X-Forwarded-For: 192.0.2.8\r\n")
    assert asked(server, good)[0].startswith("HTTP/1.1 200")


def test_one_address_does_not_take_all_places(serve):
    server = serve(max_clients=8)
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(client(server)).recv(10)
        code, reason = closed(client(server))
        assert code == 1013
        assert "your address" in reason
        assert "try in 30 s" in reason
        with client(server, source="127.0.0.2") as other:
            assert "hello" in other.recv(10)


def test_sockets_that_say_nothing_are_bounded(serve, monkeypatch):
    monkeypatch.setattr(Addresses, "connect", lambda self, address: address != "127.0.0.3")
    server = serve()
    with pytest.raises(InvalidStatus, match="429"):
        client(server, source="127.0.0.3")
    with client(server) as welcome:
        welcome.recv(10)


def test_a_viewer_that_shows_no_sign_of_life_is_closed_with_1013(serve, monkeypatch):
    monkeypatch.setattr(sockets, "PING_S", 0.1)
    monkeypatch.setattr(sockets, "SILENT_S", 0.4)
    monkeypatch.setattr(sockets, "CLOSE_S", 0.2)
    server = serve()
    with client(server) as alive, socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(OPENING)
        raw.settimeout(10)
        answer = b"".join(iter(lambda: raw.recv(65_536), b""))  # pings come, and are never answered
        assert answer[answer.rindex(b"\x88") + 2 :].startswith(b"\x03\xf5too slow")
        alive.send('{"type":"ping"}')
        assert "hello" in alive.recv(10)
        assert "pong" in alive.recv(10)


def test_a_sender_whose_pongs_stand_behind_its_sound_is_slowed_and_not_closed(serve, monkeypatch):
    """It never answers a ping; what it sends is sign of life enough, and all of it arrives."""
    monkeypatch.setattr(sockets, "PING_S", 0.1)
    monkeypatch.setattr(sockets, "SILENT_S", 0.4)
    queue = PcmQueue(IngestStart(16_000), "in1", capacity_s=0.1)
    read, done = [0, 0], threading.Event()

    def take() -> None:
        while not queue.ended:
            if piece := queue.read(0.1):
                read[0] += len(piece.pcm)
                read[1] += piece.lost_frames
                time.sleep(0.02)  # slower than it comes
        done.set()

    server = serve(Actions(open_ingest=lambda start: queue))
    reader = threading.Thread(target=take)
    with client(server, "/ingest") as sender:
        sender.pong = lambda *given: None  # type: ignore[method-assign]
        sender.protocol.send_pong = lambda data: None  # type: ignore[method-assign]
        sender.send(START)
        reader.start()
        for _ in range(100):
            sender.send(bytes(3200))
        sender.send('{"type":"stop"}')
        assert closed(sender)[0] == 1000
    reader.join(10)
    assert read == [320_000, 0]


def test_a_sender_that_is_refused_while_it_sends_reads_why(serve):
    def full(start: IngestStart) -> IngestSink:
        raise IngestFullError("full: this machine carries 2 streams; try in 30 s")

    server = serve(Actions(open_ingest=full))
    with client(server, "/ingest") as sender:
        with contextlib.suppress(ConnectionClosed):
            sender.send(START)
            for _ in range(1000):
                sender.send(bytes(32_000))
        assert closed(sender) == (1013, "full: this machine carries 2 streams; try in 30 s")


def test_a_sender_that_is_refused_gives_its_place_back_whatever_it_sent_meanwhile(serve, monkeypatch):
    monkeypatch.setattr(sockets, "CLOSE_S", 60.0)

    def full(start: IngestStart) -> IngestSink:
        time.sleep(0.5)  # meanwhile all of its sound has come
        raise IngestFullError("full: this machine carries 2 streams; try in 30 s")

    server = serve(Actions(open_ingest=full))
    with connect(f"ws://127.0.0.1:{server.port}/ingest", compression=None, close_timeout=60) as sender:
        with contextlib.suppress(ConnectionClosed):
            sender.send(START)
            for _ in range(20):
                sender.send(bytes(3200))
        with contextlib.suppress(ConnectionClosed):
            while True:
                sender.recv(10)  # TimeoutError: the connection is still open
        assert sender.close_code == 1013


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_after_a_pause_of_the_whole_program_clients_are_not_closed_for_their_silence(tmp_path):
    """As on a machine or in a container that was paused."""
    program = subprocess.Popen([sys.executable, "-c", PAUSED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    port = int(program.stdout.readline())
    with program, connect(f"ws://127.0.0.1:{port}/ws", compression=None) as viewer:
        assert "hello" in viewer.recv(10)
        for _ in range(3):
            program.send_signal(signal.SIGSTOP)
            time.sleep(2.5)  # longer than a client may be silent
            program.send_signal(signal.SIGCONT)
            viewer.send('{"type":"ping"}')
            while "pong" not in viewer.recv(10):
                pass
        program.communicate("")


PAUSED = """
import sys
from streamer.server import sockets
from streamer.server.websocket import ServerThread
from streamer.settings.server import ServerSettings
sockets.PING_S, sockets.SILENT_S = 0.5, 2.0
server = ServerThread(ServerSettings(port=0))
server.start()
print(server.port, flush=True)
sys.stdin.read()
server.stop()
"""

FEW_FILES = """
import logging, resource, sys
logging.basicConfig(level=logging.WARNING)
from streamer.server.websocket import ServerThread
from streamer.settings.server import ServerSettings
server = ServerThread(ServerSettings(port=0))
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
server.start()
print(server.port, flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_without_files_new_connections_are_refused_old_ones_served_and_the_log_has_one_line():
    program = subprocess.Popen(
        [sys.executable, "-c", FEW_FILES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    port, opened, refused = int(program.stdout.readline()), [], 0
    try:
        for _ in range(70):
            opened.append(socket.create_connection(("127.0.0.1", port)))
            opened[-1].settimeout(10)
            opened[-1].sendall(OPENING)
            try:
                refused += b" 101 " not in opened[-1].recv(65_536)
            except ConnectionResetError:
                refused += 1
        assert 10 < refused < 60
        opened[0].sendall(b"\x89\x80\0\0\0\0")  # a ping, masked by zeros
        while b"\x8a\x00" not in opened[0].recv(65_536):
            pass
        for one in opened:
            one.close()
        until_s = time.monotonic() + 10
        while True:  # the server closes what its clients have closed
            with contextlib.suppress(InvalidHandshake, ConnectionClosed, OSError):
                with connect(f"ws://127.0.0.1:{port}/ws", compression=None) as again:
                    assert "hello" in again.recv(10)
                break
            assert time.monotonic() < until_s
    finally:
        _, said = program.communicate("", timeout=30)
    assert said.count("\n") == 1, said
    assert "refuses new connections" in said


def test_errors_of_the_loop_that_mean_no_files_are_told_once(caplog):
    now = [0.0]
    counted: list[str] = []
    door = sockets.Door(Addresses(lambda: now[0], 10, 10), counted.append, lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            door.on_loop_error(None, {"exception": OSError(24, "Too many open files")})  # type: ignore[arg-type]
    assert len(caplog.records) == 1
    assert counted == ["files"] * 100
