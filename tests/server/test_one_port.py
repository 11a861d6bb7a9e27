"""One port, two libraries: which connection goes where, however its first line comes in."""

import contextlib
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from streamer.errors import ConfigError
from streamer.events import Event, Sound, Status
from streamer.server import sockets, websocket
from streamer.server.actions import Actions, BusyError, ModelFacts, Upload
from streamer.server.addresses import LOOPBACK_TRIES, TRIES
from streamer.server.sockets import is_http
from streamer.server.websocket import ServerThread
from streamer.settings.server import ServerSettings

pytest.importorskip("aiohttp")
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n"
)
FORM = (
    '--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nsound\r\n'
    '--b\r\nContent-Disposition: form-data; name="response_format"\r\n\r\n%s\r\n--b--\r\n'
)


@pytest.mark.parametrize(
    ("line", "http"),
    [
        (b"POST /v1/audio/transcriptions HTTP/1.1\r\n", True),
        (b"GET /v1/models HTTP/1.1\r\n", True),
        (b"GET /v1/realtime?intent=transcription HTTP/1.1\r\n", False),
        (b"GET /ws HTTP/1.1\r\n", False),
        (b"POST /ws HTTP/1.1\r\n", False),
        (b"GET /?path=/v1/models HTTP/1.1\r\n", False),
        (b"\r\n", False),
    ],
)
def test_by_the_first_line(line, http):
    assert is_http(line) is http


class Recordings:
    """Takes uploads and says what came; waits until it is let go."""

    def __init__(self) -> None:
        self.came: list[tuple[Upload, bytes]] = []
        self.go_on, self.left = threading.Event(), threading.Event()
        self.busy = False

    def transcribe(self, upload: Upload) -> Iterator[Sequence[Event]]:
        if self.busy:
            raise BusyError("two are enough")
        self.came.append((upload, Path(upload.path).read_bytes()))
        try:
            yield [Status(session="s1", seq=1, audio_t=0.0, state="listening")]
            while not self.go_on.wait(0.01):
                yield []
            yield [Status(session="s1", seq=2, audio_t=1.0, state="stopped")]
        finally:
            self.left.set()


@pytest.fixture
def served() -> Iterator[tuple[ServerThread, Recordings]]:
    recordings = Recordings()
    actions = Actions(transcribe=recordings.transcribe, model=lambda: ModelFacts("nano", {"en": "english"}))
    server = ServerThread(ServerSettings(port=0, openai=True, upload_max_mb=1), actions)
    server.start()
    yield server, recordings
    recordings.go_on.set()
    server.stop()


def ask(server: ServerThread, request: str, *, pieces: int = 10_000) -> tuple[int, str, bytes]:
    """Status, head and body of an answer, to a request that is sent in pieces."""
    with socket.create_connection(("127.0.0.1", server.port), 10) as link:
        data = request.replace("HOST", f"127.0.0.1:{server.port}").encode()
        for at in range(0, len(data), pieces):
            link.sendall(data[at : at + pieces])
        answer = b""
        while more := link.recv(2**16):
            answer += more
            if b"101 Switching" in answer:
                break
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode(), body


def post(form: str) -> str:
    head = "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: HOST\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    return f"{head}Content-Length: {len(form)}\r\n\r\n{form}"


@pytest.mark.parametrize("pieces", [1, 7, 10_000])
def test_pages_sockets_and_requests_with_a_body(served, pieces):
    server, recordings = served
    recordings.go_on.set()
    assert ask(server, "GET /healthz HTTP/1.1\r\nHost: HOST\r\n\r\n", pieces=pieces)[2] == b'{"status":"ok"}\n'
    assert ask(server, f"GET /ws HTTP/1.1\r\nHost: HOST\r\n{UPGRADE}\r\n", pieces=pieces)[0] == 101
    assert ask(server, f"GET /v1/realtime HTTP/1.1\r\nHost: HOST\r\n{UPGRADE}\r\n", pieces=pieces)[0] == 101
    status, head, body = ask(server, "GET /v1/models HTTP/1.1\r\nHost: HOST\r\n\r\n", pieces=pieces)
    assert (status, json.loads(body)["data"][0]["id"]) == (200, "nano")
    assert "Connection: close" in head
    status, _, body = ask(server, post(FORM % "json"), pieces=pieces)
    assert (status, json.loads(body)["text"]) == (200, "")
    upload, sound = recordings.came[-1]
    assert (upload.name, upload.task, sound) == ("a.wav", "transcribe", b"sound")
    assert not upload.path.exists()


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("GET /v1/nothing HTTP/1.1\r\nHost: HOST\r\n\r\n", 404),
        ("GET /v1/audio/transcriptions HTTP/1.1\r\nHost: HOST\r\n\r\n", 405),
        ("GET /v1/models HTTP/1.1\r\nHost: rebound.example\r\n\r\n", 403),
        ("GET /v1/models HTTP/1.1\r\nHost: HOST\r\nOrigin: https://elsewhere.example\r\n\r\n", 403),
        ("POST /v1/audio/transcriptions HTTP/1.1\r\nHost: HOST\r\nContent-Length: 2\r\n\r\n{}", 400),
        (post("no form at all"), 400),
        (post(FORM % ("x" * 70_000)), 400),
        (post(FORM % "yaml"), 400),
        (post((FORM % "json").replace("sound", "s" * 2_000_000)), 413),
        (post(FORM % "json").replace("\r\n", "\r\nContent-Encoding: gzip\r\n", 1), 400),  # and it is not
    ],
)
def test_what_is_wrong_is_said_in_openais_form(served, request_text, status):
    found, _, body = ask(served[0], request_text)
    assert found == status
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    assert not served[1].came


def test_who_is_busy_says_so(served):
    server, recordings = served
    recordings.busy = True
    status, _, body = ask(server, post(FORM % "json"))
    assert (status, json.loads(body)["error"]["message"]) == (503, "two are enough")


def test_a_client_that_goes_away_is_not_worked_for(served):
    server, recordings = served
    with socket.create_connection(("127.0.0.1", server.port), 10) as link:
        link.sendall(post(FORM % "json").replace("HOST", f"127.0.0.1:{server.port}").encode())
        while not recordings.came:
            assert not recordings.left.wait(0.01)
    assert recordings.left.wait(10)


def test_who_says_nothing_is_cut_off(served, monkeypatch):
    monkeypatch.setattr(sockets, "HEAD_S", 0.1)
    with socket.create_connection(("127.0.0.1", served[0].port), 10) as link:
        link.sendall(b"GET /v1")
        assert link.recv(1) == b""


@pytest.fixture
def start() -> Iterator:
    running: list[ServerThread] = []

    def start(**options) -> ServerThread:
        recordings = options.pop("recordings", None) or Recordings()
        facts = ModelFacts("nano", {"en": "english"})
        actions = Actions(transcribe=recordings.transcribe, model=lambda: facts)
        server = ServerThread(ServerSettings(**{"port": 0, "openai": True, **options}), actions)
        server.start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.stop()


def models(more: str = "") -> str:
    return f"GET /v1/models HTTP/1.1\r\nHost: HOST\r\n{more}\r\n"


@pytest.fixture
def three_sockets(monkeypatch) -> dict[str, int]:
    """Settings with which one loopback address may have three sockets open."""
    monkeypatch.setattr(websocket, "MAX_SENDERS", 0)
    monkeypatch.setattr(websocket, "HALF_OPEN", 2)
    return {"max_clients": 1}


def until_there_is_room(server: ServerThread) -> None:
    """What was closed here is seen there a moment later."""
    limit_s = time.monotonic() + 20
    while ask(server, models())[0] != 200:
        assert time.monotonic() < limit_s
        time.sleep(0.02)


def test_one_address_has_so_many_sockets_whoever_serves_them(start, three_sockets):
    server = start(**three_sockets, wyoming_port=0)
    for _ in range(8):
        until_there_is_room(server)
    upload = post(FORM % "json")[:-5].replace("HOST", f"127.0.0.1:{server.port}").encode()
    with (
        socket.create_connection(("127.0.0.1", server.port), 10) as uploading,
        socket.create_connection(("127.0.0.1", server.port), 10) as unknown,
        socket.create_connection(("127.0.0.1", server.wyoming_port), 10) as satellite,
    ):
        uploading.sendall(upload)
        unknown.sendall(b"GET /v1")
        satellite.sendall(b'{"type":"describe"}\n')
        assert b"info" in satellite.recv(2**16)
        assert ask(server, models())[0] == 429
        with socket.create_connection(("127.0.0.1", server.wyoming_port), 10) as other:
            assert other.recv(1) == b""
        satellite.close()
        until_there_is_room(server)
        uploading.close()
        unknown.close()
    with (
        socket.create_connection(("127.0.0.1", server.port), 10) as one,
        socket.create_connection(("127.0.0.1", server.port), 10) as two,
    ):
        one.sendall(b"GET")
        two.sendall(b"GET")
        until_there_is_room(server)


def test_wrong_tokens_below_v1_and_elsewhere_are_counted_together(start):
    server = start(token="a-long-token")
    key = "Authorization: Bearer %s\r\n"
    assert ask(server, models())[0] == 401  # nothing was tried
    for number in range(int(LOOPBACK_TRIES) // 2):
        assert ask(server, models(key % f"wrong-{number}"))[0] == 401
        assert ask(server, f"GET /?token=wrong-{number} HTTP/1.1\r\nHost: HOST\r\n\r\n")[0] == 401
    answers = [ask(server, models(key % "wrong")) for _ in range(5)]  # one a second is looked at
    status, head, body = answers[-1]
    assert (status, json.loads(body)["error"]["code"]) == (429, "rate_limit_exceeded")
    assert "Retry-After: 1" in head
    assert ask(server, models(key % "a-long-token"))[0] == 429
    assert ask(server, "GET /?token=wrong HTTP/1.1\r\nHost: HOST\r\n\r\n")[0] == 429
    metrics = ask(server, "GET /metrics HTTP/1.1\r\nHost: HOST\r\n\r\n")[2].decode()
    assert 'streamer_refused_total{reason="throttled"}' in metrics
    assert 'streamer_refused_total{reason="token"}' in metrics


def test_behind_a_proxy_each_client_has_its_own_tries(start):
    server = start(token="a-long-token", proxies=("127.0.0.1",))
    guess = models("Authorization: Bearer wrong\r\nX-Forwarded-For: 198.51.100.1, 192.0.2.7\r\n")
    assert [ask(server, guess)[0] for _ in range(int(TRIES) + 2)] == [401] * int(TRIES) + [429] * 2
    assert ask(server, models("Authorization: Bearer a-long-token\r\nX-Forwarded-For: 192.0.2.8\r\n"))[0] == 200


def test_other_methods_elsewhere_are_refused_as_before(served):
    status, head, _ = ask(served[0], "POST /ws HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n")
    assert status == 405
    assert "Allow: GET, HEAD" in head
    assert ask(served[0], "hello\r\n")[0] == 400
    assert ask(served[0], "HEAD / HTTP/1.1\r\nHost: HOST\r\n\r\n")[0] == 200


@pytest.mark.parametrize("head", [b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nX: ", b"GET /v1/models HTT"])
def test_whose_head_does_not_end_is_cut_off(served, monkeypatch, head):
    monkeypatch.setattr(sockets, "HEAD_S", 0.1)
    with socket.create_connection(("127.0.0.1", served[0].port), 10) as link:
        link.sendall(head)
        assert link.recv(1) == b""


def test_an_endless_head_is_not_read(served, monkeypatch):
    monkeypatch.setattr(sockets, "HEAD_S", 1000)
    with socket.create_connection(("127.0.0.1", served[0].port), 10) as link, pytest.raises(OSError):  # noqa: PT011, PT012
        link.sendall(b"POST /v1/audio/transcriptions HTTP/1.1\r\n")
        for _ in range(1000):
            link.sendall(b"X: y\r\n" * 1000)


def test_who_leaves_an_answer_lying_is_cut_off(start, three_sockets, monkeypatch):
    monkeypatch.setattr(sockets, "TAKE_S", 0.2)

    class Loud(Recordings):
        def transcribe(self, upload: Upload) -> Iterator[Sequence[Event]]:
            sound = {"session": "s1", "audio_t": 1.0, "label": "x" * 2**20, "state": "end", "start": 0.0, "end": 1.0}
            yield [Sound(**sound, seq=number, id=number, score=0.5) for number in range(1, 33)]
            self.left.set()

    recordings = Loud()
    server = start(**three_sockets, recordings=recordings)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            link = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 10))
            link.sendall(post(FORM % "json").replace("HOST", f"127.0.0.1:{server.port}").encode())
            assert recordings.left.wait(10)
        until_there_is_room(server)


def test_over_tls(start, tmp_path):
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost"
    try:
        subprocess.run([*make.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    recordings = Recordings()
    recordings.go_on.set()
    server = start(recordings=recordings, tls_cert=str(cert), tls_key=str(key))
    trust = ssl.create_default_context(cafile=str(cert))
    for request in (models(), post(FORM % "json"), "GET /healthz HTTP/1.1\r\nHost: HOST\r\n\r\n"):
        with (
            socket.create_connection(("localhost", server.port), 10) as raw,
            trust.wrap_socket(raw, server_hostname="localhost") as link,
        ):
            link.sendall(request.replace("HOST", f"localhost:{server.port}").encode())
            answer = b""
            while more := link.recv(2**16):
                answer += more
        assert answer.startswith(b"HTTP/1.1 200 OK")


def test_without_the_setting_there_is_nothing_below_v1():
    server = ServerThread(ServerSettings(port=0))
    server.start()
    try:
        assert ask(server, "GET /v1/models HTTP/1.1\r\nHost: HOST\r\n\r\n")[0] == 404
        assert ask(server, f"GET /v1/realtime HTTP/1.1\r\nHost: HOST\r\n{UPGRADE}\r\n")[0] == 404
    finally:
        server.stop()


def test_without_aiohttp_the_setting_is_refused_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "streamer.server.openai_http", None)
    with pytest.raises(ConfigError, match=r"^server\.openai: needs aiohttp: pip install"):
        ServerThread(ServerSettings(port=0, openai=True)).start()
