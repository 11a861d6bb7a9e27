"""Anything that a client may say: one clear refusal, no traceback, and the server goes on."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from streamer.events import Status
from streamer.server import sockets
from streamer.server.actions import Actions, Reply
from streamer.server.ingest import PcmQueue
from streamer.server.messages import SessionInfo, SetLanguage, Taught, Teach, parse, parse_start, subscribe_from_query
from streamer.server.websocket import ServerThread
from streamer.settings.server import ServerSettings

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
KINDS = st.sampled_from(("subscribe", "ack", "mark", "set", "teach", "ping", "flush", "start", "stop", "nonsense"))
FIELDS = st.sampled_from(
    (
        "types",
        "session",
        "since_seq",
        "complete",
        "id",
        "false_alarm",
        "language",
        "sample_rate",
        "channels",
        "source",
        "name",
        "start",
        "ago",
        "undo",
    )
)
OBJECTS = st.builds(lambda kind, rest: {**rest, "type": kind}, KINDS | ANYTHING, st.dictionaries(FIELDS, ANYTHING))
STRANGE = st.sampled_from(
    (
        "[" * 100_000,
        '{"type":' + "9" * 5000 + "}",
        '{"type":"ack","id":1e400}',
        '{"type":"ack","id":NaN}',
        "",
        "null",
        "\\ud800",
    )
)
TEXTS = OBJECTS.map(json.dumps) | ANYTHING.map(json.dumps) | st.text(max_size=100) | STRANGE
MESSAGES = TEXTS | st.binary(max_size=50)


def refusal(read: Callable[[Any], object], given: object) -> str | None:
    """The one line that says why it cannot be used; None: it can."""
    try:
        read(given)
    except ValueError as error:  # MessageError is one
        return str(error) if "\n" not in str(error) else ""
    return None


@given(text=MESSAGES)
@example(text='{"type":"set","language":{"a":[]}}')
@example(text='{"type":"subscribe","types":["\\ud800"],"since_seq":0}')
def test_what_cannot_be_used_is_one_line(text):
    for read in (parse, parse_start):
        assert refusal(read, text) is None or 0 < len(refusal(read, text)) < 400


@given(
    query=st.text(max_size=60) | st.builds("since_seq={}&types={}".format, st.text(max_size=20), st.text(max_size=20))
)
@example(query="since_seq=\u0663")
@example(query="&".join(f"a{number}=1" for number in range(100)))
@example(query="since_seq=" + "9" * 16)
def test_any_query_is_a_subscription_or_one_line(query):
    assert refusal(subscribe_from_query, query) is None or refusal(subscribe_from_query, query)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerThread]:
    def obey(message: SetLanguage) -> SetLanguage:
        return SetLanguage(message.language, "main")

    def teach(message: Teach, reply: Reply) -> None:
        reply(Taught(message.name, 1, 3, learned=False))

    actions = Actions(
        open_ingest=lambda start: PcmQueue(start, "in"), set_language=obey, mark=lambda mark: None, teach=teach
    )
    running = ServerThread(ServerSettings(port=0, token="a-long-token", allow_set=True), actions)
    with pytest.MonkeyPatch.context() as patch:
        # Who is refused with more than four messages in line is waited for: that is no test of the wait.
        patch.setattr(sockets, "CLOSE_S", 0.2)
        running.start()
    running.open_session(SessionInfo("main", "nano", None, 16_000))
    for seq in range(1, 4):
        running.publish(Status(session="main", seq=seq, audio_t=0.0, state="listening"))
    yield running
    running.stop()


def client(server: ServerThread, path: str, query: str = "") -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}{path}?token=a-long-token{query}", compression=None, close_timeout=1)


def until_closed(connection: ClientConnection) -> int:
    """The close code; all that came before is JSON of a known type."""
    types, code = set(), 0
    try:
        while True:
            types.add(json.loads(connection.recv(timeout=10))["type"])
    except ConnectionClosed as error:
        code = error.rcvd.code if error.rcvd else 0
    assert types <= {"hello", "error", "started"}
    return code


def still_serves(server: ServerThread) -> bool:
    with client(server, "/ws") as other:
        return json.loads(other.recv(timeout=10))["type"] == "hello"


FEW = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FEW
@given(said=st.lists(MESSAGES, min_size=1, max_size=8), since_seq=st.text(max_size=10) | st.integers().map(str))
def test_the_server_answers_each_with_at_most_one_error_and_goes_on(server, caplog, said, since_seq):
    caplog.clear()
    with caplog.at_level(logging.INFO), client(server, "/ws", f"&since_seq={quote(since_seq)}") as one:
        with contextlib.suppress(ConnectionClosed):
            for message in said:
                one.send(message)
            one.send('{"type":"subscribe"}')
            one.send('{"type":"ping"}')
        errors, code = 0, 1008
        try:
            while (got := json.loads(one.recv(timeout=10)))["type"] != "pong":
                errors += got["type"] == "error"
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 0
        assert code in (1008, 1009)
        assert errors <= 2 * len(said) + 1  # a subscription with types that nobody sends is one of its own
    assert still_serves(server)
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.WARNING]


@FEW
@given(start=MESSAGES, then=st.lists(MESSAGES, max_size=4))
def test_any_start_of_a_sender_is_taken_or_refused_by_name(server, caplog, start, then):
    caplog.clear()
    with caplog.at_level(logging.INFO), client(server, "/ingest") as sender:
        with contextlib.suppress(ConnectionClosed):
            for message in (start, *then, '{"type":"stop"}'):
                sender.send(message)
        assert until_closed(sender) in (1000, 1008)
    assert still_serves(server)
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.WARNING]
