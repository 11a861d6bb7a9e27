"""Readers of a session that another server has, over real sockets; what brings its events stands for the cluster."""

import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from streamer.events import Status
from streamer.server.actions import Actions
from streamer.server.messages import Ack, Flush, MessageError, SessionInfo
from streamer.server.websocket import ServerThread

INFO = SessionInfo("far", "nano", None, 16_000)


def status(seq: int, session: str = "far") -> Status:
    return Status(session=session, seq=seq, audio_t=seq / 10, state="listening", detail=str(seq))


class Elsewhere:
    """Another server, which has the session `far` with two events."""

    def __init__(self) -> None:
        self.sought, self.wanted = list[str](), list[Ack | Flush]()
        self.server: ServerThread | None = None

    async def seek(self, session: str) -> None:
        self.sought.append(session)
        if session == "full":
            raise MessageError("session: too many")
        if session == "far" and self.server and not self.server.mirrored.has("far"):
            self.server.mirrored.begin(INFO, [status(1), status(2)], 0)


@pytest.fixture
def far(serve) -> Elsewhere:
    elsewhere = Elsewhere()
    elsewhere.server = serve(Actions(seek=elsewhere.seek, pass_on=elsewhere.wanted.append))
    elsewhere.server.open_session(SessionInfo("near", "nano", None, 16_000))
    return elsewhere


def at(server: ServerThread, query: str = "") -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}/ws{query}", open_timeout=10)


def next_of(socket: ClientConnection, kind: str) -> dict[str, Any]:
    while True:
        message: dict[str, Any] = json.loads(socket.recv(10))
        if message["type"] == kind:
            return message


def test_who_comes_for_it_is_told_of_it_and_reads_on_where_it_was(far):
    with at(far.server, "?for=far") as reader, at(far.server) as other:
        sessions = next_of(reader, "hello")["sessions"]
        assert [(one["session"], one["last_seq"]) for one in sessions] == [("near", 0), ("far", 2)]
        assert [one["session"] for one in next_of(other, "hello")["sessions"]] == ["near"]
        reader.send(json.dumps({"type": "subscribe", "session": "far", "since_seq": 1}))
        assert next_of(reader, "status")["seq"] == 2
        assert far.server.mirrored.add("far", [status(3)])
        assert next_of(reader, "status")["seq"] == 3
        far.server.publish(status(1, "near"))
        assert next_of(other, "status")["session"] == "near"  # nothing of the one that it did not name
    assert not far.server.mirrored.is_wanted("near")


def test_it_is_sought_when_a_client_subscribes_and_what_it_wants_is_passed_on(far):
    with at(far.server) as reader:
        reader.send(json.dumps({"type": "subscribe", "session": "far", "since_seq": 0}))
        assert [next_of(reader, "status")["seq"] for _ in range(2)] == [1, 2]
        for message in ({"type": "ack", "id": 3}, {"type": "flush"}, {"type": "set", "language": "de"}):
            reader.send(json.dumps(message | {"session": "far"}))
        assert next_of(reader, "error")["detail"].startswith("session: far is heard by another server")
        assert far.wanted == [Ack(3, "far"), Flush("far")]
        reader.send(json.dumps({"type": "subscribe", "session": "full"}))
        assert next_of(reader, "error")["detail"] == "session: too many"


def test_its_transcript_is_had_here_too(far):
    with urllib.request.urlopen(f"{far.server.url}/transcript?session=far&format=jsonl", timeout=10) as answer:
        assert [json.loads(line)["seq"] for line in answer] == [1, 2]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{far.server.url}/transcript?session=gone", timeout=10)
    assert far.sought == ["far", "gone"]


def test_a_session_that_goes_on_elsewhere_is_sought_for_those_who_named_it(far):
    far.server.open_session(SessionInfo("moves", "nano", None, 16_000))
    with at(far.server) as reader:
        reader.send(json.dumps({"type": "subscribe", "session": "moves"}))
        reader.send(json.dumps({"type": "ping"}))
        next_of(reader, "pong")
        far.sought.clear()
        far.server.close_session("moves")
        reader.send(json.dumps({"type": "ping"}))
        next_of(reader, "pong")
        assert far.sought == ["moves"]


def test_another_numbering_is_told_to_those_who_are_there(far):
    with at(far.server) as reader:
        before = next_of(reader, "hello")["run"]
        far.server.share_run("of all")
        assert next_of(reader, "hello")["run"] == "of all" != before
