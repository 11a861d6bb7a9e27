"""What the program says when it listens: the right page for a phone, a code only on a terminal, never the token."""

import logging
import sys

import pytest

from streamer.output import qr_code
from streamer.runtime.announcement import announce
from streamer.server.websocket import ServerThread
from streamer.settings.config import validate

TOKEN = "a-long-token"


@pytest.fixture
def told(caplog):
    servers = []

    def tell(senders=(), audio=None, **server) -> str:
        if "tls" in server:
            pytest.importorskip("cryptography")
        settings = validate({"server": {"port": 0, "token": TOKEN, **server}, "audio": audio or {}})
        servers.append(ServerThread(settings.server))
        servers[-1].start()
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            announce(servers[-1], settings, senders, " (after 1.0 s)")
        assert TOKEN not in caplog.text
        return "\n".join(record.getMessage() for record in caplog.records)

    yield tell
    for server in servers:
        server.stop()


def test_on_loopback_there_is_nothing_for_phones(told):
    assert told().count("\n") == 0
    own = told(audio={"input": "ingest"})
    assert "a browser here as the microphone: http://127.0.0.1:" in own
    assert "/mic?code=" in own


def test_where_senders_are_heard_a_phone_gets_the_microphone_page(told):
    said = told(host="0.0.0.0", tls="self-signed", audio={"input": "ingest"})
    assert "SHA-256 " in said
    assert "/certificate" in said
    (line,) = [line for line in said.splitlines() if line.startswith("a phone as the microphone: https://")]
    assert "/mic?code=" in line
    assert "localhost" not in line
    named = told(["hall", "two words"], host="0.0.0.0", tls="self-signed")
    assert "/mic?source=hall&code=" in named
    assert "/mic?source=two+words&code=" in named


def test_without_https_it_says_what_phones_need(told):
    said = told(host="0.0.0.0", audio={"input": "ingest"})
    assert "--tls self-signed" in said
    assert "captions on a phone: http://" in said
    assert "/mic" not in said


def test_where_none_are_heard_a_phone_gets_the_captions(told):
    said = told(host="0.0.0.0")
    assert "captions on a phone: http://" in said
    assert "/?code=" in said.splitlines()[-1]


def test_the_code_for_the_camera_is_for_terminals(told, monkeypatch):
    pytest.importorskip("segno")
    assert "▄" not in told(host="0.0.0.0")
    shown = []
    monkeypatch.setattr(qr_code, "for_terminal", lambda text: shown.append(text) or "CODE")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    said = told(host="0.0.0.0")
    assert said.endswith(f"captions on a phone: {shown[0]}\nCODE")
