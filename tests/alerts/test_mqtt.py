"""MQTT against a real mosquitto on a port of its own, stopped and started again."""

import json
import logging
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from alerts_made import alert, wait_for
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from streamer.alerts.deliveries import open_deliveries
from streamer.alerts.mqtt import device_class, device_id
from streamer.errors import ConfigError
from streamer.settings.config import validate
from streamer.settings.rules import AlertRules

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
needs_broker = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


class Broker:
    """A broker that keeps nothing on disk, as one that was killed."""

    def __init__(self, folder, lines=("allow_anonymous true",)) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._config = folder / "mosquitto.conf"
        self._config.write_text("\n".join([f"listener {self.port} 127.0.0.1", "persistence false", *lines, ""]))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert MOSQUITTO is not None
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(self._listens)

    def stop(self, number: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(10)
            self._process = None

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Listener:
    """Everything that the broker says under `streamer/` and `homeassistant/`, in order."""

    def __init__(self, port: int, username: str | None = None, password: str | None = None) -> None:
        self.got: list[tuple[str, str, bool]] = []
        self.connections = 0
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.username_pw_set(username, password)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._connected
        self._client.on_message = self._message
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()
        wait_for(lambda: self.connections)

    def _connected(self, client, userdata, flags, reason, properties) -> None:
        client.subscribe([("streamer/#", 1), ("homeassistant/#", 1)])
        self.connections += 1

    def _message(self, client, userdata, message) -> None:
        self.got.append((message.topic, message.payload.decode(), message.retain))

    def say(self, topic: str, payload: str) -> None:
        self._client.publish(topic, payload, qos=1).wait_for_publish(5)

    def of(self, topic: str) -> list[str]:
        return [payload for name, payload, _ in list(self.got) if name == topic]

    def last(self, topic: str) -> str | None:
        return (self.of(topic) or [None])[-1]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(tmp_path) -> Iterator[Broker]:
    made = Broker(tmp_path)
    made.start()
    yield made
    made.stop()


def opened(port, environment=None, alerts=None, **more):
    mqtt = {"host": "127.0.0.1", "port": port, "device": "hall", "retry_max_s": 1, **more}
    data = {"delivery": {"mqtt": mqtt, "history": {"record": "never"}}, "alerts": alerts or {}}
    settings = validate(data)
    deliveries = open_deliveries(settings, live=True, environment=environment or {})
    deliveries.start()
    return deliveries


STATE = "streamer/hall/siren/state"
AVAILABLE = "streamer/hall/availability"
SENSOR = "homeassistant/binary_sensor/hall/siren/config"


@needs_broker
def test_home_assistant_finds_every_rule_and_is_told_of_alerts(broker):
    listener = Listener(broker.port)
    deliveries = opened(broker.port)
    wait_for(lambda: listener.last(STATE) == "OFF")
    assert listener.last(AVAILABLE) == "online"
    sensor = json.loads(listener.last(SENSOR))
    assert sensor["state_topic"] == STATE
    assert sensor["availability_topic"] == AVAILABLE
    assert (sensor["device_class"], sensor["expire_after"], sensor["name"]) == ("sound", 100, "Siren")
    enabled = [rule.id for rule in AlertRules.default().rules if rule.enabled]
    event = json.loads(listener.last("homeassistant/event/hall/alert/config"))
    assert event["event_types"] == enabled
    for rule in enabled:
        found = json.loads(listener.last(f"homeassistant/binary_sensor/hall/{rule}/config"))
        assert found["unique_id"] == f"hall_{rule}"
    assert listener.last("homeassistant/binary_sensor/hall/loud/config") in (None, "")  # off: no sensor
    deliveries.put([alert(1), alert(1, "cleared")])
    wait_for(lambda: listener.of(STATE)[-2:] == ["ON", "OFF"])
    attributes = json.loads(listener.last("streamer/hall/siren/attributes"))
    assert attributes == alert(1, "cleared").to_dict()
    told = [json.loads(payload) for payload in listener.of("streamer/hall/event")]
    assert [(item["event_type"], item["score"], item["labels"]) for item in told] == [("siren", 0.91, ["Siren"])]
    assert [json.loads(item)["state"] for item in listener.of("streamer/hall/alert")] == ["raised", "cleared"]
    late = Listener(broker.port)  # configuration, states and availability are retained; events are not
    wait_for(lambda: late.last(SENSOR) and late.last(STATE) and late.last(AVAILABLE))
    assert late.of("streamer/hall/event") == late.of("streamer/hall/alert") == []
    assert deliveries.stop(10)
    wait_for(lambda: listener.last(AVAILABLE) == "offline")
    for client in (listener, late):
        client.close()


@needs_broker
def test_no_sensor_goes_on_for_what_a_file_or_the_demo_holds(broker):
    listener, deliveries = Listener(broker.port), opened(broker.port)
    deliveries.put([alert(1, source="demo"), alert(2, source="file"), alert(3, rule="dog")])
    wait_for(lambda: listener.of("streamer/hall/event"))
    assert [json.loads(text)["event_type"] for text in listener.of("streamer/hall/event")] == ["dog"]
    assert listener.last(STATE) == "OFF"
    assert deliveries.stop(10)
    listener.close()


@needs_broker
def test_a_broker_that_is_killed_and_comes_back_gets_everything_in_order(broker, caplog):
    listener = Listener(broker.port)
    deliveries = opened(broker.port)
    deliveries.put([alert(1)])
    wait_for(lambda: listener.last(STATE) == "ON")
    broker.stop(signal.SIGKILL)
    for id in (2, 3, 4):
        deliveries.put([alert(id, rule="knock", severity="info"), alert(id, "cleared", rule="knock", severity="info")])
    deliveries.put([alert(1, "cleared")])
    wait_for(lambda: "the connection to the broker is lost" in caplog.text)
    connections = listener.connections
    listener.got.clear()
    broker.start()
    wait_for(lambda: listener.connections > connections)
    # Messages that are not retained reach a listener only once it subscribed again: what it saw is in order, and the
    # last one is there; the retained state says the rest.
    wait_for(lambda: listener.last(STATE) == "OFF")
    events = [json.loads(payload) for payload in listener.of("streamer/hall/alert")]
    seen = list(dict.fromkeys((event["id"], event["state"]) for event in events))
    expected = [(1, "cleared"), *((id, state) for id in (2, 3, 4) for state in ("raised", "cleared"))]
    assert seen == [item for item in expected if item in seen]
    wait_for(lambda: listener.last(SENSOR))
    assert json.loads(listener.last(SENSOR))["unique_id"] == "hall_siren"  # a broker without memory is told again
    wait_for(lambda: listener.last(AVAILABLE) == "online")
    assert deliveries.stop(10)  # nothing waits any more: the broker confirmed every message
    listener.close()


@needs_broker
def test_alerts_from_before_the_broker_is_there_wait_for_it(tmp_path):
    broker = Broker(tmp_path)
    deliveries = opened(broker.port)
    deliveries.put([alert(1), alert(1, "cleared"), alert(2)])
    broker.start()
    listener = Listener(broker.port)
    wait_for(lambda: listener.last(STATE) == "ON")
    assert deliveries.stop(10)
    listener.close()
    broker.stop()


@needs_broker
def test_states_are_said_again_while_an_alert_lasts_and_after(broker):
    listener = Listener(broker.port)
    deliveries = opened(broker.port, refresh_s=0.1, expire_after_s=1)
    deliveries.put([alert(1)])
    wait_for(lambda: listener.of(STATE)[-3:] == ["ON"] * 3)
    deliveries.put([alert(1, "cleared")])
    wait_for(lambda: listener.of(STATE)[-3:] == ["OFF"] * 3)
    assert json.loads(listener.last(SENSOR))["expire_after"] == 1
    assert deliveries.stop(10)
    listener.close()


@needs_broker
def test_a_rule_is_on_while_one_of_several_sessions_hears_it(broker):
    listener = Listener(broker.port)
    deliveries = opened(broker.port)
    deliveries.put([alert(1, session="a"), alert(1, session="b"), alert(1, "cleared", session="a")])
    wait_for(lambda: len(listener.of("streamer/hall/alert")) == 3)
    wait_for(lambda: listener.of(STATE)[-3:] == ["ON"] * 3)
    deliveries.put([alert(1, "cleared", session="b")])
    wait_for(lambda: listener.last(STATE) == "OFF")
    assert deliveries.stop(10)
    listener.close()


@needs_broker
def test_home_assistant_that_starts_later_is_told_everything_again(broker):
    listener = Listener(broker.port)
    deliveries = opened(broker.port)
    wait_for(lambda: listener.last(STATE) == "OFF")
    listener.got.clear()
    listener.say("homeassistant/status", "online")
    wait_for(lambda: listener.last(SENSOR) and listener.last(STATE) == "OFF")
    assert deliveries.stop(10)
    listener.close()


@needs_broker
def test_the_last_will_says_offline_when_we_are_killed(broker, tmp_path):
    code = (
        "import sys,time; from streamer.settings.config import validate;"
        "from streamer.alerts.deliveries import open_deliveries;"
        "d=open_deliveries(validate({'delivery':{'history':{'record':'never'},"
        f"'mqtt':{{'host':'127.0.0.1','port':{broker.port},'device':'hall'}}}}}}),live=True); d.start(); time.sleep(60)"
    )
    listener = Listener(broker.port)
    process = subprocess.Popen([sys.executable, "-c", code])
    wait_for(lambda: listener.last(AVAILABLE) == "online")
    process.kill()
    process.wait()
    wait_for(lambda: listener.last(AVAILABLE) == "offline")
    listener.close()


@needs_broker
def test_a_password_from_the_environment_that_no_log_shows(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    passwords = tmp_path / "passwords"
    passwords.write_text("hall:topsecret\n")
    subprocess.run(["mosquitto_passwd", "-U", str(passwords)], check=True)
    broker = Broker(tmp_path, ("allow_anonymous false", f"password_file {passwords}", "user root"))
    broker.start()
    wrong = opened(broker.port, {"PW": "not it"}, username="hall", password_env="PW")
    wait_for(lambda: "the broker refused the connection" in caplog.text)
    wrong.stop(1)
    listener = Listener(broker.port, "hall", "topsecret")
    right = opened(broker.port, {"PW": "topsecret"}, username="hall", password_env="PW")
    wait_for(lambda: listener.last(AVAILABLE) == "online")
    assert right.stop(10)
    assert "topsecret" not in caplog.text + json.dumps(listener.got)
    listener.close()
    broker.stop()


def test_the_end_does_not_wait_for_a_broker_that_is_not_there():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        deliveries = opened(nobody.getsockname()[1])
        deliveries.put([alert(1)])
        assert deliveries.stop(5)


def test_what_is_wrong_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"delivery\.mqtt\.password_env: the environment variable PW is not set"):
        opened(1, username="hall", password_env="PW")
    with pytest.raises(ConfigError, match=r"delivery\.mqtt\.ca_file: .*nothing\.pem: must be a file of certificates"):
        opened(1, tls=True, ca_file=str(tmp_path / "nothing.pem"))


def test_classes_and_ids():
    classes = {rule.id: device_class(rule) for rule in AlertRules.default().rules}
    assert classes["smoke_alarm"] == "smoke"
    assert classes["co_alarm"] == "carbon_monoxide"
    assert classes["siren"] == classes["help"] == "sound"
    assert classes["microphone_lost"] == "problem"
    assert device_id("Küche.local") == "streamer-k-che"
    assert device_id("...") == "streamer"
