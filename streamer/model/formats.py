"""Checkpoints on disk, in three formats, each read into openai-whisper's own module on the CPU.

- openai-whisper: `X.pt`, with its dimensions in it.
- Hugging Face transformers (modeling_whisper.py): a folder with `model.safetensors`, whole or in shards, `config.json`,
  and `generation_config.json`, which names the alignment heads. Distilled decoders have fewer layers than encoders.
- CTranslate2: a folder with `model.bin` (`streamer.model.ctranslate2`) and `config.json`, as faster-whisper has it.

Nothing in any of them is executed, and nothing is built to a size that only a damaged number gives.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.overrides import TorchFunctionMode
from whisper.model import ModelDimensions, Whisper

from streamer.errors import CheckpointError
from streamer.model.ctranslate2 import read_variables
from streamer.model.tensor_files import check_tensors, checked_tensors, load_safely, read_description

INDEX = "model.safetensors.index.json"
IN_FOLDERS = ("model.safetensors", INDEX, "model.bin")  # the first that is there is read
VOCABULARIES = (51864, 51865, 51866)  # English, multilingual, multilingual with Cantonese
DIMENSIONS = tuple(field.name for field in fields(ModelDimensions))
HEAD_WIDTH = 64  # of every attention head that OpenAI trained

AlignmentHeads = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a file held: the module, weights in the file's types, and the (decoder layer, head) that follow words.

    `alignment_heads` None: the file does not say; the module has openai-whisper's default, the last half of the layers.
    """

    module: Whisper
    alignment_heads: AlignmentHeads | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A checkpoint on disk. `weights`: the file that is read first; the others need not be there."""

    name: str
    weights: Path
    description: Path
    head: Path


def place_of(path: Path) -> Place:
    """The checkpoint that a path means: a file, or a folder that holds one. Raises CheckpointError for other folders.

    Whether a file is what its name says is found out by `read_checkpoint`.
    """
    weights = _weights_in(path) if path.is_dir() else path
    if weights.name.endswith((".safetensors", INDEX, ".bin")):
        folder = weights.parent
        return Place(folder.resolve().name, weights, folder / "streamer.json", folder / "at.pth")
    return Place(path.stem, path, path.with_suffix(".json"), path.with_name(f"{path.stem}_at.pth"))


def _weights_in(folder: Path) -> Path:
    for name in IN_FOLDERS:
        if (folder / name).is_file():
            return folder / name
    said = f"folder {folder} holds no model: {', '.join(IN_FOLDERS[:2])} (transformers) or model.bin (CTranslate2)"
    if (folder / "pytorch_model.bin").is_file():
        raise CheckpointError(f"{said} is needed; save its pytorch_model.bin again with safe_serialization=True")
    single = sorted(folder.glob("*.pt"))
    raise CheckpointError(f"{said} is needed" + (f"; or give {single[0]} itself" if single else ""))


def read_checkpoint(weights: Path) -> Checkpoint:
    """The checkpoint in a file that `place_of` names, with what the JSON files beside it say.

    Position tables become float32, integer weights too; others keep their type. Raises CheckpointError with one line
    when something is missing, damaged, odd, or another kind of model.
    """
    source = f"checkpoint {weights}"
    if weights.name.endswith((".safetensors", INDEX)):
        return _transformers(weights, source)
    if weights.suffix == ".bin":
        return _ctranslate2(weights, source)
    content = load_safely(weights, "checkpoint")
    if not isinstance(content, Mapping) or not {"dims", "model_state_dict"} <= content.keys():
        raise CheckpointError(f"{source} is not in openai-whisper's format: it lacks `dims` or `model_state_dict`")
    return Checkpoint(_assembled(content["model_state_dict"], source, dims=content["dims"]))


# openai-whisper's names for what the others call differently. Matrices that belong together lie one under the other in
# one of CTranslate2's variables.
@dataclass(frozen=True, slots=True)
class _Names:
    separator: str
    layer: str  # an expression for what lies in a layer: encoder or decoder, number, name
    in_layer: Mapping[str, tuple[str, ...]]
    around: Mapping[str, str]
    positions: Mapping[str, str]
    projection: str  # Whisper's output weights are its embeddings


_LEAVES = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
_TRANSFORMERS = _Names(
    ".",
    r"(encoder|decoder)\.layers\.(\d+)\.(.+)",
    {
        "self_attn_layer_norm": ("attn_ln",),
        "self_attn.q_proj": ("attn.query",),
        "self_attn.k_proj": ("attn.key",),
        "self_attn.v_proj": ("attn.value",),
        "self_attn.out_proj": ("attn.out",),
        "encoder_attn_layer_norm": ("cross_attn_ln",),
        "encoder_attn.q_proj": ("cross_attn.query",),
        "encoder_attn.k_proj": ("cross_attn.key",),
        "encoder_attn.v_proj": ("cross_attn.value",),
        "encoder_attn.out_proj": ("cross_attn.out",),
        "final_layer_norm": ("mlp_ln",),
        "fc1": ("mlp.0",),
        "fc2": ("mlp.2",),
    },
    {
        "encoder.conv1": "encoder.conv1",
        "encoder.conv2": "encoder.conv2",
        "encoder.layer_norm": "encoder.ln_post",
        "decoder.embed_tokens": "decoder.token_embedding",
        "decoder.layer_norm": "decoder.ln",
    },
    {
        "encoder.embed_positions.weight": "encoder.positional_embedding",
        "decoder.embed_positions.weight": "decoder.positional_embedding",
    },
    "proj_out.weight",
)
_CTRANSLATE2 = _Names(
    "/",
    r"(encoder|decoder)/layer_(\d+)/(.+)",
    {
        "self_attention/layer_norm": ("attn_ln",),
        "self_attention/linear_0": ("attn.query", "attn.key", "attn.value"),
        "self_attention/linear_1": ("attn.out",),
        "attention/layer_norm": ("cross_attn_ln",),
        "attention/linear_0": ("cross_attn.query",),
        "attention/linear_1": ("cross_attn.key", "cross_attn.value"),
        "attention/linear_2": ("cross_attn.out",),
        "ffn/layer_norm": ("mlp_ln",),
        "ffn/linear_0": ("mlp.0",),
        "ffn/linear_1": ("mlp.2",),
    },
    {
        "encoder/conv1": "encoder.conv1",
        "encoder/conv2": "encoder.conv2",
        "encoder/layer_norm": "encoder.ln_post",
        "decoder/embeddings": "decoder.token_embedding",
        "decoder/layer_norm": "decoder.ln",
    },
    {
        "encoder/position_encodings/encodings": "encoder.positional_embedding",
        "decoder/position_encodings/encodings": "decoder.positional_embedding",
    },
    "decoder/projection/weight",
)


def _renamed(tensors: Mapping[str, Tensor], names: _Names, source: str) -> dict[str, Tensor]:
    """Tensors by openai-whisper's names; integers that are no weights are left out."""
    found: dict[str, Tensor] = {}
    for given, tensor in tensors.items():
        name = given.removeprefix("model.")
        owner, _, end = name.rpartition(names.separator)
        leaf = _LEAVES.get(end)
        layer = re.fullmatch(names.layer, owner)
        if layer is not None and leaf and layer[3] in names.in_layer:
            parts = names.in_layer[layer[3]]
            if tensor.ndim < 1 or len(tensor) % len(parts):
                shape = list(tensor.shape)
                raise CheckpointError(f"{source}: `{given}` has shape {shape}, which has no {len(parts)} equal parts")
            for part, piece in zip(parts, tensor.chunk(len(parts)), strict=True):
                # A bias of the keys adds the same to all of a query's scores: softmax takes it away, Whisper has none.
                if not (part.endswith(".key") and leaf == "bias"):
                    found[f"{layer[1]}.blocks.{layer[2]}.{part}.{leaf}"] = piece
        elif owner in names.around and leaf:
            found[f"{names.around[owner]}.{leaf}"] = tensor
        elif name in names.positions:
            found[names.positions[name]] = tensor
        elif name != names.projection and tensor.is_floating_point():
            raise CheckpointError(f"{source} has the unknown `{given}`")
    own, embeddings = tensors.get(names.projection), found.get("decoder.token_embedding.weight")
    if own is not None and embeddings is not None and own is not embeddings and not torch.equal(own, embeddings):
        said = f"`{names.projection}` differs from the embeddings; in a Whisper they are the same"
        raise CheckpointError(f"{source}: {said}")
    return found


class _TransformersConfig(BaseModel):
    """What is read of `config.json`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    model_type: str = "whisper"
    encoder_attention_heads: int | None = Field(None, ge=1)
    decoder_attention_heads: int | None = Field(None, ge=1)
    activation_function: str = "gelu"
    scale_embedding: bool = False


class _Aligned(BaseModel):
    """What is read of transformers' `generation_config.json` and CTranslate2's `config.json`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    alignment_heads: AlignmentHeads | None = None


class _Index(BaseModel):
    """What is read of the index of shards."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    weight_map: dict[str, str] = Field(default_factory=dict)


def _transformers(weights: Path, source: str) -> Checkpoint:
    path = weights.with_name("config.json")
    config = read_description(path, _TransformersConfig)
    if config.model_type != "whisper":
        raise CheckpointError(f"{path}: model_type is {config.model_type!r}; a whisper model is needed")
    if config.activation_function != "gelu" or config.scale_embedding:
        raise CheckpointError(f"{path}: activation_function gelu without scale_embedding is needed, as OpenAI's have")
    generation = read_description(weights.with_name("generation_config.json"), _Aligned)
    shards = [weights.name]
    if weights.name == INDEX:
        shards = sorted(set(read_description(weights, _Index).weight_map.values()))
        if not shards:
            raise CheckpointError(f"{source} has no weight_map")
    stored: dict[str, Tensor] = {}
    for shard in shards:
        if Path(shard).name != shard:
            raise CheckpointError(f"{source}: {shard!r} is no name of a file beside it")
        path = weights.with_name(shard)
        try:
            with safe_open(path, framework="pt") as file:
                stored |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError as error:
            raise CheckpointError(f"checkpoint {path} does not exist") from error
        except OSError as error:
            raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror or error}") from error
        except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
            raise CheckpointError(f"checkpoint {path} is damaged or no safetensors file") from error
    heads = config.encoder_attention_heads, config.decoder_attention_heads
    module = _assembled(_renamed(stored, _TRANSFORMERS, source), source, heads=heads)
    return Checkpoint(module, generation.alignment_heads or None)


def _ctranslate2(weights: Path, source: str) -> Checkpoint:
    config = read_description(weights.with_name("config.json"), _Aligned)
    variables = read_variables(weights)
    told = [variables.get(f"{part}/num_heads") for part in ("encoder", "decoder")]
    heads = [int(found) if found is not None and found.numel() == 1 else None for found in told]
    module = _assembled(_renamed(variables, _CTRANSLATE2, source), source, heads=heads)
    return Checkpoint(module, config.alignment_heads or None)


def _assembled(
    content: Any, source: str, *, dims: object = None, heads: Sequence[int | None] = (None, None)
) -> Whisper:
    """A module around tensors by openai-whisper's names.

    `dims`: what the file says of its dimensions, if it does; else they are read off the tensors, `heads` being those of
    encoder and decoder where the file tells (64 wide, where it does not). Raises CheckpointError unless they are a
    Whisper's and the tensors are exactly those that they ask for.
    """
    tensors = checked_tensors(content, source)
    if dims is None:
        found = _measured_dims(tensors, source, *heads)
    else:
        if not isinstance(dims, Mapping) or set(dims) != set(DIMENSIONS):
            raise CheckpointError(f"{source}: `dims` must have exactly {', '.join(DIMENSIONS)}")
        for name, said in dims.items():
            if type(said) is not int or said < 1:
                raise CheckpointError(f"{source}: dims.{name} is {said!r}; a positive whole number is needed")
        found = _measured_dims(tensors, source, dims["n_audio_head"], dims["n_text_head"])
        for name, measured in found.items():
            if dims[name] != measured:
                raise CheckpointError(f"{source}: dims.{name} is {dims[name]}, its tensors say {measured}")
    if found["n_mels"] not in (80, 128):
        raise CheckpointError(f"{source}: dims.n_mels is {found['n_mels']}; 80 or 128 is needed")
    if found["n_vocab"] not in VOCABULARIES:
        raise CheckpointError(f"{source}: dims.n_vocab is {found['n_vocab']}; one of {VOCABULARIES} is needed")
    for part in ("audio", "text"):
        width, count = found[f"n_{part}_state"], found[f"n_{part}_head"]
        if width % count:
            raise CheckpointError(f"{source}: dims.n_{part}_state {width} does not divide into {count} heads")
    if found["n_audio_state"] != found["n_text_state"]:
        widths = f"audio width {found['n_audio_state']} and text width {found['n_text_state']}"
        raise CheckpointError(f"{source}: {widths} differ")
    with _WithoutInitialisation():
        module = Whisper(ModelDimensions(**found))
    check_tensors(tensors, module.state_dict(), source)
    module.load_state_dict({key: tensor.contiguous() for key, tensor in tensors.items()}, assign=True)
    module.encoder.positional_embedding = module.encoder.positional_embedding.float()
    return module


def _measured_dims(
    tensors: Mapping[str, Tensor], source: str, audio_heads: int | None, text_heads: int | None
) -> dict[str, int]:
    """openai-whisper's dimensions, in its order, read off the shapes of tensors under its names."""
    shapes = []
    for key, rank in (
        ("encoder.conv1.weight", 3),
        ("encoder.positional_embedding", 2),
        ("decoder.token_embedding.weight", 2),
        ("decoder.positional_embedding", 2),
    ):
        if key not in tensors:
            raise CheckpointError(f"{source} lacks `{key}`")
        shapes.append(list(tensors[key].shape))
        if len(shapes[-1]) != rank:
            raise CheckpointError(f"{source}: `{key}` has shape {shapes[-1]}; {rank} dimensions are needed")
    (audio_width, mels, _), (audio_context, _), (vocabulary, text_width), (text_context, _) = shapes
    blocks = {tuple(key.split(".")[:3]) for key in tensors if ".blocks." in key}
    audio_layers, text_layers = (sum(block[0] == part for block in blocks) for part in ("encoder", "decoder"))
    values = (
        *(mels, audio_context, audio_width, audio_heads or max(1, audio_width // HEAD_WIDTH), audio_layers),
        *(vocabulary, text_context, text_width, text_heads or max(1, text_width // HEAD_WIDTH), text_layers),
    )
    return dict(zip(DIMENSIONS, values, strict=True))


class _WithoutInitialisation(TorchFunctionMode):
    """Leaves new weights as they lie in memory: all of them are about to be read from a file."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def set_alignment_heads(module: Whisper, heads: Sequence[tuple[int, int]], source: str) -> None:
    """Mark (decoder layer, head) as those that follow the words; CheckpointError, naming `source`, for one too many."""
    mask = torch.zeros(module.dims.n_text_layer, module.dims.n_text_head, dtype=torch.bool)
    for layer, head in heads:
        if not (0 <= layer < mask.shape[0] and 0 <= head < mask.shape[1]):
            raise CheckpointError(
                f"{source}: alignment_heads: [{layer}, {head}] does not exist: the decoder has "
                f"{mask.shape[0]} layers of {mask.shape[1]} heads"
            )
        mask[layer, head] = True
    module.register_buffer("alignment_heads", mask.to_sparse(), persistent=False)
