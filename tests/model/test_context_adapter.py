"""Differences for short windows: what they change, and for which weights they are taken."""

import pytest
import torch
from backbones import random_whisper, save_whisper
from safetensors.torch import save_file

from streamer.model import checkpoint, context_adapter
from streamer.model.context_adapter import adapted_matrices, bundled_adapter
from streamer.model.encoder import encoder_sha256


def write_adapter(path, module, margin_frames=128, rank=2, languages="en"):
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name, matrix in adapted_matrices(module.encoder):
        out, width = matrix.weight.shape
        tensors[f"{name}.up"] = torch.randn(out, rank, generator=generator).half()
        tensors[f"{name}.down"] = torch.randn(rank, width, generator=generator).half()
    shape = f"{module.dims.n_audio_layer}x{module.dims.n_audio_state}"
    facts = {"encoder_sha256": encoder_sha256(module.encoder), "shape": shape, "margin_frames": str(margin_frames)}
    facts["languages"] = languages
    save_file(tensors, path, metadata=facts)
    return tensors


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    """The folder of the adapters that come with Streamer, empty."""
    (tmp_path / "data" / "context").mkdir(parents=True)
    monkeypatch.setattr(context_adapter, "files", lambda package: tmp_path)
    return tmp_path / "data" / "context"


def test_each_matrix_of_the_blocks_gets_its_difference_and_nothing_else_changes(bundled):
    module, before = random_whisper(), random_whisper()
    tensors = write_adapter(bundled / "small.safetensors", module)
    adapter = bundled_adapter(module.encoder)
    adapter.merge(module.encoder)
    names = {name for name, _ in adapted_matrices(module.encoder)}
    assert len(names) == 6 * module.dims.n_audio_layer
    for (key, new), (_, old) in zip(module.state_dict().items(), before.state_dict().items(), strict=True):
        name = key.removeprefix("encoder.blocks.").removesuffix(".weight")
        if key.startswith("encoder.blocks.") and key.endswith(".weight") and name in names:
            torch.testing.assert_close(new, old + tensors[f"{name}.up"].float() @ tensors[f"{name}.down"].float())
            assert not torch.equal(new, old)
        else:
            assert torch.equal(new, old), key


def test_weights_are_known_in_any_precision_and_others_are_not():
    one, other = random_whisper(0), random_whisper(1)
    rounded = random_whisper(0).half()
    assert encoder_sha256(one.encoder) == encoder_sha256(rounded.encoder) == encoder_sha256(rounded.float().encoder)
    assert encoder_sha256(one.encoder) != encoder_sha256(other.encoder)


def test_only_the_weights_it_was_made_for_take_an_adapter_and_only_when_asked(bundled, tmp_path):
    mine = save_whisper(tmp_path / "mine.pt", random_whisper(0))
    tuned = save_whisper(tmp_path / "tuned.pt", random_whisper(1))
    write_adapter(bundled / "small.safetensors", random_whisper(0), margin_frames=96)
    adapted = checkpoint.load_model(mine, head=None, short_windows=True)
    plain = checkpoint.load_model(mine, head=None)
    other = checkpoint.load_model(tuned, head=None, short_windows=True)
    assert [model.margin_frames for model in (adapted, plain, other)] == [96, 1024, 1024]
    mel = torch.zeros(1, 80, 200)
    assert not torch.allclose(adapted.encode(mel)[0], plain.encode(mel)[0])


def test_a_checkpoint_that_knows_short_windows_takes_none(bundled, tmp_path):
    path = save_whisper(tmp_path / "mine.pt", random_whisper(0))
    path.with_suffix(".json").write_text('{"variable_context": true}')
    write_adapter(bundled / "small.safetensors", random_whisper(0))
    assert checkpoint.load_model(path, head=None, short_windows=True).margin_frames == 0


def test_a_model_of_many_languages_takes_it_only_for_those_that_it_was_taught(bundled, tmp_path):
    path = save_whisper(tmp_path / "many.pt", random_whisper(0, n_vocab=51865))
    write_adapter(bundled / "small.safetensors", random_whisper(0, n_vocab=51865), languages="de en")
    for languages, taken in ((("en",), True), (("de", "en"), True), (("fr", "en"), False), ((), False), (("",), False)):
        model = checkpoint.load_model(path, head=None, short_windows=True, languages=languages)
        assert (model.margin_frames == 128) is taken, languages
