"""All deliveries of one run, made from the settings, started, given events and ended together.

Any thread may call `put`; it never waits. Each delivery has its own queue and threads (`streamer.alerts.delivery`).
Critical alerts also go the local way, which needs no setting: the pages' banner and the terminal's bell.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamer.alerts.delivery import Backoff, Delivery, Target
from streamer.alerts.history import AlertHistory, history_path
from streamer.alerts.parcels import Spool
from streamer.alerts.recorder import ClipRing, Recorder
from streamer.alerts.targets import Command, Push, Webhook
from streamer.errors import ConfigError
from streamer.events import Alert, Event
from streamer.server.messages import Mark
from streamer.settings.config import Settings
from streamer.settings.deliveries import (
    CommandSettings,
    HistorySettings,
    MqttSettings,
    PushSettings,
    WebhookSettings,
    address,
    check_web_address,
    secret,
    state_directory,
)

log = logging.getLogger(__name__)

HISTORY_LIMIT = 10_000  # changes of alerts that wait for the disk
PUSH_BACKOFF = Backoff(first_s=2.0, longest_s=30.0)
MQTT_FIRST_S = 0.5  # pause after the first failure
MB = 1_000_000


class Deliveries:
    """`recorder`: the history among them, if there is one."""

    def __init__(self, deliveries: Sequence[Delivery], recorder: Recorder | None = None) -> None:
        self._deliveries = tuple(deliveries)
        self._recorder = recorder

    @property
    def waiting(self) -> int:
        """Changes of alerts that wait for a service, or are under way, over all deliveries."""
        return sum(delivery.waiting for delivery in self._deliveries)

    @property
    def dropped(self) -> int:
        """Changes of alerts that went because a queue was full, or were given up."""
        return sum(delivery.dropped for delivery in self._deliveries)

    def start(self) -> None:
        """Start all threads; what an earlier run left is delivered."""
        for delivery in self._deliveries:
            delivery.start()

    def clips(self, session: str) -> ClipRing | None:
        """Where the session's blocks are to go, so that its last seconds are kept; None: clips are not wanted."""
        return None if self._recorder is None else self._recorder.clips(session)

    def put(self, events: Sequence[Event]) -> None:
        """Give alerts to every delivery; other events are not for them."""
        for event in events:
            if isinstance(event, Alert):
                if self._recorder is not None:
                    self._recorder.expect(event)
                for delivery in self._deliveries:
                    delivery.put(event)

    @property
    def mark(self) -> Callable[[Mark], None] | None:
        """Writes a mark into the history, without waiting; MessageError: no such alert. None: there is no history."""
        return None if self._recorder is None else self._recorder.mark

    def tell_marks(self, show: Callable[[str, list[int], list[int]], None]) -> None:
        """`show` is told, in the history's thread, which alerts of a session are marked false and which true."""
        if self._recorder is not None:
            self._recorder.on_marks = show

    def stop(self, timeout_s: float) -> bool:
        """Deliver what waits, for at most so long, and end; False when something did not end in time."""
        until = time.monotonic() + timeout_s
        for delivery in self._deliveries:
            delivery.finish()
        ended = [delivery.join(max(0.0, until - time.monotonic())) for delivery in self._deliveries]
        return all(ended)


def open_deliveries(
    settings: Settings, *, live: bool, run: str | None = None, environment: Mapping[str, str] = os.environ
) -> Deliveries:
    """What the settings ask for. `live`: not at speed 0; `run`: see `parcel_key`. ConfigError names the setting."""
    build, given = _Builder(settings, run, environment), settings.delivery
    deliveries = [build.mqtt(given.mqtt)] if given.mqtt.host is not None else []
    deliveries += [build.push(push, f"delivery.push[{index}]") for index, push in enumerate(given.push)]
    deliveries += [build.webhook(hook, f"delivery.webhooks[{index}]") for index, hook in enumerate(given.webhooks)]
    deliveries += [build.command(call, f"delivery.commands[{index}]") for index, call in enumerate(given.commands)]
    history = _history(given.history, live, environment)
    if history is None:
        return Deliveries(deliveries)
    recorder = Recorder(history, given.history)
    kept = Delivery(recorder, limit=HISTORY_LIMIT, run=run)
    recorder.wake = kept.wake
    return Deliveries([*deliveries, kept], recorder)


@dataclass(frozen=True, slots=True)
class _Builder:
    """Makes single deliveries; `path` is where their settings stand, `environment` holds the secrets."""

    settings: Settings
    run: str | None
    environment: Mapping[str, str]

    @property
    def names(self) -> dict[str, str]:
        """What people call each rule."""
        return {rule.id: rule.title for rule in self.settings.alerts.rules}

    def push(self, given: PushSettings, path: str) -> Delivery:
        url = address(given.url, given.url_env, path, self.environment)
        where = f"{path}.{'url' if given.url is not None else 'url_env'}"
        target = Push(given.name, url, names=self.names, timeout_s=given.timeout_s, path=where)
        return self._delivery(target, given, backoff=PUSH_BACKOFF, give_up_s=given.give_up_s)

    def webhook(self, given: WebhookSettings, path: str) -> Delivery:
        url = address(given.url, given.url_env, path, self.environment, check_web_address)
        key = None if given.secret_env is None else secret(given.secret_env, f"{path}.secret_env", self.environment)
        folder = self.settings.delivery.spool
        root = Path(folder).expanduser() if folder is not None else state_directory(self.environment) / "spool"
        target = Webhook(given.name, url, key, timeout_s=given.timeout_s)
        backoff = Backoff(first_s=given.retry_first_s, longest_s=given.retry_max_s)
        return self._delivery(target, given, backoff=backoff, spool=Spool(root, given.name))

    def command(self, given: CommandSettings, path: str) -> Delivery:
        hidden = self.settings.delivery.secret_names()
        target = Command(given.name, given.argv, names=self.names, timeout_s=given.timeout_s, path=path, hidden=hidden)
        return self._delivery(target, given, senders=given.at_once)

    def mqtt(self, given: MqttSettings) -> Delivery:
        from streamer.alerts.mqtt import Mqtt

        password = None
        if given.password_env is not None:
            password = secret(given.password_env, "delivery.mqtt.password_env", self.environment)
        target = Mqtt(given, self.settings.alerts.rules, password)
        backoff = Backoff(first_s=MQTT_FIRST_S, longest_s=given.retry_max_s)
        delivery = Delivery(target, limit=given.waiting, backoff=backoff, run=self.run)
        target.on_connect = delivery.wake
        return delivery

    def _delivery(
        self, target: Target, given: PushSettings | WebhookSettings | CommandSettings, **more: Any
    ) -> Delivery:
        """With what all three kinds choose: which alerts, and how many of them wait. Webhooks are told every end."""
        rules = () if isinstance(given, WebhookSettings) else self.settings.alerts.rules
        quiet_ends = {rule.id for rule in rules if not rule.all_clear}

        def wanted(alert: Alert) -> bool:
            """What was withdrawn is told all the same: it was not so."""
            quiet = alert.state == "cleared" and alert.rule in quiet_ends and "withdrawn" not in alert.labels
            return given.wants(alert) and not quiet

        return Delivery(target, limit=given.waiting, wanted=wanted, run=self.run, **more)


def _history(given: HistorySettings, live: bool, environment: Mapping[str, str]) -> AlertHistory | None:
    """The history; where nobody asked for it expressly and it cannot be written, we go on without."""
    if given.record == "never" or (given.record == "live" and not live):
        return None
    history = AlertHistory(history_path(given, environment), round(given.max_mb * MB))
    try:
        history.check()
    except ConfigError as error:
        if given.path is not None or given.record == "always" or given.clips:
            raise
        log.warning("%s; going on without a history of alerts", error)
        return None
    return history
