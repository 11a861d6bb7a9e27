"""Settings of the server: where it listens, who may use it, and which protocols of others it speaks."""

from pydantic import Field, field_validator, model_validator

from streamer.settings.section import Section


class ServerSettings(Section):
    """The websocket and page server."""

    USUAL = (
        *("enabled", "host", "port", "token", "tls_cert", "tls_key", "hosts", "allow_set", "max_clients"),
        *("openai", "wyoming_port"),
    )
    enabled: bool = Field(True, description="false: no server (--no-server)")
    host: str = Field("127.0.0.1", min_length=1, description="to listen on; addresses others can reach demand a token")
    port: int = Field(8765, ge=0, le=65535, description="0: any free one")
    token: str | None = Field(None, repr=False, description="what clients must present")
    tls_cert: str | None = Field(None, description="PEM file; with tls_key")
    tls_key: str | None = Field(None, description="PEM file; with tls_cert")
    origins: tuple[str, ...] = Field((), description="other web origins whose pages may connect")
    hosts: tuple[str, ...] = Field((), description="other names by which clients reach this machine")
    allow_set: bool = Field(False, description="who holds the token may change the language while the program runs")
    max_clients: int = Field(64, ge=1, le=10_000, description="that read events; senders on /ingest beside them")
    openai: bool = Field(False, description="answer clients of OpenAI's audio and Realtime API, below /v1/")
    upload_max_mb: int = Field(25, ge=1, le=4096, description="openai: largest file that is taken")
    upload_max_min: int = Field(
        60, ge=1, le=1440, description="openai: longest; 345 MB of memory for each hour of sound"
    )
    wyoming_port: int | None = Field(
        None, ge=0, le=65535, description="speech to text for Home Assistant; 0: any free one"
    )
    wyoming_host: str = Field(
        "127.0.0.1", min_length=1, description="to listen on; Wyoming knows neither token nor TLS"
    )

    @field_validator("token")
    @classmethod
    def _hard_to_guess(cls, value: str | None) -> str | None:
        if value is not None and not (len(value) >= 8 and value.isascii() and value.isprintable()):
            raise ValueError("must be at least 8 printable ASCII characters (--token)")
        return value

    @model_validator(mode="after")
    def _both_tls_files(self) -> "ServerSettings":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key (--tls-cert, --tls-key) belong together: give both or neither")
        return self
