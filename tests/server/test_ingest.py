"""Sound from a client: over a real socket into a reading thread, and the queue between them under pressure."""

import asyncio
import json
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from streamer.errors import InputError, StreamerError
from streamer.events import Status
from streamer.server.actions import Actions, IngestFullError
from streamer.server.ingest import PcmPiece, PcmQueue
from streamer.server.messages import IngestStart, MessageError, SessionInfo, parse_start
from streamer.server.websocket import ServerThread
from streamer.settings.server import ServerSettings

START = {"type": "start", "sample_rate": 16_000, "encoding": "pcm_s16le", "channels": 1}


class Listeners:
    """Opens one queue for each sender and reads it to the end in a thread of its own."""

    def __init__(self) -> None:
        self.heard: dict[str, np.ndarray] = {}
        self.threads: list[threading.Thread] = []
        self.queues: list[PcmQueue] = []

    def open(self, start: IngestStart) -> PcmQueue:
        if start.sample_rate == 44_100:
            raise InputError("sample_rate: 44100 is not wanted in this test")
        if len(self.queues) == 3:
            raise IngestFullError("ingest: three are enough")
        queue = PcmQueue(start, f"network-{len(self.queues)}")
        self.queues.append(queue)
        thread = threading.Thread(target=self._listen, args=(queue,))
        thread.start()
        self.threads.append(thread)
        return queue

    def _listen(self, queue: PcmQueue) -> None:
        heard = b""
        while not queue.ended:
            piece = queue.read(0.1)
            heard += piece.pcm if piece else b""
        self.heard[queue.session] = np.frombuffer(heard, "<i2")

    def join(self) -> None:
        for thread in self.threads:
            thread.join(10)


@pytest.fixture
def served() -> Iterator[tuple[ServerThread, Listeners]]:
    listeners = Listeners()
    server = ServerThread(ServerSettings(port=0), Actions(open_ingest=listeners.open))
    server.start()
    yield server, listeners
    server.stop()
    listeners.join()


def sender(server: ServerThread) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}/ingest", compression=None, close_timeout=1)


def until_closed(connection: ClientConnection) -> tuple[list[dict], int | None]:
    got = []
    try:
        while True:
            got.append(json.loads(connection.recv(timeout=10)))
    except ConnectionClosed as exc:
        return got, None if exc.rcvd is None else exc.rcvd.code


def pcm(count: int) -> bytes:
    return (np.arange(count) % 1000).astype("<i2").tobytes()


def test_a_client_sends_sound_and_stops(served):
    server, listeners = served
    sound = pcm(40_000)
    with sender(server) as one:
        one.send(json.dumps(START))
        for at in range(0, len(sound), 3001):
            one.send(sound[at : at + 3001])
        one.send("{")
        one.send('{"type":"stop"}')
        messages, code = until_closed(one)
    assert code == 1000
    assert [message["type"] for message in messages] == ["hello", "started", "error"]
    assert messages[1]["session"] == "network-0"
    listeners.join()
    np.testing.assert_array_equal(listeners.heard["network-0"], np.frombuffer(sound, "<i2"))


def test_a_client_that_vanishes_ends_its_session(served):
    server, listeners = served
    with sender(server) as one:
        one.send(json.dumps({**START, "sample_rate": 48_000, "channels": 2}))
        one.send(pcm(48_000 * 2))
    listeners.join()
    assert len(listeners.heard["network-0"]) == 48_000 * 2


def test_wrong_starts_are_named_and_closed(served):
    server, _ = served
    for text, field in [
        ("{", "JSON"),
        ('{"type":"stop"}', "type"),
        (json.dumps({**START, "sample_rate": 1}), "sample_rate"),
        (json.dumps({**START, "sample_rate": 44_100}), "sample_rate"),
        (b"\x00\x00", "binary"),
    ]:
        with sender(server) as one:
            one.send(text)
            messages, code = until_closed(one)
        assert code == 1008
        assert field in messages[-1]["detail"]


def test_full_and_over_sessions_are_closed_with_1013(served):
    server, listeners = served
    for _ in range(3):
        with sender(server) as one:
            one.send(json.dumps(START))
            one.recv(timeout=10), one.recv(timeout=10)
            listeners.queues[-1].stop()
            one.send(pcm(10))
            assert until_closed(one)[1] == 1013
    with sender(server) as late:
        late.send(json.dumps(START))
        assert until_closed(late)[1] == 1013


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"type": "begin"}, "type"),
        ({"encoding": "mp3"}, "encoding"),
        ({"sample_rate": None}, "sample_rate"),
        ({"sample_rate": 16000.0}, "sample_rate"),
        ({"sample_rate": True}, "sample_rate"),
        ({"channels": 0}, "channels"),
        ({"channels": 99}, "channels"),
    ],
)
def test_start_messages(change, field):
    assert parse_start(json.dumps(START)) == IngestStart(16_000)
    with pytest.raises(MessageError, match=field):
        parse_start(json.dumps({**START, **change}))


def test_an_impatient_queue_drops_the_newest_and_announces_it():
    queue = PcmQueue(IngestStart(8_000), "s", capacity_s=0.01, patience_s=0.0)

    async def fill() -> None:
        for _ in range(3):
            await queue.write(pcm(60))

    asyncio.run(fill())
    assert queue.read(0) == PcmPiece(pcm(60))
    assert queue.read(0) is None
    asyncio.run(queue.write(pcm(20)))
    assert queue.read(0) == PcmPiece(pcm(20), lost_frames=120)
    asyncio.run(fill())
    queue.finish()
    assert queue.read(0) == PcmPiece(pcm(60))
    assert not queue.ended
    assert queue.read(0) == PcmPiece(b"", lost_frames=120)
    assert queue.ended


def test_a_patient_queue_waits_for_room():
    queue = PcmQueue(IngestStart(8_000), "s", capacity_s=0.01, patience_s=10.0)

    async def fill_while_read() -> list[PcmPiece | None]:
        writing = asyncio.create_task(_write_all(queue))
        pieces = []
        while not writing.done() or not queue.ended:
            pieces.append(await asyncio.to_thread(queue.read, 0.05))
        return pieces

    pieces = [piece for piece in asyncio.run(fill_while_read()) if piece is not None]
    assert b"".join(piece.pcm for piece in pieces) == pcm(60) * 20
    assert all(piece.lost_frames == 0 for piece in pieces)


async def _write_all(queue: PcmQueue) -> None:
    for _ in range(20):
        await queue.write(pcm(60))
    queue.finish()


def test_writing_to_a_stopped_queue_is_an_error():
    queue = PcmQueue(IngestStart(8_000), "gone")
    queue.stop()
    assert queue.ended
    with pytest.raises(StreamerError, match="gone"):
        asyncio.run(queue.write(pcm(1)))


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(0, 50), max_size=60), channels=st.integers(1, 3))
def test_any_split_of_the_bytes_gives_whole_frames(cuts, channels):
    queue = PcmQueue(IngestStart(8_000, channels), "s")
    sound, at = pcm(600 * channels), 0

    async def send() -> None:
        nonlocal at
        for cut in cuts:
            await queue.write(sound[at : at + cut])
            at += cut
        await queue.write(sound[at:])

    asyncio.run(send())
    queue.finish()
    pieces = []
    while not queue.ended:
        pieces.append(queue.read(0))
    assert all(len(piece.pcm) % (2 * channels) == 0 for piece in pieces if piece)
    assert b"".join(piece.pcm for piece in pieces if piece) == sound


def test_what_was_received_before_a_stop_can_be_read_and_no_more_is_taken():
    queue = PcmQueue(IngestStart(8_000), "s", capacity_s=0.01, patience_s=60.0)

    async def stopped_while_writing() -> None:
        await queue.write(pcm(60))
        waiting = asyncio.create_task(queue.write(pcm(50)))  # no room for it
        await asyncio.sleep(0)
        queue.stop()
        queue.finish()
        with pytest.raises(StreamerError, match="over"):
            await waiting
        with pytest.raises(StreamerError, match="over"):
            await queue.write(pcm(10))

    asyncio.run(stopped_while_writing())
    assert not queue.ended
    assert [queue.read(0), queue.read(0), queue.read(0)] == [PcmPiece(pcm(60)), PcmPiece(pcm(50)), None]
    assert queue.ended


@pytest.fixture
def published() -> Iterator[tuple[ServerThread, Listeners]]:
    """A server whose sessions publish an event for each piece that they read, and `stopped` at the end."""

    class Publishers(Listeners):
        def open(self, start: IngestStart) -> PcmQueue:
            session = f"network-{len(self.queues)}"
            server.open_session(SessionInfo(session, "nano", None, 16_000))
            return super().open(start)

        def _listen(self, queue: PcmQueue) -> None:
            seq = 0
            while not queue.ended:
                if queue.read(0.1):
                    seq += 1
                    server.publish(Status(session=queue.session, seq=seq, audio_t=seq, state="listening"))
            server.publish(Status(session=queue.session, seq=seq + 1, audio_t=seq, state="stopped"))

    listeners = Publishers()
    server = ServerThread(ServerSettings(port=0), Actions(open_ingest=listeners.open))
    server.start()
    yield server, listeners
    server.stop()
    listeners.join()


def test_a_sender_that_asks_gets_its_own_events_to_the_last(published):
    server, _ = published
    with sender(server) as one, sender(server) as other:
        for number, connection in enumerate((one, other)):
            connection.send(json.dumps({**START, "events": number == 0}))
        other.send(pcm(100))
        for _ in range(5):
            one.send(pcm(100))
        one.send('{"type":"stop"}')
        other.send('{"type":"stop"}')
        (messages, code), (others, _) = until_closed(one), until_closed(other)
    assert code == 1000
    assert [message["type"] for message in others] == ["hello", "started"]
    assert [message["type"] for message in messages[:2]] == ["hello", "started"]
    events = [message for message in messages if "seq" in message]
    assert {event["session"] for event in events} == {messages[1]["session"]}
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["state"] == "stopped"
    assert len(events) > 1


def test_a_sender_that_asks_and_goes_away_harms_nobody(published):
    server, listeners = published
    for _ in range(2):
        with sender(server) as one:
            one.send(json.dumps({**START, "events": True}))
            one.send(pcm(100))
            one.recv(timeout=10)
    listeners.join()
    with sender(server) as one:
        one.send(json.dumps({**START, "events": True}))
        one.send('{"type":"stop"}')
        messages, code = until_closed(one)
    assert code == 1000
    assert messages[-1]["state"] == "stopped"


def test_events_is_yes_or_no():
    with pytest.raises(MessageError, match="events"):
        parse_start(json.dumps({**START, "events": "yes"}))


def test_after_waiting_in_vain_no_piece_waits_longer_than_it_sounds(monkeypatch):
    """So that what stands behind the sound comes through, and with room there is patience again."""
    waits_s, timeout = [], asyncio.timeout

    def recorded(delay_s: float) -> asyncio.Timeout:
        waits_s.append(delay_s)
        return timeout(0.01)

    monkeypatch.setattr(asyncio, "timeout", recorded)
    queue = PcmQueue(IngestStart(8_000), "s", capacity_s=0.01, patience_s=2.0)

    async def fill(count: int) -> None:
        for _ in range(count):
            await queue.write(pcm(80))

    asyncio.run(fill(4))  # the first fits
    assert waits_s == [2.0, 0.01, 0.01]
    assert queue.read(0) == PcmPiece(pcm(80))
    asyncio.run(fill(2))  # the first fits again
    assert waits_s[3:] == [2.0]
    assert queue.read(0) == PcmPiece(pcm(80), lost_frames=240)
