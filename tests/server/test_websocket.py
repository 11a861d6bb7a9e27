"""The server on real loopback sockets: who gets in, what they get, and that nobody harms anybody else."""

import contextlib
import json
import socket
import ssl
import subprocess
import threading
import urllib.error
import urllib.request

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from streamer.errors import ConfigError
from streamer.events import Event, Status, Tag, Tags
from streamer.server import readers, sockets, websocket
from streamer.server.actions import Actions, Reply
from streamer.server.hub import HubLimits
from streamer.server.messages import Ack, Flush, MessageError, SessionHealth, SessionInfo, SetLanguage, Taught, Teach
from streamer.server.websocket import ServerThread
from streamer.settings.server import ServerSettings

TOKEN = "a-long-token"


def status(seq: int, session: str = "main", detail: str = "") -> Event:
    return Status(session=session, seq=seq, audio_t=seq / 10, state="listening", detail=detail)


def tags(seq: int) -> Event:
    tag = Tag(index=0, label="Speech", score=0.9)
    return Tags(session="main", seq=seq, audio_t=seq / 10, start=0.0, end=1.0, tags=(tag,))


@pytest.fixture
def first_session() -> str:
    return "main"


def client(server: ServerThread, path: str = "/ws", **options) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}{path}", compression=None, close_timeout=1, **options)


def receive(connection: ClientConnection, kind: str | None = None) -> dict:
    """The next message, or the next one of a type."""
    while True:
        message = json.loads(connection.recv(timeout=10))
        if kind is None or message["type"] == kind:
            return message


def events(connection: ClientConnection, upto: int) -> list[dict]:
    """All messages up to the event with that number."""
    out = [receive(connection)]
    while out[-1].get("seq") != upto:
        out.append(receive(connection))
    return out


def drain(connection: ClientConnection) -> tuple[list[dict], int | None]:
    """Everything until the connection is closed, and the server's close code if it still arrived."""
    got = []
    try:
        while True:
            got.append(receive(connection))
    except ConnectionClosed as exc:
        return got, None if exc.rcvd is None else exc.rcvd.code


def close_code(connecting: ClientConnection) -> int | None:
    with connecting as connection:
        return drain(connection)[1]


def get(server: ServerThread, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read(), dict(exc.headers)


def test_hello_then_live_events(serve):
    server = serve()
    with client(server) as one, client(server) as two:
        assert receive(one)["sessions"][0]["session"] == receive(two)["sessions"][0]["session"] == "main"
        server.publish(status(1))
        assert receive(one) == receive(two) == json.loads(status(1).to_json())


def test_replay_after_reconnect_has_nothing_twice_and_nothing_missing(serve, monkeypatch):
    server = serve()
    with client(server) as first:
        receive(first, "hello")  # it is connected: what is published from now on is for it
        for seq in range(1, 6):
            server.publish(status(seq))
        last = events(first, 5)[-1]["seq"]
    for seq in range(6, 9):
        server.publish(status(seq))
    with client(server, f"/ws?since_seq={last}") as again:
        server.publish(status(9))
        assert [message.get("seq") for message in events(again, 9)] == [None, 6, 7, 8, 9]
    monkeypatch.setattr(readers, "HOLD_S", 60.0)
    with client(server) as asking:
        server.publish(status(10))
        asking.send(json.dumps({"type": "subscribe", "since_seq": 7, "types": ["status", "bogus"]}))
        got = events(asking, 10)
        assert [message["seq"] for message in got if "seq" in message] == [8, 9, 10]
        assert "bogus" in next(message["detail"] for message in got if message["type"] == "error")


def test_a_gap_when_the_history_is_too_short(serve):
    server = serve(limits=HubLimits(max_events=10))
    for seq in range(1, 31):
        server.publish(status(seq))
    with client(server, "/ws?since_seq=3&types=status&session=main") as late:
        gap = receive(late, "gap")
        assert (gap["kind"], gap["from_seq"]) == ("events", 4)
        assert [message["seq"] for message in events(late, 30)] == list(range(gap["to_seq"] + 1, 31))


def test_client_messages_reach_the_program(serve):
    said: list[object] = []

    def ack(message: Ack) -> None:
        if message.id == 9:
            raise MessageError("id: no alert 9")
        said.append(message)

    server = serve(Actions(ack=ack, flush=said.append))
    with client(server) as one:
        for text in ('{"type":"ack","id":4}', '{"type":"flush"}', '{"type":"ack","id":9}', '{"type":"ping"}'):
            one.send(text)
        assert receive(one, "error")["detail"] == "id: no alert 9"
        receive(one, "pong")
    assert said == [Ack(4), Flush()]


def test_who_holds_the_token_may_set_the_language_where_that_is_allowed(serve):
    said: list[SetLanguage] = []

    def obey(message: SetLanguage) -> SetLanguage:
        if message.language == ("klingon",):
            raise MessageError("language: 'klingon' is no language")
        said.append(message)
        return SetLanguage(("en", "de"), "main")

    server = serve(Actions(set_language=obey), token=TOKEN, allow_set=True)
    with client(server, f"/ws?token={TOKEN}") as one, client(server, f"/ws?token={TOKEN}&types=alert") as other:
        assert "set" in receive(one)["capabilities"]
        for language in ("English,de", "klingon"):
            one.send(json.dumps({"type": "set", "language": language}))
        assert receive(one, "set") == {"v": 1, "type": "set", "session": "main", "language": "en,de"}
        assert receive(one, "error")["detail"] == "language: 'klingon' is no language"
        other.send('{"type":"ping"}')
        assert [receive(other)["type"] for _ in range(2)] == ["hello", "pong"]  # the answer is for who asked
    assert said == [SetLanguage(("english", "de"))]


@pytest.mark.parametrize(
    ("options", "says"),
    [({"token": TOKEN}, "server.allow_set"), ({}, "server.allow_set"), ({"allow_set": True}, "--token")],
)
def test_elsewhere_nobody_sets_the_language(serve, options, says):
    server = serve(Actions(set_language=lambda message: pytest.fail("it was set")), **options)
    with client(server, f"/ws?token={TOKEN}") as one:
        assert "set" not in receive(one)["capabilities"]
        one.send('{"type":"set","language":"de"}')
        assert says in receive(one, "error")["detail"]


def test_who_may_set_may_teach_where_sounds_are_taught_and_is_told_later(serve):
    asked: list[tuple[Teach, Reply]] = []
    server = serve(Actions(teach=lambda *given: asked.append(given)), token=TOKEN, allow_set=True)
    with client(server, f"/ws?token={TOKEN}") as one, client(server, f"/ws?token={TOKEN}") as other:
        assert "teach" in receive(one)["capabilities"]
        for name in ("bell", "<b>"):
            one.send(json.dumps({"type": "teach", "session": "main", "name": name, "ago": 2.5}))
        assert receive(one, "error")["detail"].startswith("name: must be 1 to 40 letters")
        ((message, reply),) = asked
        assert message == Teach("bell", "main", ago=2.5)
        reply(Taught("bell", 1, 3, learned=False))
        answer = {"v": 1, "type": "taught", "name": "bell", "clips": 1, "needed": 3, "learned": False}
        assert answer.items() <= receive(one, "taught").items()
        reply("teach: this clip: is silent")
        assert receive(one, "error")["detail"] == "teach: this clip: is silent"
        other.send('{"type":"ping"}')
        assert [receive(other)["type"] for _ in range(2)] == ["hello", "pong"]  # the answer is for who asked
    reply(Taught("bell", 1, 3, learned=False))  # nobody is there any more
    server.stop()
    reply(Taught("bell", 1, 3, learned=False))


@pytest.mark.parametrize(
    ("taught", "options", "says"),
    [
        (False, {"token": TOKEN, "allow_set": True}, "own_sounds.from_pages"),
        (True, {"token": TOKEN}, "server.allow_set"),
        (True, {"allow_set": True}, "--token"),
    ],
)
def test_elsewhere_nobody_teaches(serve, taught, options, says):
    server = serve(Actions(teach=(lambda *given: pytest.fail("it was taught")) if taught else None), **options)
    with client(server, f"/ws?token={TOKEN}") as one:
        assert "teach" not in receive(one)["capabilities"]
        one.send('{"type":"teach","name":"bell"}')
        assert says in receive(one, "error")["detail"]


def test_heartbeats_and_levels(serve, monkeypatch):
    monkeypatch.setattr(websocket, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(websocket, "LEVEL_S", 0.05)
    server = serve(Actions(health=lambda: {"main": SessionHealth(0.25, 0.5, -31.0)}))
    with client(server, "/ws?types=level,alert") as one:
        beat, level = receive(one, "heartbeat"), receive(one, "level")
    assert beat["sessions"] == [{"session": "main", "last_audio_age": 0.25, "lag": 0.5}]
    assert beat["uptime"] >= 0
    assert level["dbfs"] == -31.0


def test_strangers_are_closed_with_1008(serve):
    server = serve(token=TOKEN, origins=("https://stream.example",))
    good = f"/ws?token={TOKEN}"
    assert close_code(client(server)) == 1008
    assert close_code(client(server, "/ws?token=wrong")) == 1008
    assert close_code(client(server, good, origin="http://evil.example")) == 1008
    assert close_code(client(server, good, origin="null")) == 1008
    assert close_code(client(server, "/ingest?token=wrong")) == 1008
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        assert close_code(connect(f"ws://evil.example:{server.port}{good}", sock=raw, compression=None)) == 1008
    for options in ({}, {"origin": "https://stream.example"}, {"origin": f"http://127.0.0.1:{server.port}"}):
        with client(server, good, **options) as welcome:
            assert receive(welcome)["type"] == "hello"
    with client(server, additional_headers={"Authorization": f"Bearer {TOKEN}"}) as welcome:
        assert receive(welcome)["type"] == "hello"


def test_pages_and_their_headers(serve):
    server = serve()
    for path, kind in [("/", "text/html"), ("/overlay?lines=2", "text/html"), ("/static/viewer.js", "text/javascript")]:
        code, body, headers = get(server, path)
        assert code == 200
        assert body
        assert headers["Content-Type"].startswith(kind)
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "script-src 'self';" in headers["Content-Security-Policy"]
        styles = "style-src 'self' 'unsafe-inline';" if "overlay" in path else "style-src 'self';"  # OBS's Custom CSS
        assert styles in headers["Content-Security-Policy"]
        assert headers["Content-Security-Policy"].count("unsafe") == styles.count("unsafe")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
    assert json.loads(get(server, "/healthz")[1]) == {"status": "ok"}
    assert get(server, "/nothing")[0] == 404
    assert get(server, "/static/../hub.py")[0] == 404
    assert get(server, "/", Host="evil.example")[0] == 403
    assert get(server, "/ws")[0] == 426


def test_pages_need_the_token_too(serve):
    server = serve(token=TOKEN)
    assert get(server, "/")[0] == 401
    assert get(server, "/overlay?token=wrong")[0] == 401
    assert get(server, f"/?token={TOKEN}")[0] == 200
    assert get(server, "/overlay", Authorization=f"Bearer {TOKEN}")[0] == 200


def test_bad_messages_are_answered_then_closed(serve, monkeypatch):
    monkeypatch.setattr(sockets, "CLOSE_S", 0.2)
    server = serve()
    with client(server) as one:
        one.send("{")
        assert "JSON" in receive(one, "error")["detail"]
        one.send(b"\x00\x01")
        assert "binary" in receive(one, "error")["detail"]
        one.send('{"type":"ping"}')
        receive(one, "pong")
    with client(server) as flooding:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(10_000):
                flooding.send("nonsense")
        assert drain(flooding)[1] == 1008
    with client(server) as large:
        large.send('{"type":"ping","x":"' + "x" * 70_000 + '"}')
        assert drain(large)[1] == 1009


def test_too_many_clients_are_asked_to_come_later(serve):
    server = serve(max_clients=2)
    with client(server) as one, client(server) as two:
        receive(one), receive(two)
        assert close_code(client(server)) == 1013
    with client(server) as later:
        receive(later)


def test_a_slow_reader_delays_nobody_and_is_closed(serve, monkeypatch):
    monkeypatch.setattr(sockets, "CLOSE_S", 0.2)
    server = serve(limits=HubLimits(max_behind=300, max_bytes=2**20))
    detail = "x" * 20_000
    with socket.create_connection(("127.0.0.1", server.port)) as raw, client(server) as quick:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        receive(quick)
        with client(server, sock=raw, max_queue=1) as slow:
            receive(slow)  # hello: from now on it is owed everything
            for seq in range(1, 800):
                server.publish(status(seq, detail=detail))
                assert receive(quick, "status")["seq"] == seq
            seen, closed = drain(slow)
        assert closed in (1013, None)  # the closing frame is lost when it waits behind what is never read
        got = [message["seq"] for message in seen if "seq" in message]
        assert got == list(range(1, len(got) + 1))
        assert len(got) < 799


def test_a_client_that_vanishes_mid_send_harms_nobody(serve):
    server = serve()
    with client(server) as stays:
        with client(server) as gone:
            receive(stays), receive(gone)
            threading.Thread(target=lambda: [server.publish(status(seq)) for seq in range(1, 500)]).start()
            receive(gone, "status")
            gone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            gone.socket.close()
        assert [message["seq"] for message in events(stays, 499)] == list(range(1, 500))


@pytest.mark.parametrize("code", [1000, 1012])
def test_stop_sends_what_is_left_and_closes(serve, code):
    server = serve()
    with (
        client(server) as one,
        client(server, "/ingest") as sender,
        socket.create_connection(("127.0.0.1", server.port)) as half_open,
    ):
        half_open.send(b"GET /ws HTT")
        receive(one), receive(sender)
        for seq in range(1, 200):
            server.publish(status(seq))
        server.stop(code, "over")
        server.publish(status(200))
        got, closed = drain(one)
        assert [message["seq"] for message in got] == list(range(1, 200))
        assert closed == code
        assert drain(sender)[1] == code
    server.stop()
    with pytest.raises(OSError):  # noqa: PT011 - refused or reset, as the system likes
        client(server)


def test_wrong_options_are_named_in_one_line(serve, tmp_path):
    taken = serve().port
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("x")
    for options, option in [
        ({"port": taken}, "--port"),
        ({"host": "0.0.0.0"}, "--token"),
        ({"host": "192.0.2.1", "token": TOKEN}, "--host"),
        ({"host": "no.such.name.invalid", "token": TOKEN}, "--host"),
        ({"tls_cert": str(tmp_path / "none.pem"), "tls_key": str(nonsense)}, "--tls-cert"),
        ({"tls_cert": str(nonsense), "tls_key": str(tmp_path / "none.pem")}, "--tls-key"),
        ({"tls_cert": str(nonsense), "tls_key": str(nonsense)}, "--tls-cert"),
    ]:
        with pytest.raises(ConfigError, match=option) as caught:
            ServerThread(ServerSettings(**{"port": 0, **options})).start()
        assert "\n" not in str(caught.value)
        assert TOKEN not in str(caught.value)


def test_tls(serve, tmp_path):
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost"
    try:
        subprocess.run([*make.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    server = serve(tls_cert=str(cert), tls_key=str(key))
    trust = ssl.create_default_context(cafile=str(cert))
    trust.check_hostname = False
    with connect(f"wss://localhost:{server.port}/ws", ssl=trust, compression=None) as one:
        assert receive(one)["type"] == "hello"
    assert server.url.startswith("https://")


def test_many_threads_may_publish_many_sessions(serve):
    server = serve()
    names = [f"s{number}" for number in range(4)]
    for name in names:
        server.open_session(SessionInfo(name, "nano", None, 16_000))

    def work(name: str) -> None:
        for seq in range(1, 101):
            server.publish(status(seq, name))

    with client(server) as one:
        receive(one)
        workers = [threading.Thread(target=work, args=(name,)) for name in names]
        for worker in workers:
            worker.start()
        seqs: dict[str, list[int]] = {name: [] for name in names}
        for _ in range(400):
            message = receive(one)
            seqs[message["session"]].append(message["seq"])
    assert all(got == list(range(1, 101)) for got in seqs.values())
