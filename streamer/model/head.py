"""A tagging head as it is loaded: its module, where it came from, and how its logits become scores.

A head file `X.pth` may have a description `X.json` beside it:

    {"kind": "tl_tr", "backbone": "base", "thresholds": [527 scores], "calibration": {"scale": [527], "offset": [527]}}

All fields are optional and others are allowed. A calibrated score is 1 / (1 + exp(-(scale * logit + offset))) per class
(Platt, 1999); without a calibration scale is 1 and offset 0.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from streamer.errors import CheckpointError
from streamer.model.tagging import CLASSES, HeadKind, HeadModule, build_head, check_fits, read_shape, strip_prefixes
from streamer.model.transfer import send
from streamer.model.weights import read_description, read_tensors


class Calibration(BaseModel):
    """Per class: score = logistic(scale * logit + offset)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    scale: tuple[float, ...] = Field(min_length=CLASSES, max_length=CLASSES)
    offset: tuple[float, ...] = Field(min_length=CLASSES, max_length=CLASSES)


class HeadDescription(BaseModel):
    """What the JSON beside a head may say; fields that only people read pass through unchecked."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    kind: HeadKind | None = None
    backbone: str | None = None
    thresholds: tuple[float, ...] | None = Field(None, min_length=CLASSES, max_length=CLASSES)
    calibration: Calibration | None = None
    trained_spans_s: tuple[float, ...] | None = Field(None, min_length=1)


@dataclass(frozen=True, slots=True)
class TaggingHead:
    """A head that can judge: `name` for people, `module` with frozen weights, `description` from the JSON beside it."""

    name: str
    module: HeadModule
    description: HeadDescription = field(default_factory=HeadDescription)

    def check_fits(self, layers: int, width: int, model: str) -> None:
        """Raise CheckpointError unless the head reads taps of this many layers and this width."""
        check_fits(self.module.shape, layers, width, self.name, model)

    @torch.inference_mode()
    def probabilities(self, logits: Tensor) -> Tensor:
        """Calibrated scores in 0..1 for logits [..., 527], float32."""
        calibration = self.description.calibration
        if calibration is None:
            return torch.sigmoid(logits.float())
        scale, offset = (send(values, logits.device) for values in (calibration.scale, calibration.offset))
        return torch.sigmoid(logits.float() * scale + offset)


def load_head(path: Path) -> TaggingHead:
    """Read a Whisper-AT `.pth` (any of the kinds, prefixes `at_model.` and `module.`) and the JSON beside it.

    Raises CheckpointError with one line when it is missing, damaged, no head, or disagrees with its JSON.
    """
    tensors = strip_prefixes(read_tensors(path, "head"))
    description = read_description(path.with_suffix(".json"), HeadDescription)
    kind = description.kind
    if kind is None and "mean_mlp" in path.stem:  # its tensors are those of a Last-MLP
        kind = HeadKind.MEAN_MLP
    shape = read_shape(tensors, str(path), kind)
    if shape.classes != CLASSES:
        raise CheckpointError(f"{path} judges {shape.classes} classes: a head over AudioSet's {CLASSES} is needed")
    return TaggingHead(path.stem, build_head(tensors, shape, str(path)), description)
