"""Writes a Whisper in the formats of other programs: what their converters would make of it."""

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from whisper.model import Whisper

TYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)


def ctranslate2_variables(module: Whisper, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """All variables of a WhisperSpec; of the biases, those of the keys are zero. `torch.int8` quantises the weights."""
    state = module.state_dict()
    found: dict[str, Tensor] = {}

    def put(name: str, tensor: Tensor, quantised: bool = False) -> None:
        if dtype is not torch.int8:
            found[name] = tensor.to(dtype)
        elif quantised:
            scale = 127 / tensor.flatten(1).abs().amax(1)
            found[name] = (tensor * scale.reshape(-1, *[1] * (tensor.ndim - 1))).round().to(torch.int8)
            found[f"{name}_scale"] = scale
        else:
            found[name] = tensor.float()

    def norm(name: str, ours: str) -> None:
        put(f"{name}/gamma", state[f"{ours}.weight"])
        put(f"{name}/beta", state[f"{ours}.bias"])

    def linear(name: str, *ours: str) -> None:
        put(f"{name}/weight", torch.cat([state[f"{part}.weight"] for part in ours]), quantised=True)
        biases = [state.get(f"{part}.bias", torch.zeros(len(state[f"{part}.weight"]))) for part in ours]
        put(f"{name}/bias", torch.cat(biases))

    for part, layers in (("encoder", module.dims.n_audio_layer), ("decoder", module.dims.n_text_layer)):
        for layer in range(layers):
            name, ours = f"{part}/layer_{layer}", f"{part}.blocks.{layer}"
            norm(f"{name}/self_attention/layer_norm", f"{ours}.attn_ln")
            linear(f"{name}/self_attention/linear_0", *(f"{ours}.attn.{each}" for each in ("query", "key", "value")))
            linear(f"{name}/self_attention/linear_1", f"{ours}.attn.out")
            if part == "decoder":
                norm(f"{name}/attention/layer_norm", f"{ours}.cross_attn_ln")
                linear(f"{name}/attention/linear_0", f"{ours}.cross_attn.query")
                linear(f"{name}/attention/linear_1", f"{ours}.cross_attn.key", f"{ours}.cross_attn.value")
                linear(f"{name}/attention/linear_2", f"{ours}.cross_attn.out")
            norm(f"{name}/ffn/layer_norm", f"{ours}.mlp_ln")
            linear(f"{name}/ffn/linear_0", f"{ours}.mlp.0")
            linear(f"{name}/ffn/linear_1", f"{ours}.mlp.2")
        put(f"{part}/position_encodings/encodings", state[f"{part}.positional_embedding"])
    for each in ("conv1", "conv2"):
        linear(f"encoder/{each}", f"encoder.{each}")
    norm("encoder/layer_norm", "encoder.ln_post")
    norm("decoder/layer_norm", "decoder.ln")
    put("decoder/embeddings/weight", state["decoder.token_embedding.weight"], quantised=True)
    found["encoder/num_heads"] = torch.tensor(module.dims.n_audio_head, dtype=torch.int16)
    found["decoder/num_heads"] = torch.tensor(module.dims.n_text_head, dtype=torch.int16)
    found["decoder/activation"] = torch.tensor(3, dtype=torch.int8)
    return found


def model_bin(
    variables: dict[str, Tensor],
    aliases: dict[str, str] | None = None,
    *,
    version: int = 6,
    kind: str = "WhisperSpec",
    claimed: dict[str, Sequence[int]] | None = None,
) -> bytes:
    """The bytes of a `model.bin`. `claimed`: sizes that are written instead of a variable's own."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    def parts() -> Iterator[bytes]:
        yield struct.pack("<I", version) + text(kind) + struct.pack("<II", 3, len(variables))
        for name, tensor in variables.items():
            sizes = (claimed or {}).get(name, tuple(tensor.shape))
            yield text(name) + struct.pack(f"<B{len(sizes)}I", len(sizes), *sizes)
            content = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            yield struct.pack("<BI", TYPES.index(tensor.dtype), len(content)) + content
        named = {"decoder/projection/weight": "decoder/embeddings/weight"} if aliases is None else aliases
        yield struct.pack("<I", len(named))
        for alias, name in named.items():
            yield text(alias) + text(name)

    return b"".join(parts())


def write_ctranslate2(
    folder: Path, module: Whisper, dtype: torch.dtype = torch.float16, config: dict[str, Any] | None = None
) -> Path:
    """A CTranslate2 folder; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").write_bytes(model_bin(ctranslate2_variables(module, dtype)))
    (folder / "config.json").write_text(json.dumps({"lang_ids": [50259], "suppress_ids": []} | (config or {})))
    return folder


_BLOCK = {
    "attn_ln": "self_attn_layer_norm",
    "attn.query": "self_attn.q_proj",
    "attn.key": "self_attn.k_proj",
    "attn.value": "self_attn.v_proj",
    "attn.out": "self_attn.out_proj",
    "cross_attn_ln": "encoder_attn_layer_norm",
    "cross_attn.query": "encoder_attn.q_proj",
    "cross_attn.key": "encoder_attn.k_proj",
    "cross_attn.value": "encoder_attn.v_proj",
    "cross_attn.out": "encoder_attn.out_proj",
    "mlp_ln": "final_layer_norm",
    "mlp.0": "fc1",
    "mlp.2": "fc2",
}
_AROUND = {
    "encoder.positional_embedding": "encoder.embed_positions.weight",
    "decoder.positional_embedding": "decoder.embed_positions.weight",
    "decoder.token_embedding.weight": "decoder.embed_tokens.weight",
    "encoder.ln_post": "encoder.layer_norm",
    "decoder.ln": "decoder.layer_norm",
}


def transformers_tensors(module: Whisper, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """All tensors of a WhisperForConditionalGeneration but the tied `proj_out`."""
    found: dict[str, Tensor] = {}
    for name, tensor in module.state_dict().items():
        if ".blocks." in name:
            part, _, layer, rest = name.split(".", 3)
            inner, _, leaf = rest.rpartition(".")
            theirs = f"{part}.layers.{layer}.{_BLOCK[inner]}.{leaf}"
        else:
            theirs = name
            for ours, other in _AROUND.items():
                if name == ours or name.startswith(f"{ours}."):
                    theirs = name.replace(ours, other)
        found[f"model.{theirs}"] = tensor.to(dtype).contiguous()
    return found


def transformers_config(module: Whisper) -> dict[str, Any]:
    """What `config.json` says of a module."""
    dims = module.dims
    return {
        "model_type": "whisper",
        "activation_function": "gelu",
        "scale_embedding": False,
        "d_model": dims.n_audio_state,
        "encoder_attention_heads": dims.n_audio_head,
        "decoder_attention_heads": dims.n_text_head,
        "encoder_layers": dims.n_audio_layer,
        "decoder_layers": dims.n_text_layer,
        "encoder_ffn_dim": 4 * dims.n_audio_state,
        "decoder_ffn_dim": 4 * dims.n_text_state,
        "num_mel_bins": dims.n_mels,
        "vocab_size": dims.n_vocab,
        "max_source_positions": dims.n_audio_ctx,
        "max_target_positions": dims.n_text_ctx,
    }


def write_transformers(
    folder: Path,
    module: Whisper,
    dtype: torch.dtype = torch.float16,
    *,
    shards: int = 1,
    generation: dict[str, Any] | None = None,
) -> Path:
    """A transformers folder, whole or in shards; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = transformers_tensors(module, dtype)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        names = list(tensors)
        where = {name: f"model-{1 + i % shards:05}-of-{shards:05}.safetensors" for i, name in enumerate(names)}
        for shard in set(where.values()):
            save_file({name: tensors[name] for name in names if where[name] == shard}, folder / shard)
        index = {"metadata": {"total_size": 0}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(transformers_config(module)))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder
