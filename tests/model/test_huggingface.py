import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from publisher import Publisher, open_publisher

from streamer.errors import DownloadError
from streamer.model.catalog import official_names
from streamer.model.download import Progress
from streamer.model.huggingface import HUB, HubFolder, fetch_folder, place_in_cache

REVISION = "0123456789" * 4
WEIGHTS = b"weights" * 100_000


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with open_publisher() as publisher:
        publisher.commit = REVISION
        publisher.publish(f"someone/whisper/resolve/{REVISION}/config.json", b"{}")
        publisher.publish(f"someone/whisper/resolve/{REVISION}/model.bin", WEIGHTS)
        yield publisher


@pytest.fixture
def folder() -> HubFolder:
    return HubFolder("someone/whisper", REVISION, hashlib.sha256(WEIGHTS).hexdigest())


def test_a_folder_comes_into_the_hubs_own_cache(publisher: Publisher, folder: HubFolder, tmp_path: Path) -> None:
    seen = list[Progress]()
    fetch_folder(folder, cache=tmp_path, endpoint=publisher.url, progress=seen.append)
    place = place_in_cache(folder, tmp_path)
    assert (place / "model.bin").read_bytes() == WEIGHTS
    assert (place / "config.json").read_bytes() == b"{}"
    assert seen[-1] == Progress("whisper/model.bin", len(WEIGHTS), len(WEIGHTS))


def test_a_folder_that_is_not_there_is_one_line(publisher: Publisher, folder: HubFolder, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"someone/other on the Hugging Face hub: config\.json: ") as caught:
        fetch_folder(replace(folder, repository="someone/other"), cache=tmp_path, endpoint=publisher.url)
    assert "\n" not in str(caught.value)


def test_every_official_checkpoint_is_pinned() -> None:
    assert set(HUB) == set(official_names())
    assert all(len(folder.revision) == 40 and len(folder.sha256) == 64 for folder in HUB.values())
