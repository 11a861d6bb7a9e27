import hashlib
import json
from pathlib import Path

import pytest
import torch
from mirror import closed_port, head_path, released_head
from publisher import Publisher

from streamer.errors import DownloadError
from streamer.model.catalog import HEADS, head_of, official_names, pull, pull_head
from streamer.model.download import Sources
from streamer.model.head import HeadKind, HeadModule, HeadShape, load_head


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


def test_every_released_head_belongs_to_an_official_checkpoint() -> None:
    assert {head.backbone for head in HEADS.values()} <= set(official_names())
    assert len(HEADS) == 16
    assert head_of("large-v3") is None
    assert head_of("turbo") is None
    assert head_of("base") is HEADS["base_ori"]


def test_a_publisher_who_does_not_answer_is_asked_once_a_day(
    publisher: Publisher, sources: Sources, tmp_path: Path
) -> None:
    gone = Sources(heads_url=f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(DownloadError, match=r"base_ori: 127\.0\.0\.1:\d+ cannot be reached: Connection refused"):
        pull_head(HEADS["base_ori"], root=tmp_path, sources=gone)
    publisher.publish(head_path("base_ori"), released_head())
    with pytest.raises(DownloadError, match="Connection refused"):
        pull_head(HEADS["base_ori"], root=tmp_path, sources=sources, again=False)
    assert publisher.asked == []
    assert pull_head(HEADS["base_ori"], root=tmp_path, sources=sources).is_file()
    assert pull_head(HEADS["base_ori"], root=tmp_path, sources=sources, again=False).is_file()
