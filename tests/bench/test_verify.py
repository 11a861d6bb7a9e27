import json
import shutil

import numpy as np
import pytest
import torch
from random_whisper import ENGLISH, EOT
from tiny_data import sound, write_backbone, write_wav

from streamer.bench import verify
from streamer.bench.verify import compare
from streamer.errors import InputError
from streamer.model.checkpoint import load_model
from streamer.model.head import HeadKind, HeadModule, HeadShape
from streamer.training.calibration import Fit
from streamer.training.head_training import write_head


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    write_backbone(folder)
    fit = Fit((1.0,) * 527, (0.0,) * 527, (0.5,) * 527, ())
    write_head(folder / "tiny_at.pth", HeadModule(HeadShape(HeadKind.TL_TR, 64)), fit, {"kind": "tl_tr"})
    write_wav(folder / "a.wav", np.concatenate([sound("Siren", 2, 0), sound("Rain", 1.5, 1)]))
    (folder / "a.txt").write_text("one two")
    return folder


def test_equal_weights_give_equal_results(place):
    model = load_model(place / "tiny.pt", device="cpu", dtype="float32")
    parity = compare(model, [sound("Siren", 33.3, 0).astype(np.float32)])
    assert parity.windows == 2
    assert parity.same_tokens == 2
    assert parity.holds
    assert parity.logits is not None


def test_a_difference_is_seen(place):
    model = load_model(place / "tiny.pt", device="cpu", dtype="float32")
    with torch.no_grad():
        model._encoder._ln_post = torch.nn.LayerNorm(64)
        model._encoder._ln_post.weight.fill_(1.5)
    parity = compare(model, [sound("Siren", 5.0, 0).astype(np.float32)])
    assert not parity.holds
    assert parity.features > 1e-3


def test_the_report_names_everything(place, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    content = torch.load(place / "tiny.pt")
    content["model_state_dict"]["decoder.token_embedding.weight"][EOT[ENGLISH]] *= 30.0  # texts end soon
    torch.save(content, tmp_path / "tiny.pt")
    for name in ("tiny.json", "tiny_at.pth", "tiny_at.json"):
        shutil.copy(place / name, tmp_path)
    report = verify.main(
        str(tmp_path / "tiny.pt"),
        tmp_path,
        audio=[place / "a.wav"],
        refs=[place / "a.txt"],
        device="cpu",
        dtype="float32",
    )
    assert report.result["parity"]["holds"]
    assert set(report.result["speech"]["listeners"]) == {"streamer", "openai-whisper, offline"}
    checkpoint, head = report.result["files"]
    assert checkpoint["hash"] == "nothing to compare with"
    assert head["hash"] == "as promised"
    assert json.loads((tmp_path / "verify.json").read_text())["model"] == "tiny"
    assert "Parity holds" in (tmp_path / "verify.md").read_text()


def test_an_altered_head_is_told(place):
    described = json.loads((place / "tiny_at.json").read_text())
    (place / "tiny_at.json").write_text(json.dumps(described | {"sha256": "0" * 64}))
    model = load_model(place / "tiny.pt", device="cpu", dtype="float32")
    assert verify.file_facts(str(place / "tiny.pt"), "auto", model)[1]["hash"] == "DIFFERENT"


@pytest.mark.parametrize(
    ("audio", "refs", "complaint"),
    [
        ([], ["a.txt"], "--refs: belong to recordings: give --audio too"),
        (["a.wav", "a.wav"], ["a.txt"], "--refs: one for each --audio file is needed; 2 files, 1"),
        (["a.wav"], ["none.txt"], "--refs .*none.txt: cannot be read: No such file"),
    ],
)
def test_wrong_refs_are_refused(place, audio, refs, complaint):
    with pytest.raises(InputError, match=complaint):
        verify._recordings([place / name for name in audio], [place / name for name in refs])
