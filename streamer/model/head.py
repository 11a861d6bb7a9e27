"""The tagging heads of Whisper-AT: 527 AudioSet classes from the taps of a frozen Whisper encoder.

Kinds and names follow Gong et al., "Whisper-AT" (arXiv 2307.03183) and its training code. A head takes taps
[B, layers, steps, d] (0.4 s a step, any number of steps) and gives logits [B, 527], one judgement over all steps.
Kind and sizes of a released `.pth` are read off its tensors.

A head file `X.pth` may have a description `X.json` beside it:

    {"kind": "tl_tr", "backbone": "base", "thresholds": [527 scores], "calibration": {"scale": [527], "offset": [527]}}

`rules` holds fields of alert rules by the rule's id (`{"siren": {"threshold": 0.6}}`), for thresholds belong to a head;
`trained_classes` the indices that training had examples of; `shape` (layers, d) and `encoder_sha256` say for which
encoder a bundled head was taught. All fields are optional and others are allowed. A calibrated score is
1 / (1 + exp(-(scale * logit + offset))) per class (Platt, 1999); without a calibration scale is 1 and offset 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from whisper.model import AudioEncoder, LayerNorm, Linear, ResidualAttentionBlock

from streamer.errors import CheckpointError
from streamer.model.encoder import Block, encoder_sha256
from streamer.model.memory import send
from streamer.model.tensor_files import cast_weights, check_tensors, read_description, read_tensors

CLASSES = 527  # AudioSet
TIME_HEADS = 1  # attention heads of the released time transformers
LAYER_HEADS = 8  # and of the layer transformers


class HeadKind(StrEnum):
    """How layers and time are brought together; with a low width, TL_TR and WA_TR project the taps first."""

    LAST_MLP = "last_mlp"
    MEAN_MLP = "mean_mlp"
    WA_MLP = "wa_mlp"
    WA_TR = "wa_tr"
    TL_TR = "tl_tr"


@dataclass(frozen=True, slots=True)
class HeadShape:
    """What a head is made of. `layers` None: any number (only the weighted kinds have one weight per layer)."""

    kind: HeadKind
    width: int
    layers: int | None = None
    low_width: int | None = None
    classes: int = CLASSES
    time_heads: int = TIME_HEADS
    layer_heads: int = LAYER_HEADS


class HeadModule(nn.Module):
    """One head of any kind; parameter names are those of the released files.

    Weights may be of any floating-point type but those of `mlp_layer`, which are float32, as the logits are.
    """

    def __init__(self, shape: HeadShape) -> None:
        """Fresh weights (PyTorch's defaults, layer weights 1/layers)."""
        super().__init__()
        self.shape = shape
        inner = shape.low_width or shape.width
        if shape.low_width is not None:
            self.down_layer = nn.Sequential(LayerNorm(shape.width), Linear(shape.width, shape.low_width))
        if shape.kind in (HeadKind.WA_MLP, HeadKind.WA_TR):
            if shape.layers is None:
                raise ValueError(f"a {shape.kind} head needs its number of layers")
            self.layer_weight = nn.Parameter(torch.full((shape.layers,), 1 / shape.layers))
        if shape.kind in (HeadKind.WA_TR, HeadKind.TL_TR):
            self.time_tr = ResidualAttentionBlock(inner, shape.time_heads)
        if shape.kind is HeadKind.TL_TR:
            self.layer_tr = ResidualAttentionBlock(inner, shape.layer_heads)
        self.mlp_layer = nn.Sequential(LayerNorm(inner), Linear(inner, shape.classes))
        self._placed: dict[str, Block] = {}  # the transformers as they serve, once `place` froze them

    def forward(self, taps: Tensor) -> Tensor:
        """Taps [B, layers, steps, d] of the weights' dtype to logits, float32 [B, classes]."""
        match self.shape.kind:
            case HeadKind.LAST_MLP:
                vector = taps[:, -1].mean(1)
            case HeadKind.MEAN_MLP:
                vector = taps.mean((1, 2))
            case HeadKind.WA_MLP:
                vector = self._weighted(taps.mean(2))
            case HeadKind.WA_TR:
                vector = self._through("time_tr", self._down(self._weighted(taps))).mean(1)
            case HeadKind.TL_TR:
                layers = self._through("time_tr", self._down(taps).flatten(0, 1)).mean(1)
                vector = self._through("layer_tr", layers.view(*taps.shape[:2], -1)).mean(1)
        logits: Tensor = self.mlp_layer(vector.float())
        return logits

    def place(self, dtype: torch.dtype, device: torch.device) -> None:
        """Freeze the weights on a device in a type; the classifier and the layer weights stay float32."""
        for name, part in self.named_children():
            cast_weights(part, torch.float32 if name == "mlp_layer" else dtype, device)
        self.requires_grad_(False).to(device)
        for name, part in self.named_children():
            if isinstance(part, ResidualAttentionBlock):
                self._placed[name] = Block(part)

    def _through(self, name: str, x: Tensor) -> Tensor:
        """X [B, n, width] through one of the transformers."""
        placed = self._placed.get(name)
        mixed: Tensor = getattr(self, name)(x) if placed is None else placed(x.contiguous())
        return mixed

    def _down(self, x: Tensor) -> Tensor:
        if self.shape.low_width is None:
            return x
        lowered: Tensor = self.down_layer(x)
        return lowered

    def _weighted(self, x: Tensor) -> Tensor:
        """The weighted average over the layers (dimension 1)."""
        weights = (self.layer_weight / self.layer_weight.sum()).to(x.dtype)
        averaged: Tensor = torch.tensordot(x, weights, dims=([1], [0]))
        return averaged


def strip_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under plain keys: without `module.` (training) and `at_model.` (releases), in any order."""

    def plain(key: str) -> str:
        while key.startswith(("module.", "at_model.")):
            key = key.partition(".")[2]
        return key

    return {plain(key): tensor for key, tensor in tensors.items()}


def read_shape(tensors: Mapping[str, Tensor], source: str, kind: HeadKind | None = None) -> HeadShape:
    """Kind and sizes of a head from its tensors (plain keys).

    `kind` settles what tensors cannot tell: Last-MLP (taken when None) from Mean-MLP. `source` is for errors.
    Raises CheckpointError when the tensors are no head's, or another kind's than `kind`.
    """
    classifier, norm = tensors.get("mlp_layer.1.weight"), tensors.get("mlp_layer.0.weight")
    if classifier is None or classifier.ndim != 2 or norm is None:
        raise CheckpointError(f"{source} is not a Whisper-AT head: it has no matrix `mlp_layer.1.weight`")
    found = _kind_of(tensors, kind)
    if kind is not None and kind is not found:
        raise CheckpointError(f"{source}: its description says kind `{kind}`, its tensors are those of `{found}`")
    classes, inner = classifier.shape
    down = tensors.get("down_layer.1.weight")
    if down is not None and down.ndim != 2:
        raise CheckpointError(f"{source}: `down_layer.1.weight` has shape {list(down.shape)}; a matrix is needed")
    weights = tensors.get("layer_weight")
    return HeadShape(
        kind=found,
        width=inner if down is None else down.shape[1],
        layers=None if weights is None else weights.numel(),
        low_width=None if down is None else down.shape[0],
        classes=classes,
    )


def _kind_of(tensors: Mapping[str, Tensor], kind: HeadKind | None) -> HeadKind:
    parts = {key.split(".")[0] for key in tensors}
    if "layer_tr" in parts:
        return HeadKind.TL_TR
    if "time_tr" in parts:
        return HeadKind.WA_TR
    if "layer_weight" in parts:
        return HeadKind.WA_MLP
    return HeadKind.MEAN_MLP if kind is HeadKind.MEAN_MLP else HeadKind.LAST_MLP


def build_head(tensors: Mapping[str, Tensor], shape: HeadShape, source: str) -> HeadModule:
    """The head with these weights (plain keys), float32. Raises CheckpointError where they are not its own."""
    widest = shape.low_width or shape.width
    if shape.kind is HeadKind.TL_TR and widest % shape.layer_heads:
        raise CheckpointError(
            f"{source}: width {widest} does not divide into {shape.layer_heads} layer attention heads"
        )
    module = HeadModule(shape)
    expected = module.state_dict()
    check_tensors(tensors, expected, source)
    module.load_state_dict({key: tensor.float() for key, tensor in tensors.items()})
    return module.eval()


def check_fits(shape: HeadShape, layers: int, width: int, source: str, model: str) -> None:
    """Raise CheckpointError, saying which shapes disagree, unless the head fits a backbone's taps."""
    if shape.width != width:
        said = f"it reads taps of width {shape.width}, {model} gives {width}"
    elif shape.layers not in (None, layers):
        said = f"its `layer_weight` weighs {shape.layers} layers, {model} has {layers}"
    elif shape.classes != CLASSES:
        said = f"it judges {shape.classes} classes; AudioSet has {CLASSES}"
    else:
        return
    raise CheckpointError(f"head {source} does not fit the model: {said}")


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
    trained_classes: tuple[int, ...] | None = None
    shape: tuple[int, int] | None = None
    encoder_sha256: str | None = None
    rules: dict[str, dict[str, Any]] = Field(default_factory=dict)


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


def bundled_head(encoder: AudioEncoder) -> TaggingHead | None:
    """The head that comes with Streamer for these weights (`data/heads`, made by `streamer train head`), or None.

    It says by a hash for which encoder it was taught, whatever format the weights came in.
    """
    folder = files("streamer") / "data" / "heads"
    shape = (len(encoder.blocks), encoder.ln_post.weight.shape[0])
    for item in folder.iterdir() if folder.is_dir() else ():
        if not item.name.endswith(".pth"):
            continue
        with as_file(item) as path, as_file(folder / f"{item.name.removesuffix('.pth')}.json"):
            described = read_description(path.with_suffix(".json"), HeadDescription)
            if described.shape == shape and described.encoder_sha256 == encoder_sha256(encoder):
                return load_head(path)
    return None
