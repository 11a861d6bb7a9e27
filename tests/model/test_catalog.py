import base64
import gzip
import hashlib
import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import whisper
from backbones import random_whisper, save_whisper
from publisher import Publisher, open_publisher

from streamer.errors import CheckpointError, DownloadError
from streamer.model import catalog, wheels
from streamer.model.catalog import official_names, pull
from streamer.model.checkpoint import load_model
from streamer.model.download import Patience, Progress
from streamer.model.head import load_head
from streamer.model.publishers import CHECKPOINTS_URL, Sources, cache_root
from streamer.model.released_heads import HEADS, head_of
from streamer.model.tagging import HeadKind, HeadModule, HeadShape


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with open_publisher() as publisher:
        yield publisher


@pytest.fixture
def sources(publisher: Publisher) -> Sources:
    """Nobody answers for the hub, and pip has no index."""
    return Sources(
        f"{publisher.url}/models",
        f"{publisher.url}/heads",
        hub_url=f"http://127.0.0.1:{closed_port()}",
        pip_options=("--no-index",),
        patience=Patience(timeout_s=5, attempts=2, pause_s=0),
    )


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def released_head(seed: int = 0, prefix: str = "at_model.") -> bytes:
    torch.manual_seed(seed)
    buffer = io.BytesIO()
    state = HeadModule(HeadShape(HeadKind.TL_TR, 64)).state_dict()
    torch.save({prefix + key: tensor for key, tensor in state.items()}, buffer)
    return buffer.getvalue()


def head_path(name: str) -> str:
    return f"heads/{HEADS[name].address.partition('?')[0]}"


@pytest.fixture
def tiny(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A stand-in for openai-whisper's `tiny.en`, published under the sha256 that its catalogue then promises."""
    content = save_whisper(tmp_path / "made.pt", random_whisper()).read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(whisper._MODELS, "tiny.en", f"{CHECKPOINTS_URL}/{sha256}/tiny.en.pt")
    monkeypatch.delitem(wheels.WHEELS, "tiny.en")
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


def test_a_head_is_saved_again_as_plain_tensors(publisher: Publisher, sources: Sources, tmp_path: Path) -> None:
    content = released_head()
    publisher.publish(head_path("base_ori"), content)
    path = pull("base_ori", root=tmp_path, sources=sources)
    assert path == tmp_path / "base_ori.pth"
    tensors = torch.load(path, weights_only=True)
    assert set(tensors) == set(HeadModule(HeadShape(HeadKind.TL_TR, 64)).state_dict())
    told = json.loads(path.with_suffix(".json").read_text())
    assert told["backbone"] == "base"
    assert told["kind"] == "tl_tr"
    assert told["source"] == f"{sources.heads_url}/{HEADS['base_ori'].address}"
    assert told["source_sha256"] == hashlib.sha256(content).hexdigest()
    assert told["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {"labels", "thresholds"} <= told.keys()
    assert load_head(path).description.backbone == "base"


def test_a_head_that_changed_since_it_was_first_seen_is_refused(
    publisher: Publisher, sources: Sources, tmp_path: Path
) -> None:
    publisher.publish(head_path("base_ori"), released_head(0))
    path = pull("base_ori", root=tmp_path, sources=sources)
    path.unlink()
    assert pull("base_ori", root=tmp_path, sources=sources).is_file()  # the same again is fine
    path.unlink()
    publisher.publish(head_path("base_ori"), released_head(1))
    with pytest.raises(DownloadError, match=r"has changed since it was first fetched.*hashes\.json"):
        pull("base_ori", root=tmp_path, sources=sources)
    assert not path.exists()


def test_a_pinned_head_must_be_the_pinned_one(publisher: Publisher, sources: Sources, tmp_path: Path) -> None:
    publisher.publish(head_path("medium.en_ori"), released_head())
    with pytest.raises(DownloadError, match="not what its publisher promised"):
        pull("medium.en_ori", root=tmp_path, sources=sources)


def test_an_altered_head_in_the_cache_is_fetched_again(publisher: Publisher, sources: Sources, tmp_path: Path) -> None:
    publisher.publish(head_path("base_ori"), released_head())
    path = pull("base_ori", root=tmp_path, sources=sources)
    good = path.read_bytes()
    path.write_bytes(good[:-7])
    assert pull("base_ori", root=tmp_path, sources=sources).read_bytes() == good


def test_a_page_instead_of_a_head_is_refused(publisher: Publisher, sources: Sources, tmp_path: Path) -> None:
    publisher.publish(head_path("base_ori"), b"<!DOCTYPE html><title>Sorry</title>")
    with pytest.raises(DownloadError, match="did not give a tagging head"):
        pull("base_ori", root=tmp_path, sources=sources)
    assert [path.name for path in tmp_path.iterdir()] == ["base_ori.unreachable"]


def test_a_damaged_record_of_hashes_is_reported(publisher: Publisher, sources: Sources, tmp_path: Path) -> None:
    publisher.publish(head_path("base_ori"), released_head())
    (tmp_path / "hashes.json").write_text("{")
    with pytest.raises(DownloadError, match=r"hashes\.json is damaged"):
        pull("base_ori", root=tmp_path, sources=sources)


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


def test_every_released_head_belongs_to_an_official_checkpoint() -> None:
    assert {head.backbone for head in HEADS.values()} <= set(official_names())
    assert len(HEADS) == 16
    assert head_of("large-v3") is None
    assert head_of("turbo") is None
    assert head_of("base") is HEADS["base_ori"]


