"""The settings of `streamer train head`: the YAML file, validated. `configs/train_head.yaml` says what each means."""

from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from streamer.errors import ConfigError
from streamer.model.head import HeadKind
from streamer.settings.section import apply_override
from streamer.training.features import TapRecipe
from streamer.training.manifests import ManifestSettings

Parsed = TypeVar("Parsed", bound=BaseModel)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class HeadSection(_Section):
    """Which head: its kind, the width that WA-Tr and TL-Tr project the taps to first, what it goes on from.

    `keep`: how much of the weights that it went on from the result keeps; what was learned for them stays so.
    """

    kind: HeadKind = HeadKind.TL_TR
    low_width: int | None = Field(None, ge=8)
    start: Path | None = None
    keep: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _only_for_transformers(self) -> Self:
        if self.low_width is not None and self.kind not in (HeadKind.WA_TR, HeadKind.TL_TR):
            raise ValueError(f"low_width belongs to wa_tr and tl_tr; the kind is {self.kind}")
        return self

    @model_validator(mode="after")
    def _keeps_only_what_there_was(self) -> Self:
        if self.keep and self.start is None:
            raise ValueError(f"keep is {self.keep}: it needs a start, the head whose weights it keeps")
        return self


class DataSection(_Section):
    """Manifests and their parts; see `manifests`."""

    manifests: tuple[ManifestSettings, ...] = Field(min_length=1)
    train: str = "train"
    validation: str = "validation"
    validation_share: float = Field(0.15, gt=0, lt=1)


class FeatureSection(_Section):
    """How taps are made and where they are kept; see `features.TapRecipe`."""

    cache: Path = Path("build/taps")
    window_s: float = Field(10.0, ge=1, le=30)
    least_s: float = Field(1.0, ge=0.4, le=10)
    context: Literal["auto", "padded", "fit"] = "auto"
    stored: Literal["float16", "float32"] = "float16"

    def recipe(self) -> TapRecipe:
        """The same, for `features`."""
        return TapRecipe(self.window_s, self.least_s, self.context, self.stored)


class SceneSection(_Section):
    """Scenes that are composed from the clips, with a teacher for what is not labelled; see `scenes`."""

    folder: Path = Path("build/scenes")
    count: int = Field(3000, ge=100)
    validation: int = Field(400, ge=50)
    teacher: Path | None = None
    short_windows: bool = True  # hear as live windows do, with `streamer train context`'s differences
    stock: bool = False  # and as stock weights do, with their margin


class RecipeSection(_Section):
    """The optimisation; defaults are Whisper-AT's for small backbones on AudioSet."""

    epochs: int = Field(30, ge=1)
    average_from: int = Field(21, ge=1)
    batch: int = Field(48, ge=1)
    rate: float = Field(1e-4, gt=0)
    decay_from: int = Field(15, ge=1)
    decay_every: int = Field(5, ge=1)
    decay: float = Field(0.75, gt=0, le=1)
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(5e-7, ge=0)
    betas: tuple[float, float] = (0.95, 0.999)
    balanced: bool = True
    spans_s: tuple[float, ...] = Field((1.0, 2.0, 5.0, 10.0), min_length=1)
    mixup: float = Field(0.5, ge=0, le=1)
    mixup_beta: float = Field(10.0, gt=0)
    time_mask_share: float = Field(0.4, ge=0, lt=1)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    save_every_steps: int = Field(2000, ge=1)

    @model_validator(mode="after")
    def _averages_something(self) -> Self:
        if self.average_from > self.epochs:
            raise ValueError(f"average_from is {self.average_from}: at most epochs ({self.epochs}) is needed")
        if any(not 0.4 <= span <= 30 for span in self.spans_s):
            raise ValueError("spans_s: seconds between 0.4 and 30 are needed")
        return self


class HeadTraining(_Section):
    """All of `streamer train head`."""

    model: str = "nano"
    out: Path
    seed: int = Field(0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    head: HeadSection = HeadSection()
    data: DataSection
    features: FeatureSection = FeatureSection()
    recipe: RecipeSection = RecipeSection()
    scenes: SceneSection | None = None

    @model_validator(mode="after")
    def _out_is_a_head(self) -> Self:
        if self.out.suffix != ".pth":
            raise ValueError(f"out is {self.out}: a name ending in .pth is needed")
        return self


def read_settings(path: Path, kind: type[Parsed], overrides: tuple[str, ...] = ()) -> Parsed:
    """A YAML file as validated settings, with KEY=VALUE overrides. Raises ConfigError, one line that names the key."""
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--config {path} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"--config {path} is not valid YAML: {error}".replace("\n", " ")) from error
    if not isinstance(data, dict):
        raise ConfigError(f"--config {path}: a mapping of settings is needed; it is {type(data).__name__}")
    for override in overrides:
        apply_override(data, override)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "settings"
        raise ConfigError(f"--config {path}: {key}: {first['msg'].removeprefix('Value error, ')}") from error
