"""The client library against a real server: nothing lost, nothing twice, whatever the network does in between."""

import asyncio
import json
import subprocess
import sys

import pytest
from websockets.asyncio.server import serve as listen

from streamer.client import Client, EventsGap, Heartbeat, Hello, Ingest, LanguageSet, Pong, RefusedError, Unknown
from streamer.client import connection as client_connection
from streamer.errors import StreamerError
from streamer.events import Event, Status
from streamer.server.actions import Actions
from streamer.server.hub import HubLimits
from streamer.server.messages import Ack, Flush, IngestStart, Mark, SessionInfo
from streamer.server.websocket import ServerThread
from streamer.settings.server import ServerSettings

TOKEN = "a-long-token"


def status(seq: int, session: str = "main") -> Status:
    return Status(session=session, seq=seq, audio_t=seq / 10, state="listening", detail=str(seq))


@pytest.fixture
def first_session() -> str:
    return "main"


async def until(client: Client, seq: int) -> list:
    told = []
    async with asyncio.timeout(20):
        async for event in client.events():
            told.append(event)
            if isinstance(event, Event) and event.seq == seq:
                return told
    raise AssertionError(told)


def test_events_come_as_the_records_that_they_were(serve):
    server = serve(token=TOKEN)
    for seq in (1, 2, 3):
        server.publish(status(seq))

    async def scenario():
        async with Client(server.url, token=TOKEN, since_seq=1) as client:
            return await until(client, 3)

    assert asyncio.run(scenario()) == [status(2), status(3)]


def test_without_a_number_only_what_is_new_comes(serve):
    server = serve()
    server.publish(status(1))

    async def scenario():
        async with Client(f"ws://127.0.0.1:{server.port}/") as client:
            first = await anext(client.messages())
            assert isinstance(first, Hello)
            assert first.sessions[0].last_seq == 1
            server.publish(status(2))
            return await until(client, 2)

    assert asyncio.run(scenario()) == [status(2)]


def test_a_connection_that_breaks_loses_nothing_and_repeats_nothing(serve, monkeypatch):
    monkeypatch.setattr(client_connection, "RETRY_S", 0.01)
    server = serve()
    for seq in range(1, 4):
        server.publish(status(seq))

    async def scenario():
        async with Client(server.url, since_seq=0) as client:
            told = await until(client, 3)
            for seq in range(4, 20, 4):
                assert client._socket is not None
                client._socket.transport.abort()
                for number in range(seq, seq + 4):
                    server.publish(status(number))
                told += await until(client, seq + 3)
            return told

    assert asyncio.run(scenario()) == [status(seq) for seq in range(1, 20)]


def test_a_server_that_was_started_anew_is_read_from_its_begin(serve, monkeypatch):
    monkeypatch.setattr(client_connection, "RETRY_S", 0.01)
    first = serve()
    first.publish(status(1))
    first.publish(status(2))

    async def scenario():
        async with Client(first.url, since_seq=0) as client:
            told = await until(client, 2)
            await asyncio.to_thread(first.stop)
            second = ServerThread(ServerSettings(port=first.port))
            second.start()
            try:
                second.open_session(SessionInfo("main", "nano", None, 16_000))
                second.publish(status(1))
                return told + await until(client, 1)
            finally:
                second.stop()

    assert asyncio.run(scenario()) == [status(1), status(2), status(1)]


def test_what_the_server_no_longer_has_is_told(serve):
    server = serve(limits=HubLimits(max_events=3))
    for seq in range(1, 11):
        server.publish(status(seq))

    async def scenario():
        async with Client(server.url, since_seq=2) as client:
            return await until(client, 10)

    gap, *events = asyncio.run(scenario())
    assert isinstance(gap, EventsGap)
    assert (gap.session, gap.from_seq) == ("main", 3)
    assert gap.to_seq >= 7
    assert events == [status(seq) for seq in range(gap.to_seq + 1, 11)]


def test_a_client_says_what_there_is_to_say(serve):
    said: list[object] = []
    actions = Actions(ack=said.append, flush=said.append, mark=said.append, set_language=lambda wish: wish)
    server = serve(actions, token=TOKEN, allow_set=True)

    async def scenario():
        async with Client(server.url, token=TOKEN) as client:
            await client.acknowledge(3, "main")
            await client.mark(3, "main")
            await client.flush()
            await client.set_language("de", "main")
            await client.ping()
            answers = []
            async for message in client.messages():
                answers.append(message)
                if isinstance(message, Pong):
                    return answers
        raise AssertionError

    answers = asyncio.run(scenario())
    assert said == [Ack(3, "main"), Mark(3, True, "main"), Flush()]
    assert LanguageSet(session="main", language="de") in answers


@pytest.mark.parametrize("token", ["wrong", None])
def test_who_is_not_let_in_does_not_try_for_ever(serve, token):
    server = serve(token=TOKEN)

    async def scenario():
        async with asyncio.timeout(10), Client(server.url, token=token) as client:
            async for _ in client.events():
                pass

    with pytest.raises(RefusedError, match="token"):
        asyncio.run(scenario())


def test_without_reconnecting_nobody_there_is_an_error(serve):
    server = serve()
    server.stop()

    async def scenario():
        async with Client(server.url, reconnect=False):
            pass

    with pytest.raises(OSError, match="cannot connect"):
        asyncio.run(scenario())
    with pytest.raises(ValueError, match="http://localhost"):
        Client("localhost:8765")


def test_a_server_of_a_later_version_is_no_trouble():
    """What nobody knows yet comes as it is, numbers count, and nothing comes twice."""
    hello = {"v": 1, "type": "hello", "version": 1, "run": "r", "capabilities": [], "mood": "good"}
    hello["sessions"] = [
        {"session": "s", "model": "m", "head": None, "sample_rate": 16000, "oldest_seq": 1, "last_seq": 0}
    ]
    scene = {"v": 1, "type": "scene", "session": "s", "seq": 1, "audio_t": 1.0, "scene": "quiet"}

    async def scenario():
        async def handle(socket):
            for message in (hello, scene, scene, {"v": 1, "type": "weather"}):
                await socket.send(json.dumps(message))
            await socket.wait_closed()

        async with listen(handle, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with Client(f"http://127.0.0.1:{port}") as client:
                events = client.events()
                return [await anext(events), await anext(events)]

    assert asyncio.run(scenario()) == [Unknown(fields=scene), Unknown(fields={"v": 1, "type": "weather"})]


def test_what_was_had_already_is_not_told_as_lost_and_a_quick_close_is_no_error(monkeypatch):
    monkeypatch.setattr(client_connection, "RETRY_S", 0.01)
    hello = {"v": 1, "type": "hello", "version": 1, "run": "r", "capabilities": []}
    names = [{"session": name, "model": "m", "head": None, "sample_rate": 16000, "oldest_seq": 1} for name in "ab"]
    hello["sessions"] = [one | {"last_seq": 0} for one in names]
    gap = {"v": 1, "type": "gap", "kind": "events", "session": "b", "from_seq": 1, "reason": "too old"}
    event = {"v": 1, "type": "status", "session": "b", "seq": 5, "audio_t": 1.0, "state": "listening", "detail": ""}
    connections: list[str] = []

    async def scenario():
        async def handle(socket):
            connections.append("")
            await socket.send(json.dumps(hello))
            if len(connections) == 2:
                return socket.transport.abort()
            await socket.recv()
            told = [event] if len(connections) == 1 else [gap | {"to_seq": 4}, gap | {"to_seq": 7}, event | {"seq": 8}]
            for message in told:
                await socket.send(json.dumps(message))
            if len(connections) == 1:
                return await socket.close(1012)
            return await socket.wait_closed()

        async with listen(handle, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with asyncio.timeout(20), Client(f"http://127.0.0.1:{port}") as client:
                events = client.events()
                return [await anext(events) for _ in range(3)]

    first, lost, last = asyncio.run(scenario())
    assert (first.seq, last.seq) == (5, 8)
    assert (lost.from_seq, lost.to_seq) == (6, 7)


def test_a_silent_server_is_left(serve, monkeypatch):
    monkeypatch.setattr(client_connection, "SILENT_S", 0.2)

    async def scenario():
        async def handle(socket):
            await socket.wait_closed()

        async with listen(handle, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with asyncio.timeout(20), Client(f"http://127.0.0.1:{port}", reconnect=False) as client:
                return [message async for message in client.messages()]

    assert asyncio.run(scenario()) == []


class Sink:
    """Takes sound and ends its session with it."""

    begin_s = None

    def __init__(self, start: IngestStart, server: ServerThread) -> None:
        self.session, self.heard, self._start, self._server = "in1", b"", start, server
        server.open_session(SessionInfo("in1", "nano", None, 16_000))

    async def write(self, pcm: bytes) -> None:
        self.heard += pcm

    def finish(self) -> None:
        if self._start is not None:
            self._server.publish(Status(session="in1", seq=1, audio_t=len(self.heard) / 32_000, state="stopped"))
            self._server.close_session("in1")
            self._start = None


def test_sound_is_sent_and_its_events_come_back(serve):
    sinks: list[Sink] = []

    def open_ingest(start: IngestStart) -> Sink:
        sinks.append(Sink(start, server))
        return sinks[-1]

    server = serve(Actions(open_ingest=open_ingest), token=TOKEN)
    sound = bytes(range(256)) * 8192  # 2 MiB: more than a message may have

    async def scenario():
        async with Ingest(server.url, sample_rate=16_000, token=TOKEN) as ingest:
            assert ingest.session == "in1"
            await ingest.send_audio(sound)
            await ingest.stop()
            return [event async for event in ingest.messages() if not isinstance(event, Heartbeat)]

    assert asyncio.run(scenario()) == [Status(session="in1", seq=1, audio_t=len(sound) / 32_000, state="stopped")]
    assert sinks[0].heard == sound


def test_a_sender_that_is_not_wanted_is_told_why(serve):
    async def scenario(**options):
        async with Ingest(server.url, **{"sample_rate": 16_000, "token": TOKEN, **options}):
            pass

    server = serve(token=TOKEN)
    with pytest.raises(OSError, match="takes no sound"):
        asyncio.run(scenario())
    with pytest.raises(RefusedError, match="sample_rate"):
        asyncio.run(scenario(sample_rate=5))
    with pytest.raises(RefusedError, match="token"):
        asyncio.run(scenario(token="wrong"))


def test_a_sender_that_is_not_wanted_leaves_its_connection():

    async def scenario():
        gone = asyncio.Event()

        async def handle(socket):
            await socket.send('{"v":1,"type":"error","detail":"not now"}')
            await socket.wait_closed()  # this server leaves it to the client
            gone.set()

        async with listen(handle, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(RefusedError, match="not now"):
                async with asyncio.timeout(20), Ingest(f"http://127.0.0.1:{port}", sample_rate=16_000):
                    pass
            async with asyncio.timeout(20):
                await gone.wait()

    asyncio.run(scenario())


@pytest.mark.parametrize("close_code", [4000, 1012, 1013, None])
def test_a_session_goes_on_at_the_next_server_with_what_that_one_asks_for(monkeypatch, close_code):
    """The first two are gone in the middle, the second before it said anything; None: without a word."""
    monkeypatch.setattr(client_connection, "RETRY_S", 0.01)
    starts, heard = list[dict[str, object]](), list[bytes]()
    sound = bytes(range(250)) * 1280  # ten seconds

    async def handle(socket):
        hello = {"v": 1, "type": "hello", "version": 1, "run": "r", "sessions": [], "capabilities": ["resume"]}
        await socket.send(json.dumps(hello))
        starts.append(json.loads(await socket.recv()))
        heard.append(b"")
        if len(starts) == 2:
            return socket.transport.abort()
        goes_on = {"audio_t": 2.5} if len(starts) == 3 else {}
        await socket.send(json.dumps({"v": 1, "type": "started", "session": "in1", **goes_on}))
        for seq in range(1, len(starts) + 1):  # all that is known comes again
            event = {"v": 1, "type": "status", "session": "in1", "seq": seq, "audio_t": 0.5, "detail": ""}
            await socket.send(json.dumps(event | {"state": "listening"}))
        while isinstance(message := await socket.recv(), bytes):
            heard[-1] += message
            if len(starts) == 1 and len(heard[-1]) >= 96_000:
                return await socket.close(close_code) if close_code else socket.transport.abort()
        return None

    async def scenario():
        async with listen(handle, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with asyncio.timeout(20), Ingest(url, sample_rate=16_000) as ingest:
                told = asyncio.create_task(_numbers(ingest))
                for at in range(0, len(sound), 32_000):
                    await ingest.send_audio(sound[at : at + 32_000])
                    await asyncio.sleep(0)
                await ingest.stop()
                return await told

    async def _numbers(ingest: Ingest) -> list[int]:
        return [event.seq async for event in ingest.events() if isinstance(event, Event)]

    assert asyncio.run(scenario()) == [1, 2, 3]
    assert "session" not in starts[0]
    assert {(start["session"], start["audio_t"]) for start in starts[1:]} == {("in1", 0.0)}
    assert heard[2] == sound[80_000:]


def test_a_session_that_is_kept_nowhere_ends_with_its_connection(monkeypatch):
    monkeypatch.setattr(client_connection, "RETRY_S", 0.01)
    capabilities: list[str] = []
    count = [0]

    async def handle(socket):
        hello = {"v": 1, "type": "hello", "version": 1, "run": "r", "sessions": [], "capabilities": capabilities}
        await socket.send(json.dumps(hello))
        await socket.recv()
        count[0] += 1
        if count[0] > 1:
            await socket.send(json.dumps({"v": 1, "type": "error", "detail": "session: 'in1' is not kept here"}))
            return await socket.close(1008)
        await socket.send(json.dumps({"v": 1, "type": "started", "session": "in1"}))
        return await socket.close(1012, "restarting")

    async def scenario():
        async with listen(handle, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with asyncio.timeout(20), Ingest(url, sample_rate=16_000) as ingest:
                with pytest.raises(StreamerError, match="1012 restarting"):
                    assert [event async for event in ingest.events()] == []

    asyncio.run(scenario())
    assert count[0] == 1  # this server never said that it goes on
    capabilities.append("resume")
    count[0] = 0
    asyncio.run(scenario())
    assert count[0] == 2


def test_it_needs_nothing_of_what_the_program_runs_on():
    code = "import streamer.client, sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True)
    assert not {"torch", "numpy", "pydantic", "av", "onnxruntime"} & set(done.stdout.split())
