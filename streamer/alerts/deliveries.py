"""All deliveries of one run, made from the settings, started, given events and ended together.

Any thread may call `put`; it never waits. Each delivery has its own queue and threads (`streamer.alerts.delivery`).
Critical alerts also go the local way, which needs no setting: the pages' banner and the terminal's bell.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamer.alerts.delivery import Delivery, Target
from streamer.alerts.history import AlertHistory, history_path
from streamer.alerts.parcels import Spool
from streamer.alerts.recorder import ClipRing, Recorder
from streamer.alerts.targets import Command, Push, Webhook
from streamer.errors import ConfigError, Rests
from streamer.events import WITHDRAWN, Alert, Event
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
from streamer.settings.rules import AlertRule

if TYPE_CHECKING:
    from streamer.alerts.mqtt import Mqtt, MqttTrial

log = logging.getLogger(__name__)

HISTORY_LIMIT = 10_000  # changes of alerts that wait for the disk
PUSH_RESTS = Rests(first_s=2.0, longest_s=30.0)
MQTT_FIRST_S = 0.5  # pause after the first failure
MB = 1_000_000


class Deliveries:
    """`recorder`: the history among them, if there is one. `tells_of`: which alerts the others are told of.

    Of the rest (what a file or the demo holds does not happen now) the pages and the terminal tell; the log says so
    once. `on_trouble`: told who is not told of alerts and why, "" when all are again (a delivery's thread).
    """

    def __init__(
        self,
        deliveries: Sequence[Delivery],
        recorder: Recorder | None = None,
        tells_of: Callable[[Alert], bool] = lambda alert: True,
    ) -> None:
        self._deliveries = tuple(deliveries)
        self.recorder = recorder
        self._tells_of = tells_of
        self._said = len(self._deliveries) == (recorder is not None)  # there is nobody else to be told
        self.on_trouble: Callable[[str], None] = lambda detail: None
        self._troubles: dict[str, str] = {}  # by delivery
        self._telling = threading.Lock()
        for delivery in self._deliveries:
            delivery.on_trouble = partial(self._note, delivery.name)

    @property
    def waiting(self) -> Mapping[str, int]:
        """Changes of alerts that wait for a service, or are under way, by delivery."""
        return {delivery.name: delivery.waiting for delivery in self._deliveries}

    @property
    def dropped(self) -> Mapping[str, int]:
        """Changes of alerts that went because a queue was full, or were given up, by delivery."""
        return {delivery.name: delivery.dropped for delivery in self._deliveries}

    def start(self) -> None:
        """Start all threads; what an earlier run left is delivered."""
        for delivery in self._deliveries:
            delivery.start()

    def clips(self, session: str, start_sample: int = 0) -> ClipRing | None:
        """Where the session's blocks are to go, so that its last seconds are kept; None: clips are not wanted."""
        return None if self.recorder is None else self.recorder.clips(session, start_sample)

    def put(self, events: Sequence[Event]) -> None:
        """Give alerts to every delivery; other events are not for them."""
        for event in events:
            if isinstance(event, Alert):
                if not (self._said or self._tells_of(event)):
                    self._said = True
                    log.warning("alerts from a %s are not delivered (delivery.from_files: false)", event.source)
                if self.recorder is not None:
                    self.recorder.expect(event)
                for delivery in self._deliveries:
                    delivery.put(event)

    def _note(self, name: str, why: str) -> None:
        with self._telling:  # so that the last word told is the last one
            self._troubles.pop(name, None)
            if why:
                self._troubles[name] = why
            said = [f"{one}: alerts do not arrive ({reason})" for one, reason in self._troubles.items()]
            self.on_trouble("; ".join(said))

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
    build, given = _Builder(TargetMaker(settings, environment, settings.all_rules()), run), settings.delivery
    deliveries = [build.mqtt(given.mqtt)] if given.mqtt.host is not None else []
    deliveries += [build.push(push, f"delivery.push[{index}]") for index, push in enumerate(given.push)]
    deliveries += [build.webhook(hook, f"delivery.webhooks[{index}]") for index, hook in enumerate(given.webhooks)]
    deliveries += [build.command(call, f"delivery.commands[{index}]") for index, call in enumerate(given.commands)]
    history = _history(given.history, live, environment)
    if history is None:
        return Deliveries(deliveries, tells_of=given.tells_of)
    recorder = Recorder(history, given.history, spoken=build.make.spoken)
    kept = Delivery(recorder, limit=HISTORY_LIMIT, wanted=given.history.keeps, run=run)
    recorder.wake = kept.wake
    return Deliveries([*deliveries, kept], recorder, given.tells_of)


@dataclass(frozen=True, slots=True)
class TargetMaker:
    """Makes what brings alerts to one service each; `environment` holds the secrets. ConfigError names the setting.

    `rules`: those of all sources. `path`: where a target's settings stand.
    """

    settings: Settings
    environment: Mapping[str, str]
    rules: tuple[AlertRule, ...]

    @property
    def names(self) -> dict[str, str]:
        """What people call each rule."""
        return {rule.id: rule.title for rule in self.rules}

    @property
    def spoken(self) -> frozenset[str]:
        """The rules for words."""
        return frozenset(rule.id for rule in self.rules if rule.phrases or rule.patterns)

    def push(self, given: PushSettings, path: str) -> Push:
        """A phone or desktop."""
        return Push(
            given.name,
            address(given.url, given.url_env, path, self.environment),
            names=self.names,
            timeout_s=given.timeout_s,
            path=f"{path}.{'url' if given.url is not None else 'url_env'}",
            text=given.include_text,
            spoken=self.spoken,
        )

    def webhook(self, given: WebhookSettings, path: str) -> Webhook:
        """A web address."""
        url = address(given.url, given.url_env, path, self.environment, check_web_address)
        key = None if given.secret_env is None else secret(given.secret_env, f"{path}.secret_env", self.environment)
        return Webhook(given.name, url, key, timeout_s=given.timeout_s)

    def command(self, given: CommandSettings, path: str) -> Command:
        """A program."""
        hidden = self.settings.secret_names()
        return Command(given.name, given.argv, names=self.names, timeout_s=given.timeout_s, path=path, hidden=hidden)

    def mqtt(self, given: MqttSettings) -> "Mqtt":
        """A broker."""
        from streamer.alerts.mqtt import Mqtt

        return Mqtt(given, self.rules, self._password(given))

    def mqtt_trial(self, given: MqttSettings) -> "MqttTrial":
        """A broker that is only tried."""
        from streamer.alerts.mqtt import MqttTrial

        return MqttTrial(given, self._password(given))

    def _password(self, given: MqttSettings) -> str | None:
        if given.password_env is None:
            return None
        return secret(given.password_env, "delivery.mqtt.password_env", self.environment)


@dataclass(frozen=True, slots=True)
class _Builder:
    """Makes deliveries: targets with their queues. `path`: where their settings stand."""

    make: TargetMaker
    run: str | None

    @property
    def settings(self) -> Settings:
        return self.make.settings

    def push(self, given: PushSettings, path: str) -> Delivery:
        return self._delivery(self.make.push(given, path), given, rests=PUSH_RESTS, give_up_s=given.give_up_s)

    def webhook(self, given: WebhookSettings, path: str) -> Delivery:
        target, folder = self.make.webhook(given, path), self.settings.delivery.spool
        root = Path(folder).expanduser() if folder is not None else state_directory(self.make.environment) / "spool"
        return self._delivery(target, given, spool=Spool(root, given.name))

    def command(self, given: CommandSettings, path: str) -> Delivery:
        return self._delivery(self.make.command(given, path), given, senders=given.at_once)

    def mqtt(self, given: MqttSettings) -> Delivery:
        target, wanted = self.make.mqtt(given), self.settings.delivery.tells_of
        rests = Rests(first_s=MQTT_FIRST_S, longest_s=given.retry_max_s)
        delivery = Delivery(target, limit=given.waiting, wanted=wanted, rests=rests, run=self.run)
        target.on_connect = delivery.wake
        return delivery

    def _delivery(
        self, target: Target, given: PushSettings | WebhookSettings | CommandSettings, **more: Any
    ) -> Delivery:
        """With what all three kinds choose: which alerts, and how many of them wait. Webhooks are told every end."""
        rules = () if isinstance(given, WebhookSettings) else self.make.rules
        quiet_ends = {rule.id for rule in rules if not rule.all_clear}

        def wanted(alert: Alert) -> bool:
            """What was withdrawn is told all the same: it was not so."""
            quiet = alert.state == "cleared" and alert.rule in quiet_ends and WITHDRAWN not in alert.labels
            return self.settings.delivery.tells_of(alert) and given.wants(alert) and not quiet

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
