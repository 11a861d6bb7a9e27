"""One port, two libraries: which connection goes where, however its first line comes in."""

import json
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from streamer.errors import ConfigError
from streamer.events import Event, Status
from streamer.server import one_port
from streamer.server.messages import Actions, BusyError, ModelFacts, Upload
from streamer.server.one_port import is_http
from streamer.server.websocket import ServerThread
from streamer.settings.config import ServerSettings

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
    monkeypatch.setattr(one_port, "FIRST_LINE_S", 0.1)
    with socket.create_connection(("127.0.0.1", served[0].port), 10) as link:
        link.sendall(b"GET /v1")
        assert link.recv(1) == b""


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
