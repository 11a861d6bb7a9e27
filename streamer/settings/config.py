"""Settings: what a YAML file, `--set` and the command line may say, validated once, frozen afterwards.

Every refusal is a `ConfigError` of one line that starts with the key's full path.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from streamer.errors import ConfigError
from streamer.settings.deliveries import DeliverySettings
from streamer.settings.languages import named_languages
from streamer.settings.rules import AlertRule, AlertRules, SoundSettings
from streamer.settings.sources import SourcePlan, SourceSettings, check_sources, overlay
from streamer.settings.word_lists import hot_words, masked_words, without_marks

Compute = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AudioSettings(_Section):
    """Where sound comes from. `speed` 1: in real time, 0: as fast as it goes (files and stdin)."""

    device: int | str | None = None
    input: str | None = None
    track: int | None = Field(None, ge=1, description="which audio track of a file, from 1; null: the default one")
    speed: Literal[0, 1] = 1
    buffer_s: float = Field(60.0, ge=5, le=600, description="ring buffer; what a slower worker leaves is a gap")
    stall_s: float = Field(2.0, ge=0.5, le=60, description="no sound from the device for so long: no_audio")


class ModelSettings(_Section):
    """Which checkpoint and head, and how to compute. `context`: windows padded to 30 s or only the audio there is."""

    name: str = Field("auto", min_length=1, description="auto: the best that this machine carries and can have")
    head: str = Field("auto", min_length=1)
    compute: Compute = "auto"
    dtype: Dtype = "auto"
    context: Literal["auto", "padded", "fit"] = "auto"
    threads: int | None = Field(None, ge=1, le=256)


class SpeechSettings(_Section):
    """What the words are: `prompt` is text the speaker might have said before."""

    language: str | tuple[str, ...] | None = Field(
        None, description="the only one that is spoken, or a list of those that may be (also en,de); null: detected"
    )
    task: Literal["transcribe", "translate"] = "transcribe"
    prompt: str = Field("", max_length=2000)
    carry_prompt: Literal["auto", "on", "off"] = Field(
        "auto", description="text that scrolled off conditions what follows; auto: where the model was trained for it"
    )
    hot_words: tuple[str, ...] = Field((), description="names and jargon that may be said; never scroll off the prompt")
    mask: bool | str | tuple[str, ...] = Field(
        False,
        description="words shown as their first letter and asterisks: true (short English list), a list, or a file",
    )

    @field_validator("language", mode="before")
    @classmethod
    def _codes(cls, value: object) -> str | tuple[str, ...] | None:
        """Whisper's codes in any case; names such as English become codes where the model is loaded."""
        names = named_languages(value)
        return names if len(names) > 1 else names[0] if names else None

    @property
    def languages(self) -> tuple[str, ...]:
        """Those that may be spoken; empty: any, one: no other is looked for."""
        return named_languages(self.language)

    @field_validator("prompt")
    @classmethod
    def _plain_text(cls, value: str) -> str:
        return without_marks(value)

    @field_validator("hot_words", mode="before")
    @classmethod
    def _words_and_phrases(cls, value: object) -> tuple[str, ...]:
        return hot_words(value)

    @field_validator("mask", mode="before")
    @classmethod
    def _words_to_mask(cls, value: object) -> bool | tuple[str, ...]:
        """A file is read here, once, so that all sessions mask the same words."""
        return value if isinstance(value, bool) else masked_words(value)


class VadSettings(_Section):
    """The gate: it decides when text is decoded, never whether we listen."""

    speech_probability: float = Field(0.5, ge=0, le=0.95, description="of silero-vad; 0: webrtcvad alone")
    aggressiveness: int = Field(2, ge=0, le=3)
    onset_ms: int = Field(60, ge=20, le=500)
    hangover_ms: int = Field(600, ge=200, le=3000)
    preroll_ms: int = Field(300, ge=0, le=1000)
    above_floor_db: float = Field(3.0, ge=0, le=30, description="a frame this near the noise floor is not speech")


class WindowSettings(_Section):
    """When the encoder runs and what it sees."""

    hop_s: float = Field(0.5, description="one encoder pass a hop while someone speaks")
    context_s: float | None = Field(
        None, ge=2, le=28, description="seconds a window looks back; null: as the model says"
    )
    segment_max_s: float = Field(30.0, ge=5, le=30)
    hop_max_s: float = Field(
        2.0, ge=0.1, le=5, description="live: where the machine cannot keep up, text comes less often, at most this far"
    )

    @field_validator("hop_s")
    @classmethod
    def _divides_a_second(cls, value: float) -> float:
        if value not in (0.1, 0.2, 0.5, 1.0):
            raise ValueError("must be 0.1, 0.2, 0.5 or 1 (whole frames of 20 ms; tags are due every second)")
        return value


class PolicySettings(_Section):
    """How text becomes committed."""

    name: Literal["agreement", "alignatt"] = "alignatt"
    frontier_s: float = Field(0.5, ge=0.04, le=5, description="alignatt: so far from the end of the audio is open")
    segment_pause_ms: int = Field(1500, ge=200, le=10_000, description="whoever goes on sooner goes on in the segment")


class GuardSettings(_Section):
    """Guards against invented text; each can be switched off."""

    voice: bool = Field(True, description="a word needs frames that the gate heard as voiced")
    silence: bool = Field(True, description="the model sees no speech, and does not believe its words")
    loops: bool = Field(True, description="a hypothesis ends where it begins to repeat itself")
    budget: bool = Field(True, description="no more words than anybody can say in the time")
    past: bool = Field(True, description="words written where the committed ones were heard")
    speech_tag: bool = Field(True, description="the Speech score of the same encoder pass")
    doubt: bool = Field(True, description="an utterance is committed only if one of its windows was likely")
    no_speech_probability: float = Field(0.6, ge=0, le=1, description="more than this may be silence")
    mean_logprob: float = Field(-1.0, ge=-20, le=0)
    likely_logprob: float = Field(-0.75, ge=-20, le=0, description="mean log-probability of a window that is likely")
    compression_ratio: float = Field(2.4, ge=1, le=100)
    tokens_per_second: float = Field(10.0, ge=1, le=100)
    speech_score: float = Field(0.3, ge=0, le=1)


class TagSettings(_Section):
    """The `tags` event: spans that are judged, least score, most tags."""

    spans_s: tuple[float, ...] = Field((2.0, 5.0, 10.0), min_length=1, max_length=5)
    min_score: float = Field(0.1, ge=0.1, le=1)
    limit: int = Field(10, ge=1, le=10)

    @field_validator("spans_s")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0.4 <= span <= 10 for span in value) or sorted(set(value)) != list(value):
            raise ValueError("must be ascending seconds between 0.4 and 10")
        return value


class ServerSettings(_Section):
    """The websocket and page server."""

    enabled: bool = True
    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(8765, ge=0, le=65535)
    token: str | None = Field(None, repr=False)
    tls_cert: str | None = None
    tls_key: str | None = None
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    allow_set: bool = Field(False, description="who holds the token may change the language while the program runs")
    max_clients: int = Field(64, ge=1, le=10_000, description="that read events; senders on /ingest beside them")

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


class OutputSettings(_Section):
    """Files and the terminal. `jsonl` may be `-` for stdout."""

    jsonl: str | None = None
    srt: str | None = None
    vtt: str | None = None
    quiet: bool = False
    stay: bool = False


class Settings(_Section):
    """All settings of one Streamer; `streamer.Stream(model, settings)` takes the same object."""

    audio: AudioSettings = AudioSettings()
    model: ModelSettings = ModelSettings()
    speech: SpeechSettings = SpeechSettings()
    vad: VadSettings = VadSettings()
    window: WindowSettings = WindowSettings()
    policy: PolicySettings = PolicySettings()
    guards: GuardSettings = GuardSettings()
    tags: TagSettings = TagSettings()
    sounds: SoundSettings = SoundSettings()
    alerts: AlertRules = Field(default_factory=AlertRules.default)
    delivery: DeliverySettings = DeliverySettings()
    server: ServerSettings = ServerSettings()
    output: OutputSettings = OutputSettings()
    sources: tuple[SourceSettings, ...] = Field((), description="several microphones, files …, instead of one in audio")

    @model_validator(mode="after")
    def _hangover_covers_a_hop(self) -> "Settings":
        if self.vad.hangover_ms < self.window.hop_s * 1000:
            raise ValueError(
                f"vad.hangover_ms: must be at least window.hop_s ({self.window.hop_s * 1000:.0f} ms), so that the last "
                f"window holds the last word; is {self.vad.hangover_ms}"
            )
        return self

    @model_validator(mode="after")
    def _deliveries_name_rules(self) -> "Settings":
        self.delivery.check_rules(frozenset(rule.id for rule in self.all_rules()))
        return self

    @model_validator(mode="after")
    def _sources_fit_together(self) -> "Settings":
        self.plans()
        return self

    def plans(self) -> tuple[SourcePlan, ...]:
        """The sources to open, each with the settings in force for it. ValueError names what cannot be."""
        try:
            check_sources(self.sources, self.audio.device, self.audio.input)
            paths = [f"sources[{index}]" for index in range(len(self.sources))]
            found = [
                SourcePlan(source.name, path, validate(overlay(self, source, path), where=f"{path}.settings."))
                for source, path in zip(self.sources, paths, strict=True)
            ]
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return tuple(found) or (SourcePlan("", "", self),)

    def all_rules(self) -> tuple[AlertRule, ...]:
        """The alert rules of all sources, each id once."""
        rules = {rule.id: rule for plan in reversed(self.plans()) for rule in plan.settings.alerts.rules}
        return tuple((rules | {rule.id: rule for rule in self.alerts.rules}).values())

    def with_languages(self, languages: tuple[str, ...]) -> "Settings":
        """The same settings for other languages, empty: any."""
        language = languages if len(languages) > 1 else languages[0] if languages else None
        return self.model_copy(update={"speech": self.speech.model_copy(update={"language": language})})

    def to_yaml(self) -> str:
        """All settings in force as YAML, for --print-config; the token and addresses with secrets are not shown."""
        data = self.model_dump(mode="json")
        if data["server"]["token"]:
            data["server"]["token"] = "********"
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def validate(data: Mapping[str, Any], where: str = "") -> Settings:
    """Settings from plain data. `where` (a file's name) stands before the key in the message of a ConfigError."""
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_line(error, where)) from None


def read_file(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; ConfigError where it cannot be read or is none."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"--config {path}: cannot be read: {reason}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(
            f"--config {path}: not valid YAML{place}: {getattr(error, 'problem', None) or 'broken'}"
        ) from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(
            f"--config {path}: must be a mapping of sections such as 'audio:', is a {type(data).__name__}"
        )
    return data


def put(data: dict[str, Any], key: str, value: Any) -> None:
    """Set `section.key` in nested plain data, making the sections on the way."""
    *sections, last = key.split(".")
    for section in sections:
        inner = data.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{key}: {section} is not a section")
        data = inner
    data[last] = value


def apply_override(data: dict[str, Any], text: str) -> None:
    """Apply one `--set KEY=VALUE`; VALUE is read as YAML (numbers, true/false, null, lists)."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"--set {text}: must be KEY=VALUE, for example --set window.hop_s=0.5")
    try:
        put(data, key.strip(), yaml.safe_load(value))
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError(f"--set {key.strip()}: value {value!r} is not valid YAML") from None


def resolve(files: Sequence[Path], overrides: Sequence[str], options: Mapping[str, Any]) -> Settings:
    """Settings in force: files in order, then `--set`, then options given on the command line ({path: value})."""
    data: dict[str, Any] = {}
    for path in files:
        found = read_file(path)
        validate(found, where=f"{path}: ")
        for section, values in found.items():
            current = data.get(section)
            data[section] = {**current, **values} if isinstance(current, dict) and isinstance(values, dict) else values
    for text in overrides:
        apply_override(data, text)
    for key, value in options.items():
        put(data, key, value)
    return validate(data)


def _line(error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    path = ""
    for part in first["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    message = first["msg"].removeprefix("Value error, ").strip().replace("\n", " ")
    if first["type"] == "extra_forbidden":
        return f"{where}{path}: unknown key; known here: {', '.join(_known(first['loc']))}"
    if first["type"] == "value_error" and (not path or message.startswith(path)):
        return f"{where}{message}"
    return f"{where}{path}: {message[:1].lower() + message[1:]}{_given(path, first['input'])}"


def _given(path: str, value: Any) -> str:
    """What was wrong, unless it may be a secret: deliveries have addresses with tokens in them, sections may too."""
    secret = path.endswith("token") or (path.startswith("delivery") and not isinstance(value, int | float))
    if secret or isinstance(value, Mapping):
        return ""
    shown = repr(value)
    return f"; is {shown if len(shown) <= 60 else shown[:57] + '…'}"


def _known(loc: tuple[int | str, ...]) -> list[str]:
    section: Any = Settings
    for part in loc[:-1]:
        if isinstance(part, int):
            section = next(iter(get_args(section)), None)
            continue
        field = getattr(section, "model_fields", {}).get(part)
        if field is None:
            return ["see --print-config"]
        section = field.annotation
    return list(getattr(section, "model_fields", {})) or ["see --print-config"]
