import json
from pathlib import Path

import pytest
import torch
from backbones import random_whisper as whisper_of_any_size
from safetensors.torch import save_file
from torch.testing import assert_close
from whisper.model import Whisper
from writers import transformers_config, transformers_tensors, write_transformers

from streamer.errors import CheckpointError
from streamer.model.formats import read_checkpoint

INDEX = "model.safetensors.index.json"


def random_whisper(**sizes: int) -> Whisper:
    return whisper_of_any_size(width=16, **sizes)


def refused(weights: Path, says: str) -> None:
    with pytest.raises(CheckpointError, match=says) as caught:
        read_checkpoint(weights)
    assert "\n" not in str(caught.value)


def same(found: Whisper, module: Whisper) -> None:
    assert found.dims == module.dims
    module.encoder.positional_embedding = module.encoder.positional_embedding.float()
    for name, tensor in module.state_dict().items():
        assert_close(found.state_dict()[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_all_weights_are_those_that_were_converted(dtype: torch.dtype, tmp_path: Path) -> None:
    """Its decoder has fewer layers than its encoder, as distilled ones have."""
    module = random_whisper().to(dtype)
    write_transformers(tmp_path, module, dtype)
    same(read_checkpoint(tmp_path / "model.safetensors").module, module)


def test_shards_are_read_through_their_index(tmp_path: Path) -> None:
    module = random_whisper(n_mels=128, n_vocab=51866)
    write_transformers(tmp_path, module, torch.float32, shards=3)
    same(read_checkpoint(tmp_path / INDEX).module, module)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    refused(tmp_path / INDEX, "model-00002-of-00003.safetensors does not exist")
    index = json.loads((tmp_path / INDEX).read_text())
    index["weight_map"]["model.encoder.conv1.bias"] = "../elsewhere.safetensors"
    (tmp_path / INDEX).write_text(json.dumps(index))
    refused(tmp_path / INDEX, "'../elsewhere.safetensors' is no name of a file beside it")
    (tmp_path / INDEX).write_text("{}")
    refused(tmp_path / INDEX, "has no weight_map")


def test_alignment_heads_are_those_of_the_generation_settings(tmp_path: Path) -> None:
    write_transformers(tmp_path, random_whisper(), generation={"alignment_heads": [[0, 1], [1, 0]], "max_length": 448})
    assert read_checkpoint(tmp_path / "model.safetensors").alignment_heads == ((0, 1), (1, 0))
    (tmp_path / "generation_config.json").unlink()
    assert read_checkpoint(tmp_path / "model.safetensors").alignment_heads is None
    (tmp_path / "generation_config.json").write_text("{")
    refused(tmp_path / "model.safetensors", r"generation_config\.json is not readable JSON")


def test_heads_are_64_wide_without_a_configuration(tmp_path: Path) -> None:
    write_transformers(tmp_path, whisper_of_any_size(width=128, heads=4))
    assert read_checkpoint(tmp_path / "model.safetensors").module.dims.n_audio_head == 4
    (tmp_path / "config.json").unlink()
    assert read_checkpoint(tmp_path / "model.safetensors").module.dims.n_audio_head == 2


def test_names_without_the_prefix_and_tied_output_weights_are_known(tmp_path: Path) -> None:
    module = random_whisper()
    write_transformers(tmp_path, module)
    tensors = {name.removeprefix("model."): tensor for name, tensor in transformers_tensors(module).items()}
    tensors["proj_out.weight"] = tensors["decoder.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors")
    same(read_checkpoint(tmp_path / "model.safetensors").module, module.half())
    tensors["proj_out.weight"][0] += 1
    save_file(tensors, tmp_path / "model.safetensors")
    refused(tmp_path / "model.safetensors", "`proj_out.weight` differs from the embeddings")


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"model_type": "wav2vec2"}, "model_type is 'wav2vec2'; a whisper model is needed"),
        ({"activation_function": "relu"}, "activation_function gelu without scale_embedding is needed"),
        ({"scale_embedding": True}, "activation_function gelu without scale_embedding is needed"),
        ({"encoder_attention_heads": 0}, "encoder_attention_heads"),
        ({"decoder_attention_heads": 3}, "16 does not divide into 3 heads"),
    ],
)
def test_other_models_are_refused(told: dict, says: str, tmp_path: Path) -> None:
    module = random_whisper()
    write_transformers(tmp_path, module)
    (tmp_path / "config.json").write_text(json.dumps(transformers_config(module) | told))
    refused(tmp_path / "model.safetensors", says)


def test_damaged_and_odd_files_are_refused(tmp_path: Path) -> None:
    tensors = transformers_tensors(random_whisper())
    path = tmp_path / "model.safetensors"
    refused(path, "model.safetensors does not exist")
    save_file(tensors, path)
    content = path.read_bytes()
    for damaged in (b"", b"text" * 100, content[:1000], content[:-1], b"\xff" * 8 + content[8:]):
        path.write_bytes(damaged)
        refused(path, "is damaged or no safetensors file")
    save_file(tensors | {"model.encoder.layers.0.lora.weight": torch.zeros(3)}, path)
    refused(path, r"has the unknown `model\.encoder\.layers\.0\.lora\.weight`")
    save_file(tensors | {"model.encoder.conv1.bias": torch.zeros(16, dtype=torch.int8)}, path)
    refused(path, r"`encoder\.conv1\.bias` is torch\.int8; dense floating-point")
    del tensors["model.decoder.layers.1.fc1.weight"]
    save_file(tensors, path)
    refused(path, r"lacks `decoder\.blocks\.1\.mlp\.0\.weight`")
