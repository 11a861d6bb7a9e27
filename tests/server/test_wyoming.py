"""Wyoming's wire, byte by byte, and what becomes of a session's events."""

import asyncio
import json
import socket

import pytest

from streamer.errors import ConfigError
from streamer.server.actions import Actions, IngestFullError, IngestSink
from streamer.server.messages import IngestStart, MessageError
from streamer.server.websocket import ServerThread
from streamer.server.wyoming import MAX_PAYLOAD, Message, Transcription, read_message
from streamer.settings.server import ServerSettings


def read(data: bytes) -> list[Message]:
    async def all_of_it() -> list[Message]:
        reader = asyncio.StreamReader(limit=2**16)
        reader.feed_data(data)
        reader.feed_eof()
        found = []
        while (message := await read_message(reader)) is not None:
            found.append(message)
        return found

    return asyncio.run(all_of_it())


def test_exact_bytes():
    assert Message("transcript-stop").encoded() == b'{"type": "transcript-stop", "version": "1.0.0"}\n'
    head, rest = Message("audio-chunk", {"rate": 16_000}, b"\x01\x02").encoded().split(b"\n", 1)
    assert json.loads(head) == {"type": "audio-chunk", "version": "1.0.0", "data_length": 15, "payload_length": 2}
    assert rest == b'{"rate": 16000}\x01\x02'


def test_what_is_written_can_be_read():
    some = [Message("a", {"text": "größer"}, b"\n{}\n"), Message("b"), Message("c", {}, b"x")]
    assert read(b"".join(one.encoded() for one in some)) == some


def test_data_in_the_line_and_behind_it_are_one():
    assert read(b'{"type":"a","data":{"x":1,"y":1},"data_length":7}\n{"y":2}') == [Message("a", {"x": 1, "y": 2})]


def test_a_client_that_goes_away_mid_event_is_gone():
    assert read(b'{"type":"a","payload_length":9}\nabc') == []


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"[1]\n",
        b'{"data":{}}\n',
        b"\xff\xfe\n",
        b'{"type":"a","payload_length":%d}\n' % (MAX_PAYLOAD + 1),
        b'{"type":"a","payload_length":-1}\n',
        b'{"type":"a","data_length":"7"}\n{"y":2}',
        b'{"type":"a","data":[1],"data_length":2}\n{}',
        b'{"type":"a","data_length":2}\n[]',
        b" " * 2**17,
    ],
)
def test_what_is_no_event_is_refused(data):
    with pytest.raises(MessageError):
        read(data)


def transcript(segment: int, text: str) -> dict:
    return {"type": "transcript", "segment": segment, "text": text, "language": "en"}


def test_committed_text_in_chunks_then_all_of_it():
    said = Transcription()
    sound = {"type": "sound", "id": 1, "label": "Siren", "start": 1.0, "end": None, "score": 0.5}
    events = [transcript(0, ""), transcript(0, "Good"), sound, transcript(0, "Good day."), transcript(1, "Yes.")]
    events.append(sound | {"end": 2.0})
    told = [message for event in events for message in said.step(event)] + said.finish()
    assert [(one.type, one.data.get("text")) for one in told] == [
        ("transcript-start", None),
        ("transcript-chunk", "Good"),
        ("transcript-chunk", " day."),
        ("transcript-chunk", " Yes."),
        ("transcript", "Good day. Yes."),
        ("transcript-stop", None),
    ]
    assert told[-2].data["language"] == "en"
    siren = {"label": "Siren", "start": 1.0, "end": 2.0, "score": 0.5}
    assert told[-2].data["streamer"] == {"sounds": [siren], "alerts": []}


def test_nothing_said_is_told_too():
    assert [one.type for one in Transcription().finish()] == ["transcript-start", "transcript", "transcript-stop"]


def test_a_port_in_use_is_named_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"^server\.wyoming_port: {port} is in use by another program"):
            ServerThread(ServerSettings(port=0, wyoming_port=port)).start()


def test_who_cannot_be_carried_is_told_and_counted():
    def full(start: IngestStart) -> IngestSink:
        raise IngestFullError("full: try in 7 s")

    server = ServerThread(ServerSettings(port=0, wyoming_port=0), Actions(open_ingest=full))
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.wyoming_port), 10) as link:
            link.sendall(Message("audio-start", {"rate": 16_000, "width": 2, "channels": 1}).encoded())
            (answer,) = read(b"".join(iter(lambda: link.recv(2**16), b"")))
        assert answer.type == "error"
        assert answer.data["text"] == "full: try in 7 s"
        with socket.create_connection(("127.0.0.1", server.port), 10) as link:
            link.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            metrics = b"".join(iter(lambda: link.recv(2**16), b""))
        assert b'streamer_refused_total{reason="capacity"} 1' in metrics
    finally:
        server.stop()
