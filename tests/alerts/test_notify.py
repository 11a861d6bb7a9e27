"""Push services through apprise, against a real web server that speaks apprise's own json:// protocol."""

import contextlib
import io
import json
import logging
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from alerts_made import alert, wait_for
from web_receiver import receiver

from streamer.alerts.deliveries import open_deliveries
from streamer.alerts.delivery import NotDeliveredError
from streamer.alerts.parcels import Parcel, parcel_key
from streamer.alerts.targets import Push, body, title
from streamer.errors import ConfigError
from streamer.output.terminal import TerminalView
from streamer.settings.config import validate

NAMES = {"siren": "Siren"}


def parcel(state="raised", **fields):
    made = alert(1, state, **fields)
    return Parcel(1, made, parcel_key(made), 0.0)


def push(server, timeout_s=5.0, **more):
    return Push("phone", as_apprise(server.url), names=NAMES, timeout_s=timeout_s, path="delivery.push[0].url", **more)


def as_apprise(url):
    return url.replace("http://", "json://").replace("?token=", "?+x-token=")


def test_a_notification_says_what_was_heard_and_where_asked_for_what_was_said():
    with receiver() as server:
        push(server, text=True).send(parcel())
        push(server, text=True).send(parcel("cleared"))
    first, second = (json.loads(body) for _, body in server.got)
    assert (first["title"], first["type"]) == ("‼ Siren", "failure")
    assert "Heard: Siren" in first["message"]
    assert "Siren 0.91" in first["message"]
    assert "“what is “that”?”" in first["message"]
    assert (second["title"], second["type"]) == ("Siren: over", "success")


def test_what_was_said_stays_here_unless_it_is_asked_for():
    phrase = {"rule": "name", "labels": ("Ada Lovelace",), "heard": ()}
    rules = [{"id": "name", "name": "My name", "phrases": ["Ada Lovelace"]}]
    with receiver() as server:
        url = as_apprise(server.url)
        pushes = [{"name": "quiet", "url": url}, {"name": "full", "url": url, "include_text": True}]
        data = {"alerts": {"rules": rules}, "delivery": {"push": pushes, "history": {"record": "never"}}}
        deliveries = open_deliveries(validate(data), live=True)
        deliveries.start()
        deliveries.put([alert(1), alert(2, **phrase), alert(2, "cleared", **phrase | {"labels": ("x", "withdrawn")})])
        assert deliveries.stop(20)
    told = sorted((json.loads(body)["title"], json.loads(body)["message"]) for _, body in server.got)
    assert [title for title, _ in told] == [*["My name: taken back"] * 2, *["‼ My name"] * 2, *["‼ Siren"] * 2]
    said = [message for _, message in told if "what is" in message or "Ada" in message]
    assert len(said) == 3
    assert ("My name: taken back", "It lasted 2 s.") in told


def test_wording():
    names = {"help": "Call for help"}
    assert title(alert(rule="help", severity="warning"), names) == "Call for help"
    assert title(alert(rule="help", state="updated"), names) == "‼ Call for help: still there"
    assert title(alert(rule="help", state="acknowledged"), names) == "Call for help: seen"
    assert title(alert(rule="my_rule", severity="info"), {}) == "my rule"
    assert title(alert(source="demo"), names | {"siren": "Siren"}) == "‼ (demo) Siren"
    assert title(alert(source="test", state="cleared"), {}) == "TEST: siren: over"
    assert body(alert(source="test")).startswith("This is a test: nothing was heard.")
    assert body(alert(labels=(), heard=(), text="")) == "Severity: critical"
    assert body(alert(too_quiet=True)).splitlines()[:2] == ["Too quiet for you to hear.", "Heard: Siren"]
    assert body(alert(1, "cleared", too_quiet=True)).splitlines()[0] == "Heard: Siren"
    assert "\x1b" not in body(alert(text="a\x1b[2Jb"))


def test_a_service_that_fails_is_tried_again_and_no_address_is_logged(caplog, capfd):
    caplog.set_level(logging.DEBUG)
    with receiver() as server:
        server.status = 503
        with pytest.raises(NotDeliveredError, match="the service answered 503"):
            push(server).send(parcel())
        assert server.tried
    with pytest.raises(NotDeliveredError, match="no connection to the service"):
        push(server).send(parcel())
    for told in (caplog.text, *capfd.readouterr()):
        assert "topsecret" not in told
        assert "127.0.0.1" not in told


def numbered(number):
    made = alert(number)
    return Parcel(number, made, parcel_key(made), 0.0)


def test_a_slow_service_that_takes_it_after_all_is_not_told_twice():
    with receiver() as server:
        server.hang.clear()
        service = push(server, timeout_s=0.2)
        with pytest.raises(NotDeliveredError, match=r"no answer within 0\.2 s"):
            service.send(numbered(1))
        server.hang.set()
        wait_for(lambda: server.got)
        service.send(numbered(2))
        service.send(numbered(1))
    assert len(server.got) == 2


@contextmanager
def dribbling():
    """A service that answers for ever, a line at a time: no limit of a single read ever strikes."""
    listener = socket.create_server(("127.0.0.1", 0))
    ending = threading.Event()

    def answer(connection):
        with contextlib.suppress(OSError), connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while not ending.wait(0.05):
                connection.sendall(b"X-Still: here\r\n")

    def serve():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        ending.set()
        listener.close()


def test_a_service_without_an_end_holds_up_no_other_one(monkeypatch):
    monkeypatch.setattr("streamer.alerts.targets.MAX_STUCK", 7)  # apprise's own pool has six threads on two cores
    with dribbling() as port, receiver() as server:
        service = Push("stuck", f"json://127.0.0.1:{port}/", names=NAMES, timeout_s=0.1, path="delivery.push[0].url")
        for number in range(7):
            with pytest.raises(NotDeliveredError, match="no answer within"):
                service.send(numbered(number))
        with pytest.raises(NotDeliveredError, match="7 calls have no answer"):
            service.send(numbered(8))
        push(server).send(parcel())
        assert len(server.got) == 1


HUNG = """
import sys
sys.path[:0] = [{folder!r}]
from test_notify import NAMES, dribbling, numbered
from streamer.alerts.delivery import NotDeliveredError
from streamer.alerts.targets import Push
service = dribbling()
port = service.__enter__()  # it goes on while the program ends
try:
    Push("stuck", f"json://127.0.0.1:{{port}}/", names=NAMES, timeout_s=0.1, path="x").send(numbered(1))
except NotDeliveredError:
    print("main ends")
"""


def test_the_program_ends_although_a_service_does_not():
    code = HUNG.format(folder=str(Path(__file__).parent))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert (ended.stdout, ended.returncode) == ("main ends\n", 0), ended.stderr


@pytest.mark.parametrize("url", ["nonsense-topsecret", "nosuch://topsecret", "json://", ""])
def test_a_wrong_address_is_one_line_that_does_not_show_it(url):
    with pytest.raises(ConfigError, match=r"delivery\.push\[0\]\.url: must be one URL that apprise knows") as caught:
        Push("phone", url, names=NAMES, timeout_s=5, path="delivery.push[0].url")
    assert "topsecret" not in str(caught.value)


def test_from_the_environment_to_the_service_until_it_answers(caplog):
    with receiver() as server:
        server.status = 500
        data = {"push": [{"name": "phone", "url_env": "PHONE"}], "history": {"record": "never"}}
        settings = validate({"delivery": data})
        deliveries = open_deliveries(settings, live=True, environment={"PHONE": as_apprise(server.url)})
        deliveries.start()
        deliveries.put([alert(1), alert(1, "updated"), alert(1, "cleared"), alert(2, severity="info", rule="silence")])
        wait_for(lambda: server.tried)
        server.status = 200
        wait_for(lambda: len(server.got) == 3)
        assert deliveries.stop(20)
    assert [json.loads(body)["title"] for _, body in server.got] == ["‼ Siren", "Siren: over", "Only silence"]
    assert "topsecret" not in caplog.text


def test_the_end_is_not_told_where_a_rule_says_so():
    with receiver() as server:
        data = {
            "alerts": {"rules": [{"id": "siren", "all_clear": False}]},
            "delivery": {"push": [{"name": "phone", "url": as_apprise(server.url)}], "history": {"record": "never"}},
        }
        settings = validate(data)
        assert "topsecret" not in settings.to_yaml() + repr(settings)
        deliveries = open_deliveries(settings, live=True)
        deliveries.start()
        deliveries.put([alert(1), alert(1, "cleared"), alert(2), alert(2, "cleared", labels=("withdrawn",))])
        assert deliveries.stop(20)
    assert [json.loads(body)["title"] for _, body in server.got] == ["‼ Siren", "‼ Siren", "Siren: taken back"]


def test_critical_alerts_ring_the_terminals_bell_once():
    screen = io.StringIO()
    view = TerminalView(screen, live=True, width=80, height=20)
    view.show(alert(1, severity="warning"))
    assert "\a" not in screen.getvalue()
    for state in ("raised", "updated", "cleared"):
        view.show(alert(2, state))
    assert screen.getvalue().count("\a") == 1
    view.close()
    log = io.StringIO()
    TerminalView(log).show(alert(3))
    assert "\a" not in log.getvalue()
