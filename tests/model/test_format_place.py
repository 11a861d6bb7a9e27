from pathlib import Path

import pytest
import torch
from backbones import random_whisper, save_whisper
from writers import write_ctranslate2, write_transformers

from streamer.errors import CheckpointError
from streamer.model.checkpoint import load_model
from streamer.model.formats import place_of
from streamer.model.head import HeadKind, HeadModule, HeadShape


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One Whisper in all formats."""
    folder, module = tmp_path_factory.mktemp("formats"), random_whisper()
    save_whisper(folder / "openai.pt", module)
    write_ctranslate2(folder / "ct2", module, torch.float32, {"alignment_heads": [[0, 1], [1, 0]]})
    generation = {"alignment_heads": [[0, 1], [1, 0]]}
    write_transformers(folder / "whole.v1", module, torch.float32, generation=generation)
    write_transformers(folder / "shards", module, torch.float32, shards=2, generation=generation)
    return folder


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("openai.pt", "openai"),
        ("ct2", "ct2"),
        ("ct2/model.bin", "ct2"),
        ("whole.v1", "whole.v1"),
        ("whole.v1/model.safetensors", "whole.v1"),
        ("shards", "shards"),
        ("shards/model.safetensors.index.json", "shards"),
    ],
)
def test_every_format_hears_the_same(given: str, name: str, place: Path) -> None:
    mel = torch.randn(1, 80, 200, generator=torch.Generator().manual_seed(5))
    expected = load_model(place / "openai.pt", device="cpu", dtype="float32")
    model = load_model(place / given, device="cpu", dtype="float32")
    assert model.name == name
    assert model.alignment_heads == (((1, 0), (1, 1)) if given == "openai.pt" else ((0, 1), (1, 0)))
    assert torch.equal(model.encode(mel)[0], expected.encode(mel)[0])
    features, tokens = expected.encode(mel)[0], torch.tensor([[50257, 50362, 530]])
    with torch.no_grad():
        assert torch.equal(model.decoder(tokens, features), expected.decoder(tokens, features))


def test_what_belongs_to_a_folder_lies_in_it(tmp_path: Path) -> None:
    folder = write_ctranslate2(tmp_path / "mine", random_whisper(), config={"alignment_heads": [[0, 1]]})
    (folder / "streamer.json").write_text('{"variable_context": true, "alignment_heads": [[1, 1]]}')
    torch.save(HeadModule(HeadShape(HeadKind.TL_TR, 64)).state_dict(), folder / "at.pth")
    model = load_model(folder, device="cpu")
    assert model.variable_context
    assert model.alignment_heads == ((1, 1),)
    assert model.head is not None


def test_alignment_heads_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    folder = write_ctranslate2(tmp_path, random_whisper(), config={"alignment_heads": [[5, 0]]})
    with pytest.raises(CheckpointError, match=r"model\.bin: alignment_heads: \[5, 0\] does not exist"):
        load_model(folder, device="cpu")


def test_other_folders_are_refused_with_what_would_be_right(tmp_path: Path) -> None:
    needed = r"holds no model: model\.safetensors, model\.safetensors\.index\.json \(transformers\) or model\.bin"
    with pytest.raises(CheckpointError, match=f"{needed}.* is needed$"):
        place_of(tmp_path)
    (tmp_path / "a.pt").touch()
    with pytest.raises(CheckpointError, match=f"{needed}.*; or give .*a.pt itself"):
        place_of(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(CheckpointError, match=f"{needed}.*; save its pytorch_model.bin again"):
        place_of(tmp_path)
