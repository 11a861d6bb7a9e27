"""Trying the deliveries: a web server, a program and a broker that are really there, or that fail as they do."""

import json
import socket
import sys

import pytest
from alerts_made import wait_for
from test_mqtt import Broker, Listener, broker, needs_broker, opened  # noqa: F401  broker is a fixture
from web_receiver import receiver

from streamer.alerts.trial import trials
from streamer.errors import UsageError
from streamer.settings.config import validate

TELL = "import os,sys; open(sys.argv[1],'a').write(' '.join(os.environ[f'STREAMER_{n}'] for n in sys.argv[2:])+'\\n')"


UNSET = "delivery.push[1].url_env: the environment variable NOWHERE is not set; set it or name another one"


def given(**delivery):
    return validate({"delivery": delivery})


def tried(settings, **more):
    return {trial.name: trial for trial in trials(settings, **more)}


def test_each_is_told_once_by_a_marked_test_and_nothing_of_it_stays(tmp_path):
    fields = ("TEST", "SOURCE", "STATE", "TITLE")
    bell = {"name": "bell", "argv": [sys.executable, "-c", TELL, str(tmp_path / "told"), *fields]}
    with receiver() as server:
        phone = {"name": "phone", "url": server.url.replace("http://", "json://")}
        settings = given(push=[phone], webhooks=[{"name": "house", "url": server.url}], commands=[bell])
        found = tried(settings, rule="siren", environment={"XDG_STATE_HOME": str(tmp_path / "state")})
    assert list(found) == ["push phone", "webhook house", "command bell"]
    assert [(one.failed, one.after_ms is not None, one.why) for one in found.values()] == [(False, True, "")] * 3
    assert found["webhook house"].place == "127.0.0.1"
    push, *posts = ((headers, json.loads(body)) for headers, body in server.got)
    assert (push[1]["title"], push[1]["message"]) == ("‼ TEST: Siren", "This is a test: nothing was heard.")
    assert [(event["state"], event["test"], event["source"], event["rule"]) for _, event in posts] == [
        ("raised", True, "test", "siren"),
        ("cleared", True, "test", "siren"),
    ]
    assert all(headers["idempotency-key"].startswith("test-") for headers, _ in posts)
    assert (tmp_path / "told").read_text() == "true test raised ‼ TEST: Siren\ntrue test cleared TEST: Siren: over\n"
    assert not (tmp_path / "state").exists()  # neither a history nor a spool


def test_what_fails_says_why_and_the_others_are_tried_all_the_same(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
    with receiver() as wrong, receiver() as good:
        wrong.status = 401
        settings = given(
            push=[
                {"name": "phone", "url": wrong.url.replace("http://", "json://")},
                {"name": "unset", "url_env": "NOWHERE"},
            ],
            webhooks=[
                {"name": "refused", "url": wrong.url},
                {"name": "away", "url": f"http://{nobody}/topsecret"},
                {"name": "good", "url": good.url},
            ],
            commands=[{"name": "ends", "argv": [sys.executable, "-c", "exit(3)"]}],
            mqtt={"host": "127.0.0.1", "port": int(nobody.split(":")[1])},
        )
        found = tried(settings, environment={})
    whys = {name: trial.why for name, trial in found.items() if trial.failed}
    assert whys == {
        "mqtt": "Connection refused",
        "push phone": "the service answered 401",
        "push unset": UNSET,
        "webhook refused": "the server answered 401",
        "webhook away": "Connection refused",
        "command ends": "refused: it ended with status 3",
    }
    assert found["webhook good"].after_ms is not None
    assert all(trial.after_ms is None for trial in found.values() if trial.failed)


def test_each_gets_the_gravest_rule_that_it_is_told_of():
    hook = {"name": "doors", "rules": ["doorbell"], "states": ["raised"]}
    with receiver() as server:
        settings = given(webhooks=[{**hook, "url": server.url}, {"name": "all", "url": server.url}])
        assert [trial.failed for trial in trials(settings)] == [False, False]
        (left_out,) = trials(settings, rule="siren", to="doors")
    events = [json.loads(body) for _, body in server.got]
    assert [(event["rule"], event["state"]) for event in events[:1]] == [("doorbell", "raised")]
    assert events[1]["severity"] == "critical"
    assert (left_out.after_ms, left_out.failed) == (None, False)
    assert "is not told of this rule" in left_out.why


def test_what_cannot_be_tried_is_one_line():
    for settings, more, why in (
        (given(), {}, "no delivery is configured: `streamer alerts phone`"),
        (given(commands=[{"name": "bell", "argv": ["true"]}]), {"to": "phone"}, "--to: no .* 'phone'; there are bell"),
        (given(commands=[{"name": "bell", "argv": ["true"]}]), {"rule": "x"}, "--rule: no rule is called 'x'; there"),
    ):
        with pytest.raises(UsageError, match=why):
            trials(settings, **more)


@needs_broker
def test_a_broker_is_tried_beside_a_running_streamer_without_touching_its_states(broker):  # noqa: F811
    running, listener = opened(broker.port), Listener(broker.port)
    settings = given(mqtt={"host": "127.0.0.1", "port": broker.port, "device": "hall"})
    (found,) = trials(settings, rule="siren")
    assert (found.failed, found.place) == (False, "127.0.0.1"), found.why
    wait_for(lambda: listener.of("streamer/hall/test") and listener.of("homeassistant/event/hall/test/config"))
    heard = listener.got
    states = {(topic, payload) for topic, payload, _ in heard if topic.endswith(("/state", "/availability"))}
    assert {payload for _, payload in states} == {"OFF", "online"}
    assert not [topic for topic, *_ in heard if topic.endswith(("/attributes", "hall/event", "hall/alert"))]
    (event,) = (json.loads(text) for text in listener.of("streamer/hall/test"))
    assert (event["event_type"], event["test"], event["rule"], event["state"]) == ("test", True, "siren", "raised")
    (entity,) = (json.loads(text) for text in listener.of("homeassistant/event/hall/test/config"))
    assert (entity["state_topic"], entity["event_types"]) == ("streamer/hall/test", ["test"])
    assert running.stop(10)
    listener.close()


@needs_broker
def test_a_broker_that_refuses_the_password_says_so(tmp_path):
    made = Broker(tmp_path, ("allow_anonymous false",))
    made.start()
    try:
        mqtt = {"host": "127.0.0.1", "port": made.port, "username": "x", "password_env": "PW"}
        (found,) = trials(given(mqtt=mqtt), environment={"PW": "topsecret"})
    finally:
        made.stop()
    assert found.failed
    assert "refused the connection: Not authorized" in found.why
