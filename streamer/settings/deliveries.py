"""The settings of deliveries: who is told of alerts, how, and what is kept. Nothing goes over a network by default.

Secrets come from environment variables that the settings name (`…_env`); an address may stand in the settings itself
and is then never shown. A wrong value is named by its path: `delivery.webhooks[0].url: must …`.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from streamer.errors import ConfigError, meant
from streamer.events import SEVERITY_RANK, Alert, AlertState, Severity
from streamer.settings import forms
from streamer.settings.section import Section

MAX_TARGETS = 20  # of each kind

Name = Annotated[str, Field(pattern=forms.NAME, description="in log lines and for the folder of what waits")]
EnvName = Annotated[str, Field(pattern=forms.ENVIRONMENT)]


class _Selection(Section):
    """Which alerts a target gets: of at least this severity, of these rules (none named: all), in these states."""

    min_severity: Severity = Field("info", description="of at least this one")
    rules: tuple[str, ...] = Field((), description="of these rules; none named: of all")
    states: tuple[AlertState, ...] = Field(("raised", "cleared"), min_length=1, description="in these states")
    waiting: int = Field(1000, ge=10, le=100_000, description="so many wait at most; see docs/alerts.md")

    @model_validator(mode="after")
    def _raised_first(self) -> "_Selection":
        if "raised" not in self.states:
            raise ValueError("states: must hold raised; an end without its beginning says nothing")
        return self

    def wants(self, alert: Alert) -> bool:
        """Whether this change of an alert is for the target."""
        return (
            SEVERITY_RANK[alert.severity] >= SEVERITY_RANK[self.min_severity]
            and (not self.rules or alert.rule in self.rules)
            and alert.state in self.states
        )


class _Addressed(_Selection):
    """A target behind an address, which may hold a token: it is never shown."""

    url: SecretStr | None = Field(None, description="the address; never shown, it may hold a token")
    url_env: EnvName | None = Field(None, description="the environment variable that holds it")

    @model_validator(mode="after")
    def _one_url(self) -> "_Addressed":
        if (self.url is None) == (self.url_env is None):
            raise ValueError("must have exactly one of url, url_env")
        return self


class PushSettings(_Addressed):
    """A push or desktop service by its apprise URL, for example `ntfy://topic`, `tgram://…`, `dbus://`."""

    USUAL = ("name", "url", "url_env", "min_severity", "rules", "states", "include_text")
    name: Name
    timeout_s: float = Field(15.0, ge=1, le=120, description="for one attempt")
    give_up_s: float = Field(3600.0, ge=10, le=86_400, description="an alert that old is not sent any more")
    include_text: bool = Field(False, description="also what was being said: whoever runs the service can read it")


class WebhookSettings(_Addressed):
    """An HTTP(S) address that gets each alert as signed JSON and, if it fails, gets it later, also after a restart."""

    USUAL = ("name", "url", "url_env", "secret_env", "min_severity", "rules", "states")
    name: Name
    secret_env: EnvName | None = Field(None, description="the environment variable with the key of the signature")
    states: tuple[AlertState, ...] = Field(
        ("raised", "updated", "acknowledged", "cleared"), min_length=1, description="in these states"
    )
    timeout_s: float = Field(10.0, ge=0.5, le=120, description="for one attempt")

    @field_validator("url")
    @classmethod
    def _web_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_web_address(value.get_secret_value())
        return value


class MqttSettings(Section):
    """A broker, with Home Assistant's discovery."""

    USUAL = ("host", "port", "username", "password_env", "tls", "ca_file", "device", "device_name")
    host: str | None = Field(None, pattern=forms.HOST, description="of the broker; null: none")
    port: int | None = Field(None, ge=1, le=65535, description="null: 8883 with TLS, else 1883")
    username: str | None = Field(None, min_length=1, description="null: without one")
    password_env: EnvName | None = Field(None, description="the environment variable that holds the password")
    tls: bool = Field(False, description="encrypted")
    ca_file: str | None = Field(None, description="PEM; null: the system's authorities")
    device: str | None = Field(None, pattern=forms.NAME, description="id of this machine; null: its host name")
    device_name: str = Field("Streamer", min_length=1, max_length=60, description="what Home Assistant shows")
    discovery_prefix: str = Field("homeassistant", pattern=forms.TOPIC, description="as in Home Assistant")
    refresh_s: float = Field(30.0, ge=0.1, le=600, description="how often the states are said again")
    expire_after_s: int = Field(100, ge=1, le=3600, description="not said for so long: unknown to Home Assistant")
    retry_max_s: float = Field(5.0, ge=1, le=300, description="the longest pause between attempts to connect")
    waiting: int = Field(1000, ge=10, le=100_000, description="so many wait at most; see docs/alerts.md")

    @model_validator(mode="after")
    def _refreshed_in_time(self) -> "MqttSettings":
        if self.expire_after_s < 2 * self.refresh_s:
            raise ValueError(f"expire_after_s: must be at least twice refresh_s ({self.refresh_s:g} s)")
        if self.password_env is not None and self.username is None:
            raise ValueError("username: must be given with password_env")
        return self


class CommandSettings(_Selection):
    """A program that is started for each alert: arguments as they are, no shell; the event as JSON on its stdin."""

    USUAL = ("name", "argv", "min_severity", "rules", "states")
    name: Name
    argv: tuple[str, ...] = Field(min_length=1, max_length=100, description="the program and its arguments")
    timeout_s: float = Field(30.0, ge=0.1, le=3600, description="then it and what it started are ended")
    at_once: int = Field(2, ge=1, le=16, description="so many run at once, of one alert one after the other")

    @field_validator("argv")
    @classmethod
    def _can_be_run(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value[0].strip() or any("\0" in part for part in value):
            raise ValueError("must be a program and its arguments, without NUL characters")
        return value


class HistorySettings(Section):
    """What is kept of alerts on this machine, for `streamer alerts history`, `mark` and `tune`."""

    USUAL = ("record", "path", "include_text", "clips")
    record: Literal["never", "live", "always"] = Field("live", description="live: not of files and the demo")
    path: str | None = Field(None, description="JSON lines; null: streamer/alerts.jsonl in the user's state folder")
    max_mb: float = Field(5.0, ge=0.05, le=1000, description="then the oldest alerts go, those that were marked last")
    include_text: bool = Field(False, description="also what was being said")
    clips: bool = Field(False, description="keep the sound around each alert, as WAV files beside the history")
    clip_before_s: float = Field(4.0, ge=0, le=15, description="of sound before the alert begins")
    clip_after_s: float = Field(4.0, ge=0, le=15, description="of sound after it was raised")
    clips_max_mb: float = Field(100.0, ge=1, le=100_000, description="then the oldest clips go")

    def keeps(self, alert: Alert) -> bool:
        """Whether the alert is written down."""
        return self.record == "always" or (self.record == "live" and alert.source == "live")


class DeliverySettings(Section):
    """Everything that is done with alerts beside showing them."""

    USUAL = ("push", "webhooks", "mqtt", "commands", "history", "from_files")
    push: tuple[PushSettings, ...] = Field((), max_length=MAX_TARGETS, description="phones and desktops")
    webhooks: tuple[WebhookSettings, ...] = Field((), max_length=MAX_TARGETS, description="web addresses")
    mqtt: MqttSettings = MqttSettings()
    commands: tuple[CommandSettings, ...] = Field((), max_length=MAX_TARGETS, description="programs to start")
    history: HistorySettings = HistorySettings()
    from_files: bool = Field(False, description="also tell of alerts from files and the demo; history.record: always")
    spool: str | None = Field(None, description="folder of what webhooks still have to get; null: in the state folder")

    @model_validator(mode="after")
    def _each_name_once(self) -> "DeliverySettings":
        for kind in ("push", "webhooks", "commands"):
            names = [target.name for target in getattr(self, kind)]
            for index, name in enumerate(names):
                if name in names[:index]:
                    raise ValueError(f"delivery.{kind}[{index}].name: must be used once only, {name!r} is used twice")
        return self

    def check_rules(self, known: frozenset[str]) -> None:
        """ValueError where a target names a rule that is not among `known`."""
        for kind in ("push", "webhooks", "commands"):
            for index, target in enumerate(getattr(self, kind)):
                for place, rule in enumerate(target.rules):
                    if rule not in known:
                        where = f"delivery.{kind}[{index}].rules[{place}]"
                        hint = meant(rule, known) or "; `streamer alerts explain` lists them"
                        own = "for a sound of your own its rule has to stand in alerts.rules ({id: …, own: NAME})"
                        raise ValueError(f"{where}: no rule is called {rule!r}{hint}; {own}")

    def tells_of(self, alert: Alert) -> bool:
        """Whether anybody but the pages and the terminal is told of it: what a recording holds does not happen now."""
        return self.from_files or alert.source == "live"

    def secret_names(self) -> frozenset[str]:
        """The environment variables that hold secrets: other programs do not get them."""
        named = [self.mqtt.password_env, *(push.url_env for push in self.push)]
        named += [name for hook in self.webhooks for name in (hook.url_env, hook.secret_env)]
        return frozenset(name for name in named if name is not None)


def check_web_address(url: str) -> str:
    """The address; ValueError (which does not show it) unless it is http(s) with a host and without a user."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and parts.username is None
    except ValueError:
        good = False
    if not good or any(char.isspace() or not char.isprintable() or not char.isascii() for char in url):
        raise ValueError("must be a web address such as https://example.org/hook, without user and password in it")
    return url


def secret(name: str, path: str, environment: Mapping[str, str] = os.environ) -> str:
    """What the environment variable `name` holds. ConfigError that names the setting `path` where it holds nothing."""
    value = environment.get(name, "")
    if not value:
        raise ConfigError(f"{path}: the environment variable {name} is not set; set it or name another one")
    return value


def address(
    url: SecretStr | None,
    url_env: str | None,
    path: str,
    environment: Mapping[str, str] = os.environ,
    check: Callable[[str], str] = str,
) -> str:
    """The URL of a target, from its settings or from the environment. ConfigError names the setting, never the URL."""
    if url is not None:
        return url.get_secret_value()
    assert url_env is not None
    try:
        return check(secret(url_env, f"{path}.url_env", environment).strip())
    except ValueError as error:
        raise ConfigError(f"{path}.url_env: the environment variable {url_env} {error}") from None


def make_private(folder: Path) -> None:
    """Make a folder, and what is missing above it, for this user only; what is there stays as it is. Raises OSError."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def state_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where this user's Streamer keeps what must last: $XDG_STATE_HOME/streamer, else ~/.local/state/streamer."""
    return Path(environment.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "streamer"
