import contextlib
import json
from pathlib import Path

import pytest
import torch
from backbones import random_whisper as whisper_of_any_size
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from whisper.model import Whisper
from writers import ctranslate2_variables, model_bin, write_ctranslate2

from streamer.errors import CheckpointError
from streamer.model.ctranslate2 import read_variables
from streamer.model.formats import read_checkpoint


def random_whisper(*, width: int = 16, **sizes: int) -> Whisper:
    return whisper_of_any_size(width=width, **sizes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ctranslate2(tmp_path_factory.mktemp("ct2") / "small", random_whisper(), torch.float32)


def written(path: Path, content: bytes) -> Path:
    (path / "model.bin").write_bytes(content)
    return path / "model.bin"


def refused(weights: Path, says: str) -> None:
    with pytest.raises(CheckpointError, match=says) as caught:
        read_checkpoint(weights)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_all_weights_are_those_that_were_converted(dtype: torch.dtype, tmp_path: Path) -> None:
    module = random_whisper().to(dtype)
    write_ctranslate2(tmp_path, module, dtype)
    found = read_checkpoint(tmp_path / "model.bin").module
    assert found.dims == module.dims
    module.encoder.positional_embedding = module.encoder.positional_embedding.float()
    for name, tensor in module.state_dict().items():
        assert_close(found.state_dict()[name], tensor, rtol=0, atol=0)


def test_int8_weights_are_multiplied_back(tmp_path: Path) -> None:
    module = random_whisper()
    write_ctranslate2(tmp_path, module, torch.int8)
    found = read_checkpoint(tmp_path / "model.bin").module.state_dict()
    for name, tensor in module.state_dict().items():
        step = tensor.flatten(1).abs().amax(1) / 127 if name.endswith("weight") and tensor.ndim > 1 else None
        if step is None:
            assert_close(found[name], tensor, rtol=0, atol=0)
        else:
            wrong = (found[name] - tensor).flatten(1).abs().amax(1)
            assert bool((wrong <= 0.501 * step).all()), name
            assert bool((wrong > 0).any()), name


def test_one_scale_for_a_whole_matrix_is_understood(tmp_path: Path) -> None:
    variables = ctranslate2_variables(random_whisper(), torch.float32)
    matrix = variables["encoder/layer_0/ffn/linear_0/weight"]
    variables["encoder/layer_0/ffn/linear_0/weight"] = (matrix * 1000).round().to(torch.int16)
    variables["encoder/layer_0/ffn/linear_0/weight_scale"] = torch.tensor(1000.0)
    found = read_variables(written(tmp_path, model_bin(variables)))["encoder/layer_0/ffn/linear_0/weight"]
    assert_close(found, matrix, rtol=0, atol=0.0006)


def test_large_v3_has_more_mels_and_one_language_more(tmp_path: Path) -> None:
    write_ctranslate2(tmp_path, random_whisper(n_mels=128, n_vocab=51866))
    dims = read_checkpoint(tmp_path / "model.bin").module.dims
    assert (dims.n_mels, dims.n_vocab, dims.n_audio_layer, dims.n_text_layer) == (128, 51866, 3, 2)


def test_heads_are_64_wide_where_the_file_does_not_tell(tmp_path: Path) -> None:
    variables = ctranslate2_variables(random_whisper(width=128, heads=4))
    assert read_checkpoint(written(tmp_path, model_bin(variables))).module.dims.n_audio_head == 4
    del variables["encoder/num_heads"], variables["decoder/num_heads"]
    dims = read_checkpoint(written(tmp_path, model_bin(variables))).module.dims
    assert (dims.n_audio_head, dims.n_text_head) == (2, 2)


def test_a_bias_of_the_keys_changes_nothing(tmp_path: Path) -> None:
    module = random_whisper()
    variables = ctranslate2_variables(module, torch.float32)
    variables["decoder/layer_0/attention/linear_1/bias"][:16] = 0.7
    found = read_checkpoint(written(tmp_path, model_bin(variables))).module
    tokens, features = (
        torch.tensor([[50257, 50362]]),
        torch.randn(1, 20, 16, generator=torch.Generator().manual_seed(1)),
    )
    with torch.no_grad():
        assert_close(found.decoder(tokens, features), module.decoder(tokens, features))


def test_equal_tensors_may_be_stored_once(tmp_path: Path, folder: Path) -> None:
    module = random_whisper()
    module.decoder.blocks[1].mlp_ln.bias.data = module.decoder.ln.bias.data
    variables = ctranslate2_variables(module, torch.float32)
    del variables["decoder/layer_1/ffn/layer_norm/beta"]
    aliases = {"decoder/layer_1/ffn/layer_norm/beta": "decoder/layer_norm/beta"}
    found = read_checkpoint(written(tmp_path, model_bin(variables, aliases))).module
    assert_close(found.decoder.blocks[1].mlp_ln.bias, module.decoder.ln.bias, rtol=0, atol=0)
    refused(written(tmp_path, model_bin(variables, {"a": "b"})), "`a` stands for `b`, which is not there")


def test_output_weights_of_their_own_have_to_be_the_embeddings(tmp_path: Path) -> None:
    variables = ctranslate2_variables(random_whisper())
    variables["decoder/projection/weight"] = variables["decoder/embeddings/weight"].clone()
    read_checkpoint(written(tmp_path, model_bin(variables, {})))
    variables["decoder/projection/weight"][0] += 1
    refused(written(tmp_path, model_bin(variables, {})), "`decoder/projection/weight` differs from the embeddings")


def test_alignment_heads_are_those_of_the_configuration(tmp_path: Path) -> None:
    write_ctranslate2(tmp_path, random_whisper(), config={"alignment_heads": [[0, 1], [1, 0]]})
    assert read_checkpoint(tmp_path / "model.bin").alignment_heads == ((0, 1), (1, 0))
    for told in ({"alignment_heads": None}, {"alignment_heads": []}, {}):
        (tmp_path / "config.json").write_text(json.dumps(told))
        assert read_checkpoint(tmp_path / "model.bin").alignment_heads is None
    (tmp_path / "config.json").unlink()
    assert read_checkpoint(tmp_path / "model.bin").alignment_heads is None
    (tmp_path / "config.json").write_text('{"alignment_heads": "all"}')
    refused(tmp_path / "model.bin", r"config\.json: alignment_heads")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"version": 5}, "its version is 5; 6 is needed"),
        ({"kind": "Wav2Vec2Spec"}, "it is a Wav2Vec2Spec; a WhisperSpec is needed"),
        ({"claimed": {"encoder/conv1/weight": (2**31, 2**31)}}, r"`encoder/conv1/weight` has .* bytes, which"),
        ({"claimed": {"encoder/conv1/weight": (0, 2**32 - 1)}}, "has the sizes"),
        ({"claimed": {"encoder/conv1/weight": (1,) * 200}}, "has the sizes"),
    ],
)
def test_other_models_and_impossible_sizes_are_refused(changed: dict, says: str, tmp_path: Path) -> None:
    variables = ctranslate2_variables(random_whisper())
    refused(written(tmp_path, model_bin(variables, **changed)), says)


def test_gigabytes_that_are_not_there_are_refused_before_room_is_made(tmp_path: Path) -> None:
    variables = {"encoder/conv1/weight": torch.zeros(4, dtype=torch.float32)}
    content = bytearray(model_bin(variables, claimed={"encoder/conv1/weight": (2**29, 1)}))
    at = content.index(b"\x00\x10\x00\x00\x00", content.index(b"weight\0"))  # type 0, 16 bytes
    content[at + 1 : at + 5] = (2**31).to_bytes(4, "little")
    refused(written(tmp_path, bytes(content)), r"it ends 214748\d+ bytes early")


def test_missing_unknown_and_misshapen_variables_are_named(tmp_path: Path) -> None:
    variables = ctranslate2_variables(random_whisper())
    kept = variables.pop("encoder/layer_norm/gamma")
    refused(written(tmp_path, model_bin(variables)), r"lacks `encoder\.ln_post\.weight`")
    refused(written(tmp_path, model_bin(variables | {"encoder/rotary": kept})), "has the unknown `encoder/rotary`")
    refused(
        written(tmp_path, model_bin(variables | {"encoder/layer_norm/gamma": kept[:-1]})), r"has shape \[15\] where"
    )
    odd = {"encoder/layer_norm/gamma": kept, "encoder/layer_0/self_attention/linear_0/bias": torch.zeros(16)}
    refused(
        written(tmp_path, model_bin(variables | odd)), r"linear_0/bias` has shape \[16\], which has no 3 equal parts"
    )
    unscaled = {"encoder/layer_norm/gamma": kept, "encoder/layer_0/ffn/linear_0/weight": torch.ones(64, 16).char()}
    refused(written(tmp_path, model_bin(variables | unscaled)), r"is torch\.int8; dense floating-point")
    scale = {"encoder/layer_0/ffn/linear_0/weight_scale": torch.ones(3)}
    refused(written(tmp_path, model_bin(variables | unscaled | scale)), r"weight_scale` has 3 numbers")
    refused(written(tmp_path, model_bin({}, {})), "holds no tensors by name")
    refused(tmp_path / "absent.bin", "absent.bin does not exist")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 0.9999), flip=st.booleans(), early=st.booleans())
def test_cut_and_altered_files_never_raise_anything_else(
    where: float, flip: bool, early: bool, folder: Path, tmp_path: Path
) -> None:
    content = bytearray((folder / "model.bin").read_bytes())
    at = int(where * (2000 if early else len(content)))
    if flip:
        content[at] ^= 0xFF
    else:
        del content[at:]
    weights = written(tmp_path, bytes(content))
    if flip:  # one of a weight may go unnoticed
        with contextlib.suppress(CheckpointError):
            read_checkpoint(weights)
    else:
        refused(weights, "is damaged or no CTranslate2 model")


def test_text_and_archives_are_refused(tmp_path: Path) -> None:
    for content in (b"", b"hello, I am a text\n" * 100, b"PK\x03\x04" + bytes(200)):
        refused(written(tmp_path, content), "is damaged or no CTranslate2 model")
