import contextlib
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import whisper
from backbones import random_whisper, save_whisper
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import streamer
from streamer.errors import CheckpointError, StreamerError, UsageError
from streamer.model import catalog, checkpoint
from streamer.model.checkpoint import load_model
from streamer.model.head import HeadKind, HeadModule, HeadShape, load_head


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_whisper(tmp_path_factory.mktemp("whole") / "small.pt", random_whisper())


def save_head(path: Path, shape: HeadShape, prefix: str = "at_model.") -> Path:
    torch.save({prefix + key: tensor for key, tensor in HeadModule(shape).state_dict().items()}, path)
    return path


def refused(path: Path | str, says: str, **options: Any) -> None:
    with pytest.raises(CheckpointError, match=says) as caught:
        load_model(path, **{"device": "cpu", "dtype": "float32", "head": None} | options)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_computes_what_openai_whisper_computes_with_it(path: Path) -> None:
    model = load_model(path, device="cpu", dtype="float32")
    mel = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        reference = whisper.load_model(str(path), device="cpu")
        assert_close(model.encode(mel)[0], reference.encoder(mel), atol=1e-4, rtol=0)
        tokens = torch.tensor([[50257, 50362, 530]])
        features = model.encode(mel)[0]
        assert_close(model.decoder(tokens, features), reference.decoder(tokens, features), atol=1e-4, rtol=0)
    assert model.alignment_heads == tuple(map(tuple, reference.alignment_heads.indices().T.tolist()))
    assert model.name == "small"
    assert model.head is None
    assert not model.variable_context
    assert model.min_context_s == 30


def test_float16_checkpoints_load_in_every_type(path: Path, tmp_path: Path) -> None:
    half = save_whisper(tmp_path / "half.pt", random_whisper().half())
    mel = torch.randn(1, 80, 200, generator=torch.Generator().manual_seed(5))
    expected = load_model(path, device="cpu", dtype="float32").encode(mel)[0]
    for dtype in ("float32", "bfloat16", "float16", torch.float32):
        model = load_model(half, device="cpu", dtype=dtype)
        assert model.module.encoder.positional_embedding.dtype == torch.float32
        assert_close(model.encode(mel)[0].float(), expected, atol=0.1, rtol=0.1)


def test_the_public_name_and_the_automatic_choices(path: Path) -> None:
    model = streamer.load_model(path)
    if torch.cuda.is_available():
        assert (model.device.type, model.dtype) == ("cuda", torch.float16)
    else:
        wanted = torch.bfloat16 if checkpoint.has_native_bfloat16() else torch.float32
        assert (model.device.type, model.dtype) == ("cpu", wanted)


def test_the_head_beside_the_checkpoint_is_taken(tmp_path: Path) -> None:
    path = save_whisper(tmp_path / "m.pt", random_whisper())
    assert load_model(path, device="cpu").head is None
    save_head(tmp_path / "m_at.pth", HeadShape(HeadKind.TL_TR, 64))
    model = load_model(path, device="cpu")
    assert model.head is not None
    assert model.head.name == "m_at"
    assert load_model(path, head="none", device="cpu").head is None
    assert load_model(path, head=None, device="cpu").head is None
    other = save_head(tmp_path / "other.pth", HeadShape(HeadKind.WA_MLP, 64, layers=3), "module.")
    loaded = load_model(path, head=other, device="cpu")
    assert loaded.head is not None
    assert loaded.head.module.shape.kind is HeadKind.WA_MLP


def test_a_head_that_does_not_fit_is_refused(path: Path, tmp_path: Path) -> None:
    wide = save_head(tmp_path / "wide.pth", HeadShape(HeadKind.TL_TR, 128))
    refused(path, "wide does not fit .* width 128, small gives 64", head=wide)
    refused(path, "missing.pth does not exist", head=tmp_path / "missing.pth")


def test_the_description_beside_the_checkpoint_is_obeyed(tmp_path: Path) -> None:
    path = save_whisper(tmp_path / "m.pt", random_whisper())
    told = {"variable_context": True, "min_context_s": 3, "alignment_heads": [[0, 1], [1, 0]], "made": "by hand"}
    path.with_suffix(".json").write_text(json.dumps(told))
    model = load_model(path, device="cpu")
    assert (model.variable_context, model.min_context_s) == (True, 3)
    assert model.alignment_heads == ((0, 1), (1, 0))


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("{", "m.json is not readable JSON"),
        ("[]", "m.json: its content"),
        ('{"variable_context": "perhaps"}', "m.json: variable_context"),
        ('{"min_context_s": -1}', "m.json: min_context_s"),
        ('{"min_context_s": NaN}', "m.json: min_context_s"),
        ('{"alignment_heads": []}', "m.json: alignment_heads"),
        ('{"alignment_heads": [[1]]}', "m.json: alignment_heads"),
        ('{"alignment_heads": [[2, 0]]}', r"\[2, 0\] does not exist: the decoder has 2 layers of 2 heads"),
        ('{"alignment_heads": [[-1, 0]]}', r"\[-1, 0\] does not exist"),
    ],
)
def test_odd_descriptions_are_refused(told: str, says: str, tmp_path: Path, path: Path) -> None:
    copied = tmp_path / "m.pt"
    copied.symlink_to(path)
    (tmp_path / "m.json").write_text(told)
    refused(copied, says)


def test_missing_and_unknown_models_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path / "no.pt", "no.pt does not exist")
    refused(tmp_path / "folder", "neither a known name .nano, tiny.en")
    refused("bse", "bse is neither a known name.*; did you mean base")
    (tmp_path / "dir.pt").mkdir()
    refused(tmp_path / "dir.pt", r"folder .*dir.pt holds no model: model.safetensors, .* or model.bin .* is needed")
    refused("a\0b.pt", "does not exist")
    monkeypatch.setattr(catalog, "BUNDLED", "absent")
    refused("absent", "no bundled checkpoint at .*absent.pt")


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"hello, I am a text\n" * 100, b"PK\x03\x04" + b"\0" * 100, b"RIFF....WAVEfmt " + b"\0" * 999],
)
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    refused(path, "other.pt is damaged or not a PyTorch file")
    with pytest.raises(CheckpointError, match=r"other\.pt is damaged"):
        load_head(path)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 0.999), flip=st.booleans())
def test_cut_and_altered_files_never_raise_anything_else(where: float, flip: bool, path: Path, tmp_path: Path) -> None:
    content = bytearray(path.read_bytes())
    at = int(where * len(content))
    if flip:
        content[at] ^= 0xFF
    else:
        del content[at:]
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(content)
    if flip:  # one of padding or of a weight may go unnoticed
        with contextlib.suppress(CheckpointError):
            load_model(damaged, device="cpu", head=None)
    else:
        refused(damaged, "damaged or not a PyTorch file")


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/tmp/streamer-bomb-went-off"),))


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    torch.save({"dims": _Bomb(), "model_state_dict": {}}, path)
    refused(path, "damaged or not a PyTorch file of plain tensors")
    path.write_bytes(pickle.dumps(_Bomb()))
    refused(path, "damaged or not a PyTorch file of plain tensors")
    assert not Path("/tmp/streamer-bomb-went-off").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([1, 2], "not in openai-whisper's format"),
        ({"model": {}}, "lacks `dims` or `model_state_dict`"),
        ({"dims": {}, "model_state_dict": {}}, "holds no tensors by name"),
        ({"dims": {}, "model_state_dict": {"a": 1}}, "`a` is a int"),
        ({"dims": {}, "model_state_dict": {"a": torch.zeros(2, dtype=torch.int64)}}, "`a` is torch.int64"),
        ({"dims": {}, "model_state_dict": {"a": torch.tensor([1.0, float("nan")])}}, "`a` has values that are not fin"),
        ({"dims": {}, "model_state_dict": {"a": torch.zeros(2)}}, "`dims` must have exactly n_mels"),
        ({"dims": 5, "model_state_dict": {"a": torch.zeros(2)}}, "`dims` must have exactly"),
    ],
)
def test_other_contents_are_refused(content: object, says: str, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save(content, path)
    refused(path, says)


@pytest.mark.parametrize(
    ("dims", "says"),
    [
        ({"n_mels": 64}, "n_mels is 64, its tensors say 80"),
        ({"n_mels": 128}, "n_mels is 128, its tensors say 80"),
        ({"n_vocab": 32000}, "n_vocab is 32000"),
        ({"n_vocab": 51865}, "n_vocab is 51865, its tensors say 51864"),
        ({"n_audio_state": 10**9}, "n_audio_state is 1000000000, its tensors say 64"),
        ({"n_audio_head": 7}, "64 does not divide into 7 heads"),
        ({"n_text_head": 5}, "64 does not divide into 5 heads"),
        ({"n_audio_layer": 10**9}, "n_audio_layer is 1000000000, its tensors say 3"),
        ({"n_text_layer": 1}, "n_text_layer is 1, its tensors say 2"),
        ({"n_audio_ctx": 750}, "n_audio_ctx is 750, its tensors say 1500"),
        ({"n_text_ctx": "448"}, "n_text_ctx is '448'"),
        ({"n_text_ctx": True}, "n_text_ctx is True"),
        ({"n_audio_layer": 0}, "n_audio_layer is 0"),
        ({"extra": 1}, "`dims` must have exactly"),
    ],
)
def test_dims_that_disagree_with_the_tensors_are_refused(dims: dict[str, Any], says: str, tmp_path: Path) -> None:
    refused(save_whisper(tmp_path / "m.pt", random_whisper(), **dims), says)


def test_missing_unknown_and_misshapen_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    module = random_whisper()
    content = {"dims": vars(module.dims), "model_state_dict": module.state_dict()}
    weights = content["model_state_dict"]
    kept = weights.pop("encoder.ln_post.weight")
    torch.save(content, path)
    refused(path, "lacks `encoder.ln_post.weight`")
    weights["encoder.ln_post.weight"] = kept
    weights["lora.a"] = weights["lora.b"] = weights["lora.c"] = kept
    torch.save(content, path)
    refused(path, "has the unknown `lora.a`, `lora.b` and 1 more")
    for name in "abc":
        del weights[f"lora.{name}"]
    weights["encoder.ln_post.weight"] = torch.zeros(65)
    torch.save(content, path)
    refused(path, r"`encoder.ln_post.weight` has shape \[65\] where \[64\] belongs")


def test_impossible_devices_and_types_are_refused(path: Path) -> None:
    for options, says in (
        ({"device": "abacus"}, "'abacus' is unknown: auto, cpu or cuda"),
        ({"device": "meta"}, "not supported"),
        ({"dtype": "float64"}, "'float64' is unknown: float32, bfloat16, float16, int8 or auto"),
        ({"dtype": torch.int16}, "not supported"),
    ):
        with pytest.raises(UsageError, match=says):
            load_model(path, **options)  # type: ignore[arg-type]
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no CUDA"):
            load_model(path, device="cuda")


def test_loading_disturbs_no_later_initialisation(path: Path) -> None:
    load_model(path, device="cpu")
    torch.manual_seed(0)
    assert torch.nn.Linear(4, 4).weight.abs().max() <= 0.5


def test_importing_streamer_imports_no_torch() -> None:
    code = "import sys, streamer, streamer.errors; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_errors_have_one_root() -> None:
    assert issubclass(CheckpointError, StreamerError)


@pytest.mark.shared
def test_the_reference_model_loads(shared_dir: Path) -> None:
    model = load_model(shared_dir / "models" / "nano.pt", device="cpu")
    assert model.variable_context
    assert model.min_context_s == 2
    assert model.alignment_heads == ((1, 0), (1, 1))
    assert model.head is not None
    assert model.head.module.shape.kind is HeadKind.TL_TR


def test_tensors_that_claim_more_than_they_hold_are_refused(tmp_path: Path) -> None:
    content = {"dims": vars(random_whisper().dims), "model_state_dict": {"a": torch.zeros(1).expand(10**12)}}
    torch.save(content, tmp_path / "vast.pt")
    refused(tmp_path / "vast.pt", r"`a` claims 4000000000000 bytes and holds 4$")


def test_views_of_one_another_that_would_grow_are_refused(tmp_path: Path) -> None:
    """4 MB that claim 1.9 GB: none of the tensors alone is larger than what it is a view of."""
    whole = torch.zeros(2_000_000, dtype=torch.float16)
    views = {f"k{number}": whole[number : number + 1_900_000] for number in range(500)}
    torch.save({"dims": vars(random_whisper().dims), "model_state_dict": views}, tmp_path / "vast.pt")
    refused(tmp_path / "vast.pt", r"claims 1900000000 bytes of tensors and holds 4000000$")


def test_packed_archives_are_refused_before_they_grow(tmp_path: Path) -> None:
    torch.save({"dims": {}, "model_state_dict": {"a": torch.zeros(10**6)}}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    refused(tmp_path / "bomb.pt", r"is packed: it would grow to 4\d{6} bytes")


def test_weights_of_odd_types_are_refused(tmp_path: Path) -> None:
    content = {"dims": {}, "model_state_dict": {"a": torch.zeros(2).to(torch.float8_e4m3fn)}}
    torch.save(content, tmp_path / "eight.pt")
    refused(tmp_path / "eight.pt", "`a` is torch.float8_e4m3fn; dense floating-point")
