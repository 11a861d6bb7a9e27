"""The settings of the server: where it listens, whom it lets in, what it speaks; and where its token comes from."""

import logging
import os
import stat
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from streamer.errors import ConfigError
from streamer.settings.section import Section

log = logging.getLogger(__name__)

TOKEN_VARIABLE = "STREAMER_TOKEN"
TOKEN_RULE = "must be at least 8 printable ASCII characters"
SECRETS = Path("/run/secrets")  # a container's: their rights are the engine's doing, and nobody else is in there


class ServerSettings(Section):
    """The websocket and page server."""

    USUAL = (
        *(
            "enabled",
            "host",
            "port",
            "token",
            "token_file",
            "tls",
            "tls_cert",
            "tls_key",
            "hosts",
            "max_per_address",
            "proxies",
        ),
        *("allow_set", "max_clients", "openai", "deepgram", "wyoming_port"),
    )
    enabled: bool = Field(True, description="false: no server (--no-server)")
    host: str = Field("127.0.0.1", min_length=1, description="to listen on; addresses others can reach demand a token")
    port: int = Field(8765, ge=0, le=65535, description="0: any free one")
    token: str | None = Field(None, repr=False, description="what clients must present; better in a token_file")
    token_file: str | None = Field(None, min_length=1, description="a file whose first line is the token")
    tls: Literal["self-signed"] | None = Field(None, description="self-signed: TLS with a certificate made here")
    tls_cert: str | None = Field(None, description="PEM file; with tls_key")
    tls_key: str | None = Field(None, description="PEM file; with tls_cert")
    origins: tuple[str, ...] = Field((), description="other web origins whose pages may connect")
    hosts: tuple[str, ...] = Field((), description="other names by which clients reach this machine")
    allow_set: bool = Field(False, description="who holds the token may change the language while the program runs")
    max_clients: int = Field(64, ge=1, le=10_000, description="that read events; senders on /ingest beside them")
    max_per_address: int = Field(
        32, ge=1, le=10_000, description="sockets that one address may have open, if not this machine's"
    )
    proxies: tuple[str, ...] = Field((), description="addresses of reverse proxies whose X-Forwarded-For is believed")
    openai: bool = Field(False, description="answer clients of OpenAI's audio and Realtime API, below /v1/")
    upload_max_mb: int = Field(25, ge=1, le=4096, description="openai: largest file that is taken")
    upload_max_min: int = Field(
        60, ge=1, le=1440, description="openai: longest; 345 MB of memory for each hour of sound"
    )
    deepgram: bool = Field(False, description="answer clients of Deepgram's live API, the websocket /v1/listen")
    wyoming_port: int | None = Field(
        None, ge=0, le=65535, description="speech to text for Home Assistant; 0: any free one"
    )
    wyoming_host: str = Field(
        "127.0.0.1", min_length=1, description="to listen on; Wyoming knows neither token nor TLS"
    )

    @field_validator("token")
    @classmethod
    def _hard_to_guess(cls, value: str | None) -> str | None:
        if value is not None and not _is_token(value):
            raise ValueError(f"{TOKEN_RULE} (--token)")
        return value

    @field_validator("proxies")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for address in value:
            try:
                ip_address(address)
            except ValueError:
                raise ValueError(f"must be addresses such as 127.0.0.1; {address!r} is none") from None
        return value

    @model_validator(mode="after")
    def _one_token(self) -> "ServerSettings":
        if self.token is not None and self.token_file is not None:
            raise ValueError("token and token_file (--token, --token-file): give only one of them")
        return self

    @model_validator(mode="after")
    def _both_tls_files(self) -> "ServerSettings":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key (--tls-cert, --tls-key) belong together: give both or neither")
        if self.tls is not None and self.tls_cert is not None:
            raise ValueError("tls and tls_cert (--tls, --tls-cert): give only one of them")
        return self


class EventHistorySettings(Section):
    """What clients who come back can have (`since_seq`), over a restart of the program."""

    USUAL = ("persist",)
    persist: bool = Field(False, description="keep what was said on disk, so that clients go on after a restart")
    path: str | None = Field(None, min_length=1, description="the file; null: events.log beside the alerts' history")
    max_mb: float = Field(32.0, ge=1, le=4096, description="of disk; then the older half goes")


def with_token(settings: ServerSettings, environment: Mapping[str, str] = os.environ) -> ServerSettings:
    """The settings with the token in force: their own, that of their file, or else that of STREAMER_TOKEN.

    Neither the file nor the variable shows it to whoever lists processes. Raises ConfigError: no token is there.
    """
    if settings.token is not None or not settings.enabled:
        return settings
    if settings.token_file is not None:
        token, option = _read(Path(settings.token_file).expanduser()), f"--token-file {settings.token_file}"
    elif TOKEN_VARIABLE in environment:
        token, option = environment[TOKEN_VARIABLE].strip(), TOKEN_VARIABLE
    else:
        return settings
    if not _is_token(token):
        raise ConfigError(f"{option}: the token {TOKEN_RULE}")
    return settings.model_copy(update={"token": token})


def _read(path: Path) -> str:
    """The first line. Says so where others can read it too."""
    told = os.name == "posix" and SECRETS not in path.parents
    try:
        with path.open(encoding="utf-8") as file:
            if told and os.fstat(file.fileno()).st_mode & (stat.S_IRGRP | stat.S_IROTH):
                log.warning("streamer: --token-file %s: others on this machine can read it; chmod 600 mends that", path)
            return file.readline(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"--token-file {path}: cannot be read: {reason}") from None


def _is_token(value: str) -> bool:
    return len(value) >= 8 and value.isascii() and value.isprintable()
