"""Downloads are whole or not there, and what was checked once is not hashed again while it stays as it was."""

import hashlib
import os
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mirror import closed_port
from publisher import Publisher, open_publisher

from streamer.errors import DownloadError
from streamer.model import download
from streamer.model.download import RECORD, Patience, Progress, fetch, file_sha256, is_verified, unreachable

CONTENT = bytes(range(256)) * 1500
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(timeout_s=5, attempts=3, pause_s=0)


def left_behind(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def test_a_whole_file_arrives_with_its_progress(publisher: Publisher, tmp_path: Path) -> None:
    url, target, seen = publisher.publish("a.bin", CONTENT), tmp_path / "new" / "a.bin", list[Progress]()
    assert fetch(url, target, sha256=SHA256, progress=seen.append, patience=QUICK) == SHA256
    assert target.read_bytes() == CONTENT
    assert file_sha256(target) == SHA256
    assert left_behind(target) == ["a.bin"]
    assert seen[-1] == Progress("a.bin", len(CONTENT), len(CONTENT))
    assert [step.received_bytes for step in seen] == sorted(step.received_bytes for step in seen)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(0, 200_000), max_size=2),
    ranges=st.booleans(),
    etags=st.booleans(),
    lengths=st.booleans(),
)
def test_cut_connections_are_continued_or_begun_again(
    cuts: list[int], ranges: bool, etags: bool, lengths: bool, publisher: Publisher, tmp_path: Path
) -> None:
    publisher.ranges, publisher.etags, publisher.lengths = ranges, etags, lengths
    publisher.cut_after = list(cuts)
    url, target = publisher.publish("a.bin", CONTENT), tmp_path / "a.bin"
    if cuts and not lengths:  # a cut cannot be told from the end: the hash tells
        with pytest.raises(DownloadError, match=r"not what its publisher promised|is empty"):
            fetch(url, target, sha256=SHA256, patience=QUICK)
        publisher.cut_after.clear()
        assert not target.exists()
    fetch(url, target, sha256=SHA256, patience=QUICK)
    assert target.read_bytes() == CONTENT
    assert left_behind(target) == ["a.bin"]
    target.unlink()


def test_a_later_call_continues_an_earlier_one(publisher: Publisher, tmp_path: Path) -> None:
    url, target = publisher.publish("a.bin", CONTENT), tmp_path / "a.bin"
    publisher.cut_after = [1000, 2000, 3000]
    with pytest.raises(DownloadError, match=r"ended after 6000 of 384000 bytes \(3 attempts\); another call continues"):
        fetch(url, target, sha256=SHA256, patience=QUICK)
    assert not target.exists()
    assert fetch(url, target, sha256=SHA256, patience=QUICK) == SHA256
    assert publisher.asked == [None, "bytes=1000-", "bytes=3000-", "bytes=6000-"]


def test_a_part_of_another_version_is_thrown_away(publisher: Publisher, tmp_path: Path) -> None:
    url, target = publisher.publish("a.bin", CONTENT[::-1]), tmp_path / "a.bin"
    publisher.cut_after = [5000]
    with pytest.raises(DownloadError):
        fetch(url, target, patience=Patience(attempts=1))
    publisher.publish("a.bin", CONTENT)
    assert fetch(url, target, sha256=SHA256, patience=QUICK) == SHA256
    assert publisher.asked == [None, "bytes=5000-", None]


def test_what_nobody_vouches_for_is_not_continued_by_another_call(publisher: Publisher, tmp_path: Path) -> None:
    url, target = publisher.publish("a.bin", CONTENT), tmp_path / "a.bin"
    (tmp_path / "a.bin.part").write_bytes(b"what was here before")
    assert fetch(url, target, patience=QUICK) == SHA256
    assert publisher.asked == [None]


def test_a_part_longer_than_the_file_is_thrown_away(publisher: Publisher, tmp_path: Path) -> None:
    url, target = publisher.publish("a.bin", CONTENT), tmp_path / "a.bin"
    (tmp_path / "a.bin.part").write_bytes(b"x" * (len(CONTENT) + 5))
    assert fetch(url, target, sha256=SHA256, patience=QUICK) == SHA256
    assert left_behind(target) == ["a.bin"]


def test_altered_bytes_are_refused_and_not_kept(publisher: Publisher, tmp_path: Path) -> None:
    url, target = publisher.publish("a.bin", CONTENT[:-1] + b"?"), tmp_path / "a.bin"
    target.write_bytes(b"what was here before")
    with pytest.raises(DownloadError, match=f"not what its publisher promised: sha256 .*, {SHA256} was promised"):
        fetch(url, target, sha256=SHA256, patience=QUICK)
    assert left_behind(target) == ["a.bin"]
    assert target.read_bytes() == b"what was here before"


def test_a_stalled_server_is_given_up(publisher: Publisher, tmp_path: Path) -> None:
    url, target = publisher.publish("a.bin", CONTENT), tmp_path / "a.bin"
    publisher.stall_after = 700
    with pytest.raises(DownloadError, match=r"nothing more came within 0.2 s \(2 attempts\)"):
        fetch(url, target, patience=Patience(timeout_s=0.2, attempts=2, pause_s=0))
    assert (tmp_path / "a.bin.part").stat().st_size == 1400  # and what came is kept
    publisher.stall_after = None
    assert fetch(url, target, sha256=SHA256, patience=QUICK) == SHA256


def test_what_is_not_there_is_not_tried_again(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"/gone\.bin: the server answered 404"):
        fetch(f"{publisher.url}/gone.bin", tmp_path / "a.bin", patience=QUICK)
    assert len(publisher.asked) == 1
    assert left_behind(tmp_path / "a.bin") == []


def test_a_busy_server_is_tried_again(publisher: Publisher, tmp_path: Path) -> None:
    publisher.statuses = [503, 429]
    assert fetch(publisher.publish("a.bin", CONTENT), tmp_path / "a.bin", patience=QUICK) == SHA256
    publisher.statuses = [500, 500, 500]
    with pytest.raises(DownloadError, match="answered 500"):
        fetch(f"{publisher.url}/a.bin", tmp_path / "b.bin", patience=QUICK)


def test_an_empty_file_is_refused(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="is empty"):
        fetch(publisher.publish("a.bin", b""), tmp_path / "a.bin", patience=QUICK)


def test_nobody_there(tmp_path: Path) -> None:
    with open_publisher() as publisher:
        url = publisher.publish("a.bin", CONTENT)
    with pytest.raises(DownloadError, match="cannot be reached"):
        fetch(url, tmp_path / "a.bin", patience=QUICK)


def test_only_web_addresses(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="no web address"):
        fetch("file:///etc/passwd", tmp_path / "a.bin")


def test_a_place_that_cannot_be_written(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=r"file/a\.bin cannot be written"):
        fetch(publisher.publish("a.bin", CONTENT), tmp_path / "file" / "a.bin", patience=QUICK)


def test_any_answer_shows_that_somebody_is_there(publisher: Publisher) -> None:
    assert unreachable(publisher.publish("a.bin", CONTENT), 5) is None
    assert unreachable(f"{publisher.url}/not/there", 5) is None


def test_silence_is_not_waited_for() -> None:
    assert unreachable(f"http://127.0.0.1:{closed_port()}", 5) == "Connection refused"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        said = unreachable(f"http://127.0.0.1:{silent.getsockname()[1]}", 0.1)
    assert said in ("timed out", "no answer within 0.1 s")


KEPT = b"weights"
KEPT_SHA256 = hashlib.sha256(KEPT).hexdigest()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read."""
    found, hashing = list[Path](), download.file_sha256

    def counted(path: Path) -> str:
        found.append(path)
        return hashing(path)

    monkeypatch.setattr(download, "file_sha256", counted)
    return found


def test_a_file_is_hashed_once_and_again_when_it_changes(tmp_path: Path, hashed: list[Path]) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(KEPT)
    assert is_verified(path, KEPT_SHA256, tmp_path)
    assert is_verified(path, KEPT_SHA256, tmp_path)
    assert len(hashed) == 1
    path.write_bytes(KEPT[:-1])
    assert not is_verified(path, KEPT_SHA256, tmp_path)
    path.write_bytes(KEPT[:-1] + b"!")
    assert not is_verified(path, KEPT_SHA256, tmp_path)
    path.write_bytes(KEPT)
    os.utime(path, ns=(5, 5))
    assert is_verified(path, KEPT_SHA256, tmp_path)
    assert len(hashed) == 4


def test_a_wrong_file_stays_wrong_and_a_missing_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    assert not is_verified(path, KEPT_SHA256, tmp_path)
    assert not is_verified(tmp_path, KEPT_SHA256, tmp_path)
    path.write_bytes(b"others")
    assert not is_verified(path, KEPT_SHA256, tmp_path)
    assert not is_verified(path, KEPT_SHA256, tmp_path)
    assert is_verified(path, hashlib.sha256(b"others").hexdigest(), tmp_path)


@pytest.mark.parametrize("record", ["{", "[]", "null", '{"x": 5}'])
def test_a_damaged_record_costs_one_more_hashing(record: str, tmp_path: Path, hashed: list[Path]) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(KEPT)
    (tmp_path / RECORD).write_text(record)
    assert is_verified(path, KEPT_SHA256, tmp_path)
    assert is_verified(path, KEPT_SHA256, tmp_path)
    assert len(hashed) == 1


def test_a_record_that_cannot_be_kept_is_no_obstacle(tmp_path: Path, hashed: list[Path]) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(KEPT)
    assert is_verified(path, KEPT_SHA256, path / "no folder")
    assert is_verified(path, KEPT_SHA256, path / "no folder")
    assert len(hashed) == 2
