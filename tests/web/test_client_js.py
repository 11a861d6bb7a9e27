"""client.js as a program's own: in node, against the real server. The pages use the same file: test_pages.py."""

import json
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from scene import Scene

playwright = pytest.importorskip("playwright")
from playwright._impl._driver import compute_driver_executable  # noqa: E402
from websockets.sync.server import ServerConnection  # noqa: E402
from websockets.sync.server import serve as listen  # noqa: E402

import streamer  # noqa: E402
from streamer.events import Status  # noqa: E402
from streamer.server.actions import Actions  # noqa: E402
from streamer.server.messages import Ack, IngestStart, SessionInfo  # noqa: E402
from streamer.server.websocket import ServerThread  # noqa: E402

NODE = compute_driver_executable()[0]  # a node with WebSocket comes with playwright
SCRIPT = Path(__file__).parent / "client_test.mjs"
CLIENT = Path(streamer.__file__).parent / "web" / "client.js"
TOKEN = "a-long-token"
LIMIT_S = 60


def run(server: ServerThread | SimpleNamespace, scenario: str, on_break: Callable[[], None] = lambda: None):
    """What the script says at its end; `on_break` is called when it broke its connection."""
    command = [NODE, "--no-warnings", str(SCRIPT), str(CLIENT), server.url, TOKEN, scenario]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as node:
        limit = threading.Timer(LIMIT_S, node.kill)  # a script that never ends fails, and hangs nothing
        limit.start()
        assert node.stdout is not None
        told = ""
        for line in node.stdout:
            told = line
            if told == "broken\n":
                on_break()
                told = ""
        limit.cancel()
    assert node.returncode == 0
    return json.loads(told)


def published(server: ServerThread, count: int) -> Scene:
    scene = Scene()
    for _ in range(count):
        server.publish(scene.status())
    return scene


def test_a_program_gets_what_it_asked_for_and_says_what_it_wants(serve):
    said: list[Ack] = []
    server = serve(Actions(ack=said.append), token=TOKEN)
    published(server, 4)
    told = run(server, "complete")
    assert told["numbers"] == [1, 2, 3, 4]
    assert told["early"] == [True, True, True, False]
    assert told["states"] == ["connecting", "live"]
    assert said[0] == Ack(1)
    assert run(server, "backlog")["numbers"] == [3, 4]


def test_a_program_can_have_everything(serve):
    server = serve(token=TOKEN)
    published(server, 10)
    assert run(server, "all")["numbers"] == list(range(1, 11))


def test_a_connection_that_breaks_loses_nothing_and_repeats_nothing(serve):
    server = serve(token=TOKEN)
    scene = published(server, 2)

    def go_on() -> None:
        server.publish(scene.status())
        server.publish(scene.status())

    told = run(server, "reconnect", go_on)
    assert told["numbers"] == [1, 2, 3, 4]
    assert told["states"] == ["connecting", "live", "connecting", "live"]


def test_a_session_that_begins_while_there_is_no_connection_is_had_from_its_beginning(serve):
    server = serve(token=TOKEN)
    published(server, 3)  # from before the program came: without a backlog it wants none of it

    def begin() -> None:
        scene = Scene(session="hall")
        server.open_session(SessionInfo("hall", "nano", None, 16_000))
        server.publish(scene.status())
        server.publish(scene.status())

    assert run(server, "newcomer", begin) == [["hall", 1], ["hall", 2]]


def test_a_connection_that_never_opens_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        server = SimpleNamespace(url=f"http://127.0.0.1:{deaf.getsockname()[1]}")
        assert run(server, "stuck") == "tried again"


def test_a_wrong_token_is_told(serve):
    assert "token" in run(serve(token=TOKEN), "refused")


class Sink:
    session, begin_s = "in1", None

    def __init__(self, server: ServerThread) -> None:
        self.heard, self._server, self._open = b"", server, True
        server.open_session(SessionInfo("in1", "nano", None, 16_000))

    async def write(self, pcm: bytes) -> None:
        self.heard += pcm

    def finish(self) -> None:
        if self._open:
            self._open = False
            self._server.publish(Status(session="in1", seq=1, audio_t=1.0, state="stopped"))
            self._server.close_session("in1")


def test_sound_is_sent_and_its_events_come_back(serve):
    sinks: list[Sink] = []

    def open_ingest(start: IngestStart) -> Sink:
        sinks.append(Sink(server))
        return sinks[-1]

    server = serve(Actions(open_ingest=open_ingest), token=TOKEN)
    told = run(server, "send")
    assert told["session"] == "in1"
    assert [event["state"] for event in told["events"]] == ["stopped"]
    assert sinks[0].heard == b"\x07\x00" * 16_000
    assert "sample_rate" in run(server, "unwanted")


def test_a_session_goes_on_at_the_next_server_with_what_that_one_asks_for():
    starts: list[dict[str, object]] = []
    heard: list[bytes] = []

    def handle(connection: ServerConnection) -> None:
        connection.send(json.dumps({"type": "hello", "run": "r", "sessions": [], "capabilities": ["resume"]}))
        starts.append(json.loads(connection.recv()))
        goes_on = {"audio_t": 0.5} if len(starts) > 1 else {}
        connection.send(json.dumps({"type": "started", "session": "in1", **goes_on}))
        for seq in range(1, len(starts) + 1):
            connection.send(json.dumps({"type": "status", "session": "in1", "seq": seq, "state": "listening"}))
        heard.append(b"")
        while isinstance(message := connection.recv(), bytes):
            heard[-1] += message
            if len(starts) == 1:  # gone in the middle of a second that it did not hear
                return connection.close(4000, "reconnect")
        return connection.close()

    with listen(handle, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.socket.getsockname()[1]}/"
        told = run(SimpleNamespace(url=url), "resume")
        server.shutdown()
    assert told == {"session": "in1", "numbers": [1, 2]}
    assert "session" not in starts[0]
    assert (starts[1]["session"], starts[1]["audio_t"]) == ("in1", 0)
    sound = b"".join(bytes((second, 0)) * 16_000 for second in range(4))
    assert heard[1] == sound[16_000:]
