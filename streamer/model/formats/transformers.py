"""Hugging Face transformers' format: a folder with `model.safetensors`, whole or in shards, and `config.json`.

`generation_config.json` names the alignment heads. Names as in transformers' modeling_whisper.py; distilled decoders
have fewer layers than their encoders. Nothing in a safetensors file can be executed.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from torch import Tensor

from streamer.errors import CheckpointError
from streamer.model.formats.assembly import AlignmentHeads, Checkpoint, assemble, measured_dims
from streamer.model.tensor_files import read_description

INDEX = "model.safetensors.index.json"

_BLOCK = {
    "self_attn_layer_norm": "attn_ln",
    "self_attn.q_proj": "attn.query",
    "self_attn.k_proj": "attn.key",
    "self_attn.v_proj": "attn.value",
    "self_attn.out_proj": "attn.out",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "encoder_attn.q_proj": "cross_attn.query",
    "encoder_attn.k_proj": "cross_attn.key",
    "encoder_attn.v_proj": "cross_attn.value",
    "encoder_attn.out_proj": "cross_attn.out",
    "final_layer_norm": "mlp_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
}
_AROUND = {
    "encoder.conv1.weight": "encoder.conv1.weight",
    "encoder.conv1.bias": "encoder.conv1.bias",
    "encoder.conv2.weight": "encoder.conv2.weight",
    "encoder.conv2.bias": "encoder.conv2.bias",
    "encoder.embed_positions.weight": "encoder.positional_embedding",
    "encoder.layer_norm.weight": "encoder.ln_post.weight",
    "encoder.layer_norm.bias": "encoder.ln_post.bias",
    "decoder.embed_tokens.weight": "decoder.token_embedding.weight",
    "decoder.embed_positions.weight": "decoder.positional_embedding",
    "decoder.layer_norm.weight": "decoder.ln.weight",
    "decoder.layer_norm.bias": "decoder.ln.bias",
}
_PROJECTION = "proj_out.weight"  # Whisper's output weights are its embeddings


class _Config(BaseModel):
    """What is read of `config.json`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    model_type: str = "whisper"
    encoder_attention_heads: int | None = Field(None, ge=1)
    decoder_attention_heads: int | None = Field(None, ge=1)
    activation_function: str = "gelu"
    scale_embedding: bool = False


class _Generation(BaseModel):
    """What is read of `generation_config.json`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    alignment_heads: AlignmentHeads | None = None


class _Index(BaseModel):
    """What is read of `model.safetensors.index.json`: the file of each tensor."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    weight_map: dict[str, str] = Field(default_factory=dict)


def read_transformers(weights: Path) -> Checkpoint:
    """The Whisper in a `.safetensors` file or in the shards of an index, with what the JSON files beside it say.

    Raises CheckpointError with one line when something is missing, damaged, or another kind of model.
    """
    source = f"checkpoint {weights}"
    path = weights.with_name("config.json")
    config = read_description(path, _Config)
    if config.model_type != "whisper":
        raise CheckpointError(f"{path}: model_type is {config.model_type!r}; a whisper model is needed")
    if config.activation_function != "gelu" or config.scale_embedding:
        raise CheckpointError(f"{path}: activation_function gelu without scale_embedding is needed, as OpenAI's have")
    generation = read_description(weights.with_name("generation_config.json"), _Generation)
    tensors = _renamed(_all_tensors(weights), source)
    dims = measured_dims(tensors, source, config.encoder_attention_heads, config.decoder_attention_heads)
    return Checkpoint(assemble(tensors, dims, source), generation.alignment_heads or None)


def _all_tensors(weights: Path) -> dict[str, Tensor]:
    if weights.name != INDEX:
        return _tensors(weights)
    shards = sorted(set(read_description(weights, _Index).weight_map.values()))
    if not shards:
        raise CheckpointError(f"checkpoint {weights} has no weight_map")
    found: dict[str, Tensor] = {}
    for shard in shards:
        if Path(shard).name != shard:
            raise CheckpointError(f"checkpoint {weights}: {shard!r} is no name of a file beside it")
        found |= _tensors(weights.with_name(shard))
    return found


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 it is no mapping
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {path} does not exist") from error
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged or no safetensors file") from error


def _renamed(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Tensors by openai-whisper's names."""
    found: dict[str, Tensor] = {}
    for given, tensor in tensors.items():
        name = given.removeprefix("model.")
        layer = re.fullmatch(r"(encoder|decoder)\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if layer is not None and layer[3] in _BLOCK:
            found[f"{layer[1]}.blocks.{layer[2]}.{_BLOCK[layer[3]]}.{layer[4]}"] = tensor
        elif name in _AROUND:
            found[_AROUND[name]] = tensor
        elif name != _PROJECTION:
            raise CheckpointError(f"{source} has the unknown `{given}`")
    projection, embeddings = tensors.get(_PROJECTION), found.get("decoder.token_embedding.weight")
    if projection is not None and embeddings is not None and not torch.equal(projection, embeddings):
        raise CheckpointError(f"{source}: `{_PROJECTION}` differs from the embeddings; in a Whisper they are the same")
    return found
