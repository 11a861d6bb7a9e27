"""Webhooks against a real server that fails, hangs, restarts and comes back."""

import hashlib
import hmac
import json
import logging

import pytest
from alerts_made import alert, wait_for
from web_receiver import receiver

from streamer.alerts.deliveries import open_deliveries
from streamer.alerts.delivery import Delivery, NotDeliveredError, RefusedError
from streamer.alerts.parcels import Parcel, Spool, parcel_key, read_alert
from streamer.alerts.targets import Webhook, signature
from streamer.errors import ConfigError, Rests
from streamer.settings.config import validate

FAST = Rests(first_s=0.001, longest_s=0.01)
SECRET = "a key that nobody may see"


def parcel(id=1, state="raised"):
    made = alert(id, state)
    return Parcel(1, made, parcel_key(made), 1_700_000_000.25)


def hook(url, secret=SECRET, timeout_s=5.0):
    return Webhook("house", url, secret, timeout_s=timeout_s, wall=lambda: 1_700_000_100.9)


def delivered(messages):
    return [(event["id"], event["state"]) for event in (json.loads(body) for _, body in messages)]


def test_one_post_is_the_event_itself_signed():
    with receiver() as server:
        hook(server.url).send(parcel())
    headers, body = server.got[0]
    assert body.decode() == alert().to_json()
    assert read_alert(json.loads(body)) == alert()
    assert headers["content-type"] == "application/json"
    assert headers["idempotency-key"] == "s1-20261123T040000:1:raised"
    assert headers["x-streamer-made-at"] == "1700000000.250"
    assert headers["x-streamer-timestamp"] == "1700000100"
    right = hmac.new(SECRET.encode(), b"1700000100." + body, hashlib.sha256).hexdigest()
    assert headers["x-streamer-signature"] == f"v1={right}" == signature(SECRET.encode(), 1_700_000_100, body)


def test_without_a_secret_there_is_no_signature():
    with receiver() as server:
        hook(server.url, None).send(parcel())
    assert "x-streamer-signature" not in server.got[0][0]


@pytest.mark.parametrize("status", [301, 307, 401, 404, 408, 410, 429, 500, 503])
def test_what_may_pass_is_tried_again(status):
    with receiver() as server:
        server.status = status
        server.headers = {"Location": server.url, "Retry-After": "7"}
        with pytest.raises(NotDeliveredError, match=f"the server answered {status}") as caught:
            hook(server.url).send(parcel())
    assert caught.value.retry_after_s == 7
    assert len(server.tried) == 1  # redirects are not followed


@pytest.mark.parametrize("status", [400, 409, 413, 415, 422])
def test_what_the_server_does_not_want_is_not_sent_again(status):
    with receiver() as server:
        server.status = status
        with pytest.raises(RefusedError, match=str(status)):
            hook(server.url).send(parcel())


def test_a_server_that_is_silent_or_absent():
    with receiver() as server:
        server.hang.clear()
        with pytest.raises(NotDeliveredError, match="no answer in time"):
            hook(server.url, timeout_s=0.2).send(parcel())
    with pytest.raises(NotDeliveredError, match="refused") as caught:
        hook(server.url).send(parcel())
    assert "topsecret" not in str(caught.value)


def test_a_server_that_fails_for_a_while_loses_nothing_and_keeps_order(tmp_path):
    with receiver() as server:
        server.status = 503
        delivery = Delivery(hook(server.url), limit=100, rests=FAST, spool=Spool(tmp_path, "house"))
        delivery.start()
        for id in range(1, 6):
            for state in ("raised", "updated", "cleared"):
                delivery.put(alert(id, state))
        wait_for(lambda: len(server.tried) > 5)
        server.status = 200
        wait_for(lambda: delivery.waiting == 0)
        delivery.finish()
        assert delivery.join(5)
    assert delivered(server.got) == [(id, state) for id in range(1, 6) for state in ("raised", "updated", "cleared")]
    assert len({headers["idempotency-key"] for headers, _ in server.got}) == 15
    for headers, body in server.got:
        assert headers["x-streamer-signature"] == signature(SECRET.encode(), int(headers["x-streamer-timestamp"]), body)
    assert list((tmp_path / "house").glob("*.json")) == []


def test_a_server_that_goes_away_and_a_restart_of_ours_in_between(tmp_path):
    with receiver() as server:
        port = int(server.url.split(":")[2].split("/")[0])
        hook(server.url).send(parcel(1))
    delivery = Delivery(hook(server.url), limit=100, rests=FAST, spool=Spool(tmp_path, "house"))
    delivery.start()
    delivery.put(alert(2))
    delivery.put(alert(2, "cleared"))
    wait_for(lambda: len(list((tmp_path / "house").glob("*.json"))) == 2)
    delivery.finish()
    assert delivery.join(5)
    with receiver(port) as again:
        delivery = Delivery(hook(again.url), limit=100, rests=FAST, spool=Spool(tmp_path, "house"))
        delivery.start()
        wait_for(lambda: delivery.waiting == 0)
        delivery.finish()
        assert delivery.join(5)
    assert delivered(again.got) == [(2, "raised"), (2, "cleared")]


def settings(url, **more):
    given = {"webhooks": [{"name": "house", "url_env": "HOOK", "secret_env": "KEY"}], "history": {"record": "never"}}
    return validate({"delivery": given | more}), {"HOOK": url, "KEY": SECRET}


def test_from_settings_to_the_server_and_no_secret_anywhere(tmp_path, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    with receiver() as server:
        given, environment = settings(server.url, spool=str(tmp_path))
        shown = given.to_yaml() + repr(given)
        deliveries = open_deliveries(given, live=True, environment=environment)
        deliveries.start()
        server.status = 500
        deliveries.put([alert(1)])
        wait_for(lambda: server.tried and list((tmp_path / "house").glob("*.json")))
        kept = next((tmp_path / "house").glob("*.json")).read_text()
        assert SECRET not in kept
        assert "topsecret" not in kept
        server.status = 200
        wait_for(lambda: server.got)
        assert deliveries.stop(10)
    assert "webhook house: not delivered: the server answered 500" in caplog.text
    for text in (caplog.text, shown, "".join(capsys.readouterr())):
        assert SECRET not in text
        assert "topsecret" not in text


def test_what_is_missing_in_the_environment_is_one_line(tmp_path):
    given, environment = settings("http://127.0.0.1:1/x", spool=str(tmp_path))
    with pytest.raises(ConfigError, match=r"delivery\.webhooks\[0\]\.secret_env: the environment variable KEY is not"):
        open_deliveries(given, live=True, environment=environment | {"KEY": ""})
    with pytest.raises(ConfigError, match=r"delivery\.webhooks\[0\]\.url_env: .* HOOK must be a web address") as caught:
        open_deliveries(given, live=True, environment=environment | {"HOOK": "ftp://topsecret"})
    assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"webhooks": [{"name": "a", "url": "ftp://topsecret"}]}, "delivery.webhooks[0].url: must be a web address"),
        ({"webhooks": [{"name": "a", "url": "https://me:topsecret@x"}]}, "without user and password in it"),
        ({"webhooks": [{"name": "a"}]}, "delivery.webhooks[0]: must have exactly one of url, url_env"),
        ({"webhooks": [{"name": "a", "url": "http://x", "rules": ["topsecret2"]}]}, "delivery.webhooks[0].rules[0]"),
        ({"webhooks": [{"name": "a", "url": "http://x", "states": ["cleared"]}]}, "must hold raised"),
        ({"webhooks": [{"name": "a", "url": "http://x"}] * 2}, "delivery.webhooks[1].name: must be used once only"),
        ({"webhooks": "https://topsecret"}, "delivery.webhooks"),
        ({"push": [{"name": "a", "url": ["json://topsecret"]}]}, "delivery.push[0].url"),
        ({"mqtt": {"host": "x", "password_env": "A"}}, "delivery.mqtt: username: must be given"),
        ({"mqtt": {"host": "x", "refresh_s": 60}}, "at least twice refresh_s"),
    ],
)
def test_wrong_settings_are_refused_without_showing_addresses(data, says):
    with pytest.raises(ConfigError) as caught:
        validate({"delivery": data})
    assert says in str(caught.value)
    assert "topsecret:" not in str(caught.value)
    assert "//topsecret" not in str(caught.value)
