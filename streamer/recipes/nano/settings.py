"""The settings of `streamer train nano`: one YAML file, every key checked."""

from pathlib import Path

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from streamer.errors import ConfigError


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Part):
    """The recordings (the train split of `manifest`), AudioSet's classes, and how much is synthesised.

    `beepers`: clips of each sound of `others`; `household`: of each sound of `household`.
    """

    manifest: Path
    labels: Path = Path(__file__).parents[2] / "data" / "audioset_labels.csv"
    without_speaker: str = ""
    voices: int = Field(260, ge=1)
    espeak: int = Field(7000, ge=1)
    flite: int = Field(3000, ge=1)
    beepers: int = Field(24, ge=0)
    household: int = Field(60, ge=0)
    seed: int = 11


class Network(_Part):
    """The sizes of the model."""

    width: int = Field(128, multiple_of=8)
    encoder_layers: int = Field(4, ge=1)
    decoder_layers: int = Field(2, ge=2)
    encoder_heads: int = 4
    decoder_heads: int = 4


class Composition(_Part):
    """How windows are composed; the shares of `lengths_s` need not add up to 1."""

    audio_s: float = 48.0
    lengths_s: tuple[float, ...] = (2, 3, 4, 6, 8, 10, 15, 20, 30)
    shares: tuple[float, ...] = (0.08, 0.1, 0.12, 0.16, 0.16, 0.18, 0.08, 0.05, 0.03)
    short_steps: int = 200
    long_steps: int = 700
    padded: float = Field(0.1, ge=0, le=1)
    timestamps: float = Field(0.4, ge=0, le=1)
    late: float = Field(0.6, ge=0, le=1)
    speech: float = 0.84
    alarm: float = 0.35
    sound: float = 0.5
    noisy: float = 0.75
    workers: int = Field(1, ge=1)


class LongWindows(_Part):
    """The last stage: a second, smaller rise and fall of the learning rate on longer windows and more timestamps.

    `flite`: so much of the continuous speech is by flite's voices, which are less like one another than espeak-ng's.
    """

    steps: int = Field(1300, ge=0)
    warmup: int = 30
    learning_rate: float = 8e-4
    flite: float = Field(0.5, ge=0, le=1)
    shares: tuple[float, ...] = (0.03, 0.04, 0.06, 0.1, 0.13, 0.2, 0.15, 0.14, 0.15)
    padded: float = Field(0.35, ge=0, le=1)
    timestamps: float = Field(0.7, ge=0, le=1)
    late: float = Field(0.3, ge=0, le=1)


class Weights(_Part):
    """What each loss counts beside the tokens' cross-entropy."""

    ctc: float = 0.3
    spoken: float = 1.0
    align: float = 0.3
    tags: float = 0.6


class Schedule(_Part):
    """The loop: the first half of its steps has the `early` weights, the second and the last stage the `late` ones.

    The tagging head learns `head_speed` times as fast: most classes are rare, so its gradients are mostly noise. The
    matrices of the backbone's blocks have Muon, at `matrix_speed` times the learning rate.
    """

    steps: int = Field(3200, ge=1)
    warmup: int = 100
    learning_rate: float = 1.5e-3
    final_rate: float = 3e-5
    head_speed: float = 3.0
    matrix_speed: float = 3.0
    weight_decay: float = 0.02
    average: float = 0.997
    early: Weights = Weights(spoken=3.0, align=0.1, tags=0.3)
    late: Weights = Weights(tags=0.8)
    long: LongWindows = LongWindows()
    spec_mask: float = 0.4
    save_every: int = 100
    processes: int = Field(2, ge=1)
    threads: int = Field(1, ge=1)
    bfloat16: bool = True
    seed: int = 5


class Head(_Part):
    """The tagging head's own stage: `groups` of 16 windows whose taps are computed once."""

    groups: int = Field(600, ge=5)
    steps: int = Field(4500, ge=1)
    seed: int = 21


class Settings(_Part):
    """Everything that decides what `streamer train nano` makes."""

    data: Data
    network: Network = Network()
    composition: Composition = Composition()
    schedule: Schedule = Schedule()
    head: Head = Head()
    out: Path

    @model_validator(mode="after")
    def _shares_of_lengths(self) -> "Settings":
        count = len(self.composition.lengths_s)
        for name, shares in (
            ("composition.shares", self.composition.shares),
            ("schedule.long.shares", self.schedule.long.shares),
        ):
            if len(shares) != count:
                raise ValueError(f"{name}: must have {count} numbers, one for each of composition.lengths_s")
        return self


def load(path: Path) -> Settings:
    """The settings in a YAML file; paths are relative to the working directory. Raises ConfigError naming the key."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}; it must name a YAML file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"--config {path}: not YAML ({str(error).splitlines()[0]})") from error
    try:
        return Settings.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = f"{'.'.join(map(str, first['loc']))}: " if first["loc"] else ""
        raise ConfigError(f"{where}{first['msg'].removeprefix('Value error, ')}") from error
