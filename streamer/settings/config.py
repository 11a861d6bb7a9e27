"""Settings: what a YAML file, `--set` and the command line may say, validated once, frozen afterwards.

Every refusal is a `ConfigError` of one line that starts with the key's full path. Several sources in one process are
told of in `sources.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, field_validator, model_validator

from streamer.errors import ConfigError
from streamer.settings.captions import ObsSettings, YouTubeSettings, ZoomSettings
from streamer.settings.cluster import ClusterSettings
from streamer.settings.deliveries import DeliverySettings
from streamer.settings.monitor import MonitorSettings
from streamer.settings.own_sounds import OwnSoundSettings
from streamer.settings.rules import AlertRule, AlertRules, SoundSettings
from streamer.settings.section import Section, apply_override, own_files, put, read_file, refusal
from streamer.settings.server import EventHistorySettings, ServerSettings
from streamer.settings.sources import SHARED_SECTIONS, SourceSettings, check_sources, overlay
from streamer.settings.words import hot_words, masked_words, named_languages, without_marks

Task = Literal["transcribe", "translate"]
Compute = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]
HotWords = Annotated[tuple[str, ...], BeforeValidator(hot_words)]


class AudioSettings(Section):
    """Where sound comes from."""

    USUAL = ("device", "input", "track", "speed")
    device: int | str | None = Field(None, description="index or a part of its name; null: the default one")
    input: str | None = Field(
        None, description="a file, - (stdin), demo, or ingest (what clients send), instead of a device"
    )
    track: int | None = Field(None, ge=1, description="which audio track of a file, from 1; null: the default one")
    speed: Literal[0, 1] = Field(1, description="of files; 1: in real time, 0: as fast as it goes")
    buffer_s: float = Field(60.0, ge=5, le=600, description="ring buffer; what a slower worker leaves is a gap")
    stall_s: float = Field(0.7, ge=0.5, le=60, description="no sound from the device for so long: no_audio")


class ModelSettings(Section):
    """Which checkpoint and head, and how to compute."""

    USUAL = ("name", "head", "compute", "dtype", "context")
    name: str = Field("auto", min_length=1, description="auto: the best that this machine carries and can have")
    head: str = Field("auto", min_length=1, description="tagging head: a path, auto, or none for captions only")
    compute: Compute = Field("auto", description="where")
    dtype: Dtype = Field("auto", description="in which precision")
    context: Literal["auto", "padded", "fit"] = Field(
        "auto", description="padded: to 30 s; fit: only the audio there is"
    )
    threads: int | None = Field(None, ge=1, le=256, description="of the CPU; null: up to 8")


class SpeechSettings(Section):
    """What the words are."""

    USUAL = ("language", "task", "prompt", "hot_words", "mask")
    language: str | tuple[str, ...] | None = Field(
        None, description="the only one that is spoken, or a list of those that may be (also en,de); null: detected"
    )
    task: Task = Field("transcribe", description="translate: into English")
    prompt: Annotated[str, Field(max_length=2000), AfterValidator(without_marks)] = Field(
        "", description="text the speaker might have said before"
    )
    carry_prompt: Literal["auto", "on", "off"] = Field(
        "auto", description="text that scrolled off conditions what follows; auto: where the model was trained for it"
    )
    hot_words: HotWords = Field((), description="names and jargon that may be said; never scroll off the prompt")
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

    @field_validator("mask", mode="before")
    @classmethod
    def _words_to_mask(cls, value: object) -> bool | tuple[str, ...]:
        """A file is read here, once, so that all sessions mask the same words."""
        return value if isinstance(value, bool) else masked_words(value)


class VadSettings(Section):
    """The gate: it decides when text is decoded, never whether we listen."""

    USUAL = ("speech_probability", "hangover_ms")
    speech_probability: float = Field(0.5, ge=0, le=0.95, description="of silero-vad; 0: webrtcvad alone")
    aggressiveness: int = Field(2, ge=0, le=3, description="of webrtcvad; 3 takes the least for speech")
    onset_ms: int = Field(60, ge=20, le=500, description="so much speech opens the gate")
    hangover_ms: int = Field(600, ge=200, le=3000, description="so long without speech closes it")
    preroll_ms: int = Field(300, ge=0, le=1000, description="so much before the onset is decoded too")
    above_floor_db: ClassVar[float] = 3.0  # a frame nearer to the noise floor cannot be told from the noise


class WindowSettings(Section):
    """When the encoder runs and what it sees."""

    USUAL = ("hop_s", "context_s")
    hop_s: float = Field(0.5, description="one encoder pass a hop while someone speaks")
    context_s: float | None = Field(
        None, ge=2, le=28, description="seconds a window looks back; null: as the model says"
    )
    segment_max_s: float = Field(30.0, ge=5, le=30, description="longer segments are cut where they can be")
    hop_max_s: float = Field(
        2.0, ge=0.1, le=5, description="live: where the machine cannot keep up, text comes less often, at most this far"
    )

    @field_validator("hop_s")
    @classmethod
    def _divides_a_second(cls, value: float) -> float:
        if value not in (0.1, 0.2, 0.5, 1.0):
            raise ValueError("must be 0.1, 0.2, 0.5 or 1 (whole frames of 20 ms; tags are due every second)")
        return value


class PolicySettings(Section):
    """How text becomes committed."""

    USUAL = ("name", "frontier_s")
    name: Literal["agreement", "alignatt"] = Field("alignatt", description="agreement: what two passes in a row wrote")
    frontier_s: float = Field(0.5, ge=0.04, le=5, description="alignatt: so far from the end of the audio is open")
    segment_pause_ms: int = Field(1500, ge=200, le=10_000, description="whoever goes on sooner goes on in the segment")


class GuardSettings(Section):
    """Guards against invented text; each can be switched off."""

    silence: bool = Field(True, description="the model sees no speech, and does not believe its words")
    loops: bool = Field(True, description="a hypothesis ends where it begins to repeat itself")
    past: bool = Field(True, description="words written where the committed ones were heard")
    speech_tag: bool = Field(True, description="the Speech score of the same encoder pass")
    doubt: bool = Field(True, description="an utterance is committed only if one of its windows was likely")
    tokens_per_second: float = Field(10.0, ge=1, le=100, description="the most that the decoder may write of new audio")

    no_speech_probability: ClassVar[float] = 0.6  # more may be silence; this and the next two are Whisper's bounds
    mean_logprob: ClassVar[float] = -1.0  # less is unsure
    compression_ratio: ClassVar[float] = 2.4  # more repeats itself
    likely_logprob: ClassVar[float] = -0.75  # of a window that is likely; docs/design.md says what it was placed by
    speech_score: ClassVar[float] = 0.3  # less is no speech to the head; the guard is the switch, not its threshold


class TagSettings(Section):
    """The `tags` event: spans that are judged, least score, most tags."""

    spans_s: tuple[float, ...] = Field(
        (1.0, 2.0, 5.0, 10.0), min_length=1, max_length=5, description="the last so many seconds"
    )
    min_score: float = Field(0.1, ge=0.1, le=1, description="lower ones are left out")
    limit: int = Field(10, ge=1, le=10, description="the best so many are told")

    @field_validator("spans_s")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0.4 <= span <= 10 for span in value) or sorted(set(value)) != list(value):
            raise ValueError("must be ascending seconds between 0.4 and 10")
        return value


class OutputSettings(Section):
    """Files, the terminal, and captions for live streams and meetings."""

    USUAL = ("jsonl", "srt", "vtt", "transcripts", "quiet", "stay", "obs", "youtube", "zoom")
    jsonl: str | None = Field(None, description="events, one JSON object a line; -: stdout")
    srt: str | None = Field(None, description="captions as SubRip")
    vtt: str | None = Field(None, description="captions as WebVTT")
    transcripts: str | None = Field(
        None, min_length=1, description="a folder: what is said, as text, a file for each session and day"
    )
    quiet: bool = Field(False, description="no terminal view")
    stay: bool = Field(False, description="keep the server up after the end of the input")
    obs: ObsSettings = ObsSettings()
    youtube: YouTubeSettings = YouTubeSettings()
    zoom: ZoomSettings = ZoomSettings()


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """One source to open. `path`: where it stands in the settings, "" for the one that --device or --input names.

    `name`: its session's id, "" where the program chooses one. In `settings.audio` is what to open.
    """

    name: str
    path: str
    settings: "Settings"


class Settings(Section):
    """All settings of one Streamer; `streamer.Stream(model, settings)` takes the same object."""

    USUAL = (
        *("audio", "model", "speech", "window", "policy", "alerts", "delivery", "monitor", "server", "output"),
        "sources",
    )
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
    own_sounds: OwnSoundSettings = OwnSoundSettings()
    delivery: DeliverySettings = DeliverySettings()
    monitor: MonitorSettings = MonitorSettings()
    server: ServerSettings = ServerSettings()
    history: EventHistorySettings = EventHistorySettings()
    cluster: ClusterSettings = ClusterSettings()
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
    def _transcripts_are_live(self) -> "Settings":
        if self.output.transcripts is not None and self.audio.speed == 0:
            raise ValueError(
                "output.transcripts: is for what is heard as it happens, with the time of day; at audio.speed 0 give "
                "output.srt, output.vtt or output.jsonl (--srt, --vtt, --jsonl)"
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
            common = self.model_dump(include=SHARED_SECTIONS) if self.sources else {}
            paths = [f"sources[{index}]" for index in range(len(self.sources))]
            found = [
                SourcePlan(source.name, path, validate(overlay(common, source, path), where=f"{path}.settings."))
                for source, path in zip(self.sources, paths, strict=True)
            ]
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return tuple(found) or (SourcePlan("", "", self),)

    def all_rules(self) -> tuple[AlertRule, ...]:
        """The alert rules of all sources, each id once."""
        rules = {rule.id: rule for plan in reversed(self.plans()) for rule in plan.settings.alerts.rules}
        return tuple((rules | {rule.id: rule for rule in self.alerts.rules}).values())

    def secret_names(self) -> frozenset[str]:
        """The environment variables that hold secrets: programs that we start do not get them."""
        captions = (self.output.obs.password_env, self.output.youtube.url_env, self.output.zoom.url_env)
        return self.delivery.secret_names() | {name for name in captions if name is not None}

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
        raise ConfigError(where + refusal(error, Settings)) from None


def resolve(files: Sequence[Path], overrides: Sequence[str], options: Mapping[str, Any]) -> Settings:
    """Settings in force: files in order (none: one's own), then `--set`, then options of the command line, by path."""
    data: dict[str, Any] = {}
    for path in files or own_files():
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
