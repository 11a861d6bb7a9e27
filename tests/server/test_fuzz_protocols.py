"""Anything that a client of OpenAI's Realtime or of Wyoming may say: one clear refusal, and the server goes on."""

import contextlib
import json
import logging
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from streamer.server.actions import Actions
from streamer.server.ingest import PcmQueue
from streamer.server.websocket import ServerThread
from streamer.settings.server import ServerSettings

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
ASKED = st.sampled_from(
    [
        "session.update",
        "transcription_session.update",
        *(f"input_audio_buffer.{what}" for what in ("append", "commit", "clear")),
        "nonsense",
    ]
)
IN_SESSION = st.dictionaries(
    st.sampled_from(["type", "audio", "input_audio_format", "input_audio_transcription", "turn_detection"]), ANYTHING
)
FORMAT = st.dictionaries(st.sampled_from(["format", "transcription", "turn_detection", "rate", "language"]), ANYTHING)
SESSIONS = ANYTHING | IN_SESSION | FORMAT.map(lambda given: {"audio": {"input": given}})
REALTIME = st.builds(
    lambda kind, session, audio: json.dumps({"type": kind, "session": session, "audio": audio}),
    ASKED,
    SESSIONS,
    ANYTHING,
)
NAMES = st.sampled_from(["describe", "ping", "transcribe", "audio-start", "audio-chunk", "audio-stop", "nonsense"])
LENGTHS = st.integers(-1, 8) | ANYTHING
DATA = st.dictionaries(st.sampled_from(["rate", "width", "channels", "language", "text"]), ANYTHING, max_size=4)
WYOMING = st.builds(
    lambda kind, data, data_length, payload_length, rest: (
        json.dumps({"type": kind, "data": data, "data_length": data_length, "payload_length": payload_length}).encode()
        + b"\n"
        + rest
    ),
    NAMES | ANYTHING,
    DATA | ANYTHING,
    st.just(0) | LENGTHS,
    st.just(0) | LENGTHS,
    st.binary(max_size=8),
)
FEW = settings(max_examples=30, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def server() -> Iterator[ServerThread]:
    running = ServerThread(
        ServerSettings(port=0, openai=True, wyoming_port=0, max_per_address=10_000),
        Actions(open_ingest=lambda start: PcmQueue(start, "in")),
    )
    running.start()
    yield running
    running.stop()


def no_fault(caplog) -> bool:
    return not [one for one in caplog.records if one.exc_info or one.levelno >= logging.WARNING]


@FEW
@given(said=st.lists(REALTIME | st.text(max_size=40), min_size=1, max_size=5))
@example(said=['{"type":"session.update","session":{"audio":{"input":{"format":{"type":[],"rate":1e400}}}}}'])
@example(said=['{"type":"input_audio_buffer.append","audio":"AAA="}', '{"type":"input_audio_buffer.commit"}'])
@example(said=['{"type":"input_audio_buffer.append","audio":"\\ud800"}'])
@example(said=["[" * 100_000])
def test_realtime(server, caplog, said):
    caplog.clear()
    answers = []
    url = f"ws://127.0.0.1:{server.port}/v1/realtime?intent=transcription"
    with (
        caplog.at_level(logging.INFO),
        connect(url, compression=None, close_timeout=1) as client,
        contextlib.suppress(ConnectionClosed),
    ):
        for one in said:
            client.send(one)
        client.send('{"type":"input_audio_buffer.clear"}')
        while not answers or answers[-1]["type"] != "input_audio_buffer.cleared":
            answers.append(json.loads(client.recv(timeout=20)))
    errors = [one for one in answers if one["type"] == "error"]
    assert len(errors) <= len(said)
    assert all("\n" not in one["error"]["message"] for one in errors)
    assert no_fault(caplog)


@FEW
@given(said=st.lists(WYOMING, min_size=1, max_size=4).map(b"".join) | st.binary(max_size=60))
@example(said=b'{"type":"audio-start","data":{"rate":1e400,"channels":[]}}\n')
@example(said=b'{"type":"audio-chunk","data":{"rate":' + b"9" * 5000 + b"}}\n")
@example(said=b'{"type":"transcribe","data":{"language":{"a":1}}}\n')
@example(said=b'{"type":"transcribe","data":["en"]}\n')
@example(said=b'{"type":{},"data":' + b"[" * 50_000)
def test_wyoming(server, caplog, said):
    caplog.clear()
    with (
        caplog.at_level(logging.INFO),
        socket.create_connection(("127.0.0.1", server.wyoming_port), timeout=20) as client,
    ):
        client.sendall(said)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := client.recv(65536):
                answer += piece
    assert answer.count(b'"type": "error"') <= 1
    assert no_fault(caplog)
    with socket.create_connection(("127.0.0.1", server.wyoming_port), timeout=20) as other:
        other.sendall(b'{"type":"ping"}\n')
        assert b"pong" in other.recv(1000)
