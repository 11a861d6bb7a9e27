import hashlib
import os
from pathlib import Path

import pytest

from streamer.model import verified
from streamer.model.verified import RECORD, is_verified

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read."""
    found, hashing = list[Path](), verified.file_sha256

    def counted(path: Path) -> str:
        found.append(path)
        return hashing(path)

    monkeypatch.setattr(verified, "file_sha256", counted)
    return found


def test_a_file_is_hashed_once_and_again_when_it_changes(tmp_path: Path, hashed: list[Path]) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(CONTENT)
    assert is_verified(path, SHA256, tmp_path)
    assert is_verified(path, SHA256, tmp_path)
    assert len(hashed) == 1
    path.write_bytes(CONTENT[:-1])
    assert not is_verified(path, SHA256, tmp_path)
    path.write_bytes(CONTENT[:-1] + b"!")
    assert not is_verified(path, SHA256, tmp_path)
    path.write_bytes(CONTENT)
    os.utime(path, ns=(5, 5))
    assert is_verified(path, SHA256, tmp_path)
    assert len(hashed) == 4


def test_a_wrong_file_stays_wrong_and_a_missing_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    assert not is_verified(path, SHA256, tmp_path)
    assert not is_verified(tmp_path, SHA256, tmp_path)
    path.write_bytes(b"others")
    assert not is_verified(path, SHA256, tmp_path)
    assert not is_verified(path, SHA256, tmp_path)
    assert is_verified(path, hashlib.sha256(b"others").hexdigest(), tmp_path)


@pytest.mark.parametrize("record", ["{", "[]", "null", '{"x": 5}'])
def test_a_damaged_record_costs_one_more_hashing(record: str, tmp_path: Path, hashed: list[Path]) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(CONTENT)
    (tmp_path / RECORD).write_text(record)
    assert is_verified(path, SHA256, tmp_path)
    assert is_verified(path, SHA256, tmp_path)
    assert len(hashed) == 1


def test_a_record_that_cannot_be_kept_is_no_obstacle(tmp_path: Path, hashed: list[Path]) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(CONTENT)
    assert is_verified(path, SHA256, path / "no folder")
    assert is_verified(path, SHA256, path / "no folder")
    assert len(hashed) == 2
