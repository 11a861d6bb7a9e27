"""MQTT with Home Assistant's discovery (home-assistant.io/integrations: mqtt, binary_sensor.mqtt, event.mqtt).

Topics, under `streamer/DEVICE/`, all with QoS 1:

    availability        online, offline (also the last will); retained
    RULE/state          ON, OFF; retained; said again every `refresh_s`: `expire_after` only strikes when we are gone
    RULE/attributes     the latest event of the rule as JSON; retained
    event               {"event_type": RULE, …} for every alert that is raised, also the short ones
    alert               every event as JSON, in order, nothing retained
    test                an alert of `streamer alerts test`, not retained; nothing else of the above changes for it

paho's own thread holds the connection and comes back with growing pauses; the delivery's thread publishes and waits for
the broker's word. While the broker is away parcels wait in the delivery's queue; when it is back, it is told of the
configuration and the states first. A broker or Home Assistant that starts anew is told everything again.
"""

import contextlib
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from streamer.alerts.delivery import NotDeliveredError, Target
from streamer.alerts.parcels import AlertKey, Parcel
from streamer.errors import ConfigError
from streamer.events import Alert
from streamer.output.plain_text import clean
from streamer.output.posting import failure
from streamer.settings.deliveries import MqttSettings
from streamer.settings.rules import AlertRule

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessageInfo

log = logging.getLogger(__name__)

ACK_S = 5.0  # so long the broker may take to confirm
LOOK_S = 0.1  # how often a lost connection is noticed while we wait for that
MAX_UNCONFIRMED = 1000  # messages that paho keeps for the broker; further ones are refused and wait with us
LEAVE_S = 0.5  # so long it may take to say that we leave
DISCOVERY_S = 1.0  # so long Home Assistant has to listen to an entity that was just announced
KEEPALIVE_S = 20  # seconds; after one and a half of them without a sign the broker publishes the last will
_CLASSES = {"smoke_alarm": "smoke", "co_alarm": "carbon_monoxide"}


class Mqtt(Target):
    """One broker. `rules`: all rules, of which those in force become sensors; `password`: a secret.

    `on_connect`: told when the broker is there.
    """

    name = "mqtt"

    def __init__(self, settings: MqttSettings, rules: Sequence[AlertRule], password: str | None = None) -> None:
        """Raises ConfigError where paho-mqtt is missing or the authorities' file cannot be read."""
        self._settings, self._rules, self._password = settings, tuple(rules), password
        self._device, self.place = device_of(settings), str(settings.host)
        self._prefix = f"streamer/{self._device}"
        self.tick_s = settings.refresh_s  # states are said again so often
        self._standing: dict[str, dict[AlertKey, Alert]] = {rule.id: {} for rule in rules if rule.enabled}
        self._pending: tuple[int, list[MQTTMessageInfo]] = (0, [])  # number of the parcel on its way, its messages
        self._greeted = False  # this connection was told configuration and states
        self._client = self._make()
        self.on_connect: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Connect, now or as soon as the broker is there."""
        given = self._settings
        self._client.connect_async(str(given.host), port_of(given), keepalive=KEEPALIVE_S)
        self._client.loop_start()

    def send(self, parcel: Parcel) -> None:
        """Publish an alert and wait until the broker has it. Raises NotDeliveredError."""
        self._greet()
        number, messages = self._pending
        if number != parcel.number:
            self._note(parcel.alert)
            messages = self._publish_alert(parcel.alert)
            self._pending = (parcel.number, messages)
        self._wait(messages)

    def tick(self) -> None:
        """Say all states again. Raises NotDeliveredError."""
        if not self._greet():
            self._wait(self._publish_states())

    def close(self) -> None:
        """Say that we are offline, and leave."""
        if self._client.is_connected():
            with contextlib.suppress(RuntimeError, ValueError):  # paho's, where the connection is just lost
                last = self._client.publish(self._topic("availability"), "offline", qos=1, retain=True)
                last.wait_for_publish(LEAVE_S)
        self._client.disconnect()  # ends paho's thread; we do not wait for it, it may be connecting

    def _make(self) -> "Client":
        given = self._settings
        client = make_client(given, self._password, f"streamer-{self._device}")
        client.will_set(self._topic("availability"), "offline", qos=1, retain=True)
        client.reconnect_delay_set(1, max(1, round(given.retry_max_s)))
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.max_queued_messages_set(MAX_UNCONFIRMED)
        client.on_message = self._home_assistant
        return client

    # Called by paho's thread.

    def _connected(self, client: "Client", userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            log.warning("mqtt: the broker refused the connection: %s", reason)
            return
        log.info("mqtt: connected")
        self._greeted = False
        client.subscribe(f"{self._settings.discovery_prefix}/status", qos=1)
        self.on_connect()

    def _disconnected(self, client: "Client", userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            log.warning("mqtt: the connection to the broker is lost (%s); coming back", reason)

    def _home_assistant(self, client: "Client", userdata: Any, message: Any) -> None:
        """It says `online` when it starts: it wants to know everything again."""
        if message.payload == b"online":
            self._greeted = False
            self.on_connect()

    # Called by the delivery's thread.

    def _greet(self) -> bool:
        """Tell a new connection configuration and states, if that is due. Raises NotDeliveredError."""
        if not self._client.is_connected():
            raise NotDeliveredError("the broker is not there")
        if self._greeted:
            return False
        self._greeted = True
        try:
            self._wait(self._publish_everything())
        except NotDeliveredError:
            self._greeted = False
            raise
        return True

    def _note(self, alert: Alert) -> None:
        standing = self._standing.setdefault(alert.rule, {})
        key = (alert.session, alert.id)
        if alert.state == "cleared":
            standing.pop(key, None)
        else:
            standing[key] = alert

    def _publish_alert(self, alert: Alert) -> "list[MQTTMessageInfo]":
        event = alert.to_json()
        messages = [
            self._publish(self._topic("alert"), event, retain=False),
            self._publish(self._topic(alert.rule, "attributes"), event),
            self._publish(self._topic(alert.rule, "state"), self._state(alert.rule)),
        ]
        if alert.state == "raised":
            told = {"event_type": alert.rule, "severity": alert.severity, "score": alert.score}
            told |= {"labels": list(alert.labels), "text": clean(alert.text), "start": alert.start}
            messages.append(self._publish(self._topic("event"), json.dumps(told, ensure_ascii=False), retain=False))
        return messages

    def _publish_everything(self) -> "list[MQTTMessageInfo]":
        messages = [self._publish(topic, payload) for topic, payload in self._discovery().items()]
        messages.append(self._publish(self._topic("availability"), "online"))
        return messages + self._publish_states()

    def _publish_states(self) -> "list[MQTTMessageInfo]":
        return [self._publish(self._topic(rule, "state"), self._state(rule)) for rule in self._standing]

    def _state(self, rule: str) -> str:
        return "ON" if self._standing[rule] else "OFF"

    def _publish(self, topic: str, payload: str, *, retain: bool = True) -> "MQTTMessageInfo":
        return self._client.publish(topic, payload, qos=1, retain=retain)

    def _wait(self, messages: Sequence["MQTTMessageInfo"]) -> None:
        """Until the broker has all of them. Raises NotDeliveredError."""
        until = time.monotonic() + ACK_S
        try:
            for message in messages:
                while not message.is_published():
                    if time.monotonic() > until or not self._client.is_connected():
                        raise NotDeliveredError("the broker does not confirm")
                    message.wait_for_publish(LOOK_S)  # paho does not wake us when the connection is lost
        except (RuntimeError, ValueError):  # paho's: it was just lost, or too many are not confirmed
            self._pending = (0, [])
            raise NotDeliveredError("the broker does not take it") from None

    def _topic(self, *parts: str) -> str:
        return "/".join((self._prefix, *parts))

    def _discovery(self) -> dict[str, str]:
        """Topic and payload of every configuration; an empty one takes away the sensor of a rule not in force."""
        device, prefix = self._device, self._settings.discovery_prefix
        found = {f"{prefix}/event/{device}/alert/config": json.dumps(self._event_entity())}
        for rule in self._rules:
            topic = f"{prefix}/binary_sensor/{device}/{rule.id}/config"
            found[topic] = json.dumps(self._binary_sensor(rule), ensure_ascii=False) if rule.enabled else ""
        return found

    def _binary_sensor(self, rule: AlertRule) -> Mapping[str, Any]:
        return {
            "name": rule.title,
            "unique_id": f"{self._device}_{rule.id}",
            "object_id": f"{self._device}_{rule.id}",
            "device_class": device_class(rule),
            "state_topic": self._topic(rule.id, "state"),
            "json_attributes_topic": self._topic(rule.id, "attributes"),
            "expire_after": self._settings.expire_after_s,
            **self._shared(),
        }

    def _event_entity(self) -> Mapping[str, Any]:
        return {
            "name": "Alert",
            "unique_id": f"{self._device}_alert",
            "object_id": f"{self._device}_alert",
            "event_types": [rule.id for rule in self._rules if rule.enabled],
            "state_topic": self._topic("event"),
            **self._shared(),
        }

    def _shared(self) -> Mapping[str, Any]:
        return {
            "availability_topic": self._topic("availability"),
            **about(self._settings),
        }


class MqttTrial(Target):
    """A broker that is tried, beside a Streamer that may be running: a connection of its own without a last will.

    The alert goes to `test`, so no state and no sensor of a rule changes. Home Assistant gets an event entity "Test"
    (diagnostic), whose time and attributes say when a test came through last.
    """

    name = "mqtt"

    def __init__(self, settings: MqttSettings, password: str | None = None) -> None:
        """Raises ConfigError as `make_client`."""
        self._settings, self.place = settings, str(settings.host)
        self._device = device_of(settings)
        self._client = make_client(settings, password, f"streamer-{self._device}-test")
        self._answered = threading.Event()
        self._refused = ""
        self._client.on_connect = self._connected

    def start(self) -> None:
        """Connect and announce the entity. Raises NotDeliveredError: why that cannot be."""
        try:
            self._client.connect(self.place, port_of(self._settings), keepalive=KEEPALIVE_S)
        except (OSError, ValueError) as error:
            raise NotDeliveredError(failure(error)) from None
        self._client.loop_start()
        if not self._answered.wait(ACK_S):
            raise NotDeliveredError("the broker does not answer")
        if self._refused:
            raise NotDeliveredError(f"the broker refused the connection: {self._refused}")
        topic = f"{self._settings.discovery_prefix}/event/{self._device}/test/config"
        self._publish(topic, self._entity(), retain=True)
        time.sleep(DISCOVERY_S)

    def send(self, parcel: Parcel) -> None:
        """Publish it and wait until the broker has it. Raises NotDeliveredError."""
        self._publish(self._topic, {"event_type": "test", **parcel.alert.to_dict()}, retain=False)

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def _topic(self) -> str:
        return f"streamer/{self._device}/test"

    def _connected(self, client: "Client", userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._refused = str(reason) if reason.is_failure else ""
        self._answered.set()

    def _publish(self, topic: str, payload: Mapping[str, Any], *, retain: bool) -> None:
        try:
            message = self._client.publish(topic, json.dumps(payload, ensure_ascii=False), qos=1, retain=retain)
            message.wait_for_publish(ACK_S)
            taken = message.is_published()
        except (RuntimeError, ValueError):  # paho's: the connection was just lost
            taken = False
        if not taken:
            raise NotDeliveredError("the broker does not confirm")

    def _entity(self) -> Mapping[str, Any]:
        return {
            "name": "Test",
            "unique_id": f"{self._device}_test",
            "object_id": f"{self._device}_test",
            "event_types": ["test"],
            "state_topic": self._topic,
            "entity_category": "diagnostic",
            **about(self._settings),
        }


def make_client(given: MqttSettings, password: str | None, client_id: str) -> "Client":
    """paho's client, not connected. Raises ConfigError where paho is missing or the authorities cannot be read."""
    try:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion
    except ImportError:
        raise ConfigError("delivery.mqtt.host: needs paho-mqtt: pip install '.[notify]' in Streamer's folder") from None
    client = Client(CallbackAPIVersion.VERSION2, client_id=client_id)
    client.username_pw_set(given.username, password)
    if given.tls:
        try:
            client.tls_set(ca_certs=given.ca_file)
        except (OSError, ValueError):
            raise ConfigError(f"delivery.mqtt.ca_file: {given.ca_file}: must be a file of certificates (PEM)") from None
    return client


def about(given: MqttSettings) -> Mapping[str, Any]:
    """What Home Assistant is told of this machine with every entity."""
    return {
        "device": {
            "identifiers": [device_of(given)],
            "name": given.device_name,
            "manufacturer": "Streamer",
            "model": "Streamer (an aid, not a certified alarm)",
        },
        "origin": {"name": "streamer"},
    }


def port_of(given: MqttSettings) -> int:
    """The port that is meant."""
    return given.port or (8883 if given.tls else 1883)


def device_of(given: MqttSettings) -> str:
    """This machine in topics."""
    return given.device or device_id(socket.gethostname())


def device_class(rule: AlertRule) -> str:
    """Home Assistant's class of a rule's sensor."""
    if rule.lost or rule.silence_dbfs is not None:
        return "problem"
    return _CLASSES.get(rule.id, "sound")


def device_id(host: str) -> str:
    """An id for topics from a host's name."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", host.lower().split(".")[0]).strip("-_")
    return f"streamer-{plain}"[:40] if plain else "streamer"
