"""The settings of captions for live streams and meetings: OBS, YouTube and Zoom get what is said, line by line.

Each is off until it has an address. YouTube's and Zoom's addresses let whoever knows them write captions, and OBS's
password opens OBS: none of them is ever shown.
"""

from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from streamer.settings import forms
from streamer.settings.deliveries import EnvName, check_web_address
from streamer.settings.section import Section

OBS_FORMS = "must be OBS's websocket address such as ws://127.0.0.1:4455, without user, path or password in it"


def _obs_address(value: str) -> str:
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0 and parts.username is None
    except ValueError:
        raise ValueError(OBS_FORMS) from None
    if not good or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(OBS_FORMS)
    return value


def _caption_address(value: SecretStr) -> SecretStr:
    check_web_address(value.get_secret_value())
    return value


CaptionAddress = Annotated[SecretStr, AfterValidator(_caption_address)]


class ObsSettings(Section):
    """OBS's stream captions (CEA-608), through obs-websocket 5, which OBS has from version 28 on."""

    USUAL = ("url", "password", "password_env", "sounds")
    url: Annotated[str, AfterValidator(_obs_address)] | None = Field(
        None, description="where OBS listens, usually ws://127.0.0.1:4455; null: no captions for OBS"
    )
    password: SecretStr | None = Field(None, description="of OBS's WebSocket server; better in password_env")
    password_env: EnvName | None = Field(None, description="the environment variable that holds it")
    sounds: bool = Field(True, description="sounds too, in brackets")

    @model_validator(mode="after")
    def _one_password(self) -> "ObsSettings":
        if self.password is not None and self.password_env is not None:
            raise ValueError("must have only one of password, password_env")
        return self


class _Posted(Section):
    """A service that takes captions by HTTP POST, at an address that it gives for one stream or meeting."""

    USUAL: ClassVar[tuple[str, ...]] = ("url", "url_env", "sounds")
    url: CaptionAddress | None = Field(None, description="the address that the service shows; null: none. Never shown")
    url_env: EnvName | None = Field(None, description="the environment variable that holds it")
    sounds: bool = Field(True, description="sounds too, in brackets")

    @model_validator(mode="after")
    def _one_url(self) -> "_Posted":
        if self.url is not None and self.url_env is not None:
            raise ValueError("must have only one of url, url_env")
        return self

    @property
    def wanted(self) -> bool:
        """Whether an address was given."""
        return self.url is not None or self.url_env is not None


class YouTubeSettings(_Posted):
    """YouTube Live: "Captions", "POST captions to URL"."""


class ZoomSettings(_Posted):
    """Zoom: "Set up manual captioner", "Copy the API token"."""

    USUAL = ("url", "url_env", "lang", "sounds")
    lang: str = Field("en-US", pattern=forms.LANGUAGE, description="what Zoom takes the captions for, as de-DE")
