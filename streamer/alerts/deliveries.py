"""All deliveries of one run, made from the settings, started, given events and ended together.

Any thread may call `put`; it never waits. Each delivery has its own queue and threads (`streamer.alerts.delivery`).
Critical alerts also go the local way, which needs no setting: the pages' banner and the terminal's bell.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from streamer.alerts.delivery import Backoff, Delivery, Wanted
from streamer.alerts.history import AlertHistory, history_path
from streamer.alerts.recorder import Recorder
from streamer.audio.block import Source
from streamer.errors import ConfigError
from streamer.events import Alert, Event
from streamer.server.messages import Mark
from streamer.settings.config import Settings
from streamer.settings.deliveries import (
    CommandSettings,
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
MB = 1_000_000


class Deliveries:
    """`recorder`: the history among them, if there is one."""

    def __init__(self, deliveries: Sequence[Delivery], recorder: Recorder | None = None) -> None:
        self._deliveries = tuple(deliveries)
        self._recorder = recorder

    @property
    def names(self) -> tuple[str, ...]:
        """What log lines call them."""
        return tuple(delivery.name for delivery in self._deliveries)

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

    def tap(self, session: str, source: Source) -> Source:
        """The source, with its last seconds kept where clips are wanted."""
        return source if self._recorder is None else self._recorder.tap(session, source)

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
    names = {rule.id: rule.title for rule in settings.alerts.rules}
    quiet = frozenset(rule.id for rule in settings.alerts.rules if not rule.all_clear)
    given = settings.delivery
    deliveries = _mqtt(settings, run, environment)
    for index, push in enumerate(given.push):
        deliveries.append(_push(push, f"delivery.push[{index}]", names, quiet, run, environment))
    for index, hook in enumerate(given.webhooks):
        deliveries.append(_webhook(settings, hook, f"delivery.webhooks[{index}]", run, environment))
    for index, command in enumerate(given.commands):
        deliveries.append(_command(settings, command, f"delivery.commands[{index}]", names, quiet, run))
    recorder = _recorder(settings, live, environment)
    if recorder is not None:
        kept = Delivery(recorder, limit=HISTORY_LIMIT, run=run)
        recorder.wake = kept.wake
        deliveries.append(kept)
    return Deliveries(deliveries, recorder)


def _wanted(given: PushSettings | WebhookSettings | CommandSettings, quiet: frozenset[str]) -> Wanted:
    return Wanted(
        min_severity=given.min_severity,
        rules=frozenset(given.rules),
        states=frozenset(given.states),
        quiet_ends=quiet,
    )


def _push(
    given: PushSettings,
    path: str,
    names: Mapping[str, str],
    quiet: frozenset[str],
    run: str | None,
    environment: Mapping[str, str],
) -> Delivery:
    from streamer.alerts.notify import Push

    url = address(given.url, given.url_env, path, environment)
    where = f"{path}.{'url' if given.url is not None else 'url_env'}"
    target = Push(given.name, url, names=names, timeout_s=given.timeout_s, path=where)
    return Delivery(
        target,
        limit=given.waiting,
        wanted=_wanted(given, quiet),
        backoff=PUSH_BACKOFF,
        give_up_s=given.give_up_s,
        run=run,
    )


def _webhook(
    settings: Settings, given: WebhookSettings, path: str, run: str | None, environment: Mapping[str, str]
) -> Delivery:
    from streamer.alerts.spool import Spool
    from streamer.alerts.webhook import Webhook

    url = address(given.url, given.url_env, path, environment, check_web_address)
    key = None if given.secret_env is None else secret(given.secret_env, f"{path}.secret_env", environment)
    folder = settings.delivery.spool
    root = Path(folder).expanduser() if folder is not None else state_directory(environment) / "spool"
    return Delivery(
        Webhook(given.name, url, key, timeout_s=given.timeout_s),
        limit=given.waiting,
        wanted=_wanted(given, frozenset()),
        backoff=Backoff(first_s=given.retry_first_s, longest_s=given.retry_max_s),
        spool=Spool(root, given.name),
        run=run,
    )


def _mqtt(settings: Settings, run: str | None, environment: Mapping[str, str]) -> list[Delivery]:
    given = settings.delivery.mqtt
    if given.host is None:
        return []
    from streamer.alerts.mqtt import Broker, Mqtt, device_id

    password = None
    if given.password_env is not None:
        password = secret(given.password_env, "delivery.mqtt.password_env", environment)
    broker = Broker(
        host=given.host,
        port=given.port or (8883 if given.tls else 1883),
        device=given.device or device_id(socket.gethostname()),
        password=password,
        **given.model_dump(exclude={"host", "port", "device", "password_env", "waiting"}),
    )
    target = Mqtt(broker, settings.alerts.rules)
    backoff = Backoff(first_s=0.5, longest_s=given.retry_max_s)
    delivery = Delivery(target, limit=given.waiting, backoff=backoff, run=run)
    target.on_connect = delivery.wake
    return [delivery]


def _command(
    settings: Settings,
    given: CommandSettings,
    path: str,
    names: Mapping[str, str],
    quiet: frozenset[str],
    run: str | None,
) -> Delivery:
    from streamer.alerts.shell import Command

    hidden = settings.delivery.secret_names()
    target = Command(given.name, given.argv, names=names, timeout_s=given.timeout_s, path=path, hidden=hidden)
    return Delivery(target, limit=given.waiting, wanted=_wanted(given, quiet), senders=given.at_once, run=run)


def _recorder(settings: Settings, live: bool, environment: Mapping[str, str]) -> Recorder | None:
    """The history; where nobody asked for it expressly and it cannot be written, we go on without."""
    given = settings.delivery.history
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
    return Recorder(history, given)
