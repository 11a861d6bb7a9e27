"""Whisper-AT's released heads (YuanGongND/whisper-at): where they lie, and how they are fetched.

They are published without checksums, so the hash of the first download is recorded and anything else is refused later.
A head is saved again as a plain state dict (nothing executable can be in it) with a JSON beside it.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import torch

from streamer.errors import CheckpointError, DownloadError
from streamer.model.download import ProgressCallback, fetch, file_sha256, unreachable
from streamer.model.head import load_head
from streamer.model.publishers import PUBLISHED, Sources, cache_root

LABELS = "AudioSet's 527 classes in the order of class_labels_indices.csv"
FORGET_S = 24 * 3600  # how long a failure to fetch a head is remembered


@dataclass(frozen=True, slots=True)
class ReleasedHead:
    """A released head: its name, the checkpoint that it belongs to, where it lies under HEADS_URL, a pinned sha256."""

    name: str
    backbone: str
    address: str
    sha256: str | None = None


def _head(name: str, folder: str, sha256: str | None = None) -> ReleasedHead:
    return ReleasedHead(name, name.rpartition("_")[0], f"{folder}/{name}.pth?dl=1", sha256)


HEADS = {
    head.name: head
    for head in (
        _head("tiny.en_ori", "atq9so6w0qug5ai"),
        _head("tiny_ori", "cib4q4iz6g758l0"),
        _head("base.en_ori", "qtzgsbuquoz0afn"),
        _head("base_ori", "2odwh42u6e9ger7"),
        _head("small.en_ori", "cyx50ycl1ul7lji"),
        _head("small.en_low", "507o66zgl8v6ddd"),
        _head("small_ori", "jftj9s0kr4ycvr1"),
        _head("small_low", "a1x0416v58f7wrf"),
        # The one head whose hash somebody published (a third party's pin).
        _head("medium.en_ori", "bbvylvmgns8ja4p", "2bb6ed52169cffd19623106dadb71918da27f8664ea1788c6379956b91ad2cea"),
        _head("medium.en_low", "2q5wprr8f9gti5t"),
        _head("medium_ori", "65aabayr7o819az"),
        _head("medium_low", "0mnfmcasram4n6o"),
        _head("large-v1_ori", "b8x2en1fdzc8nhk"),
        _head("large-v1_low", "5o79h70wyla8jlk"),
        _head("large-v2_ori", "3zxpyvdrxy22eq7"),
        _head("large-v2_low", "jw2rh4uylhqgn85"),
    )
}


def head_of(name: str) -> ReleasedHead | None:
    """The released full-width head of an official checkpoint; None where none was released (large-v3, turbo)."""
    return HEADS.get(f"{name}_ori")


def pull_head(
    head: ReleasedHead,
    *,
    root: Path | None = None,
    progress: ProgressCallback | None = None,
    sources: Sources = PUBLISHED,
    again: bool = True,
) -> Path:
    """A released head's file, `NAME.pth` with `NAME.json` beside it, fetched once and verified each time.

    `again` false: where it could not be fetched within the last day, that is said without asking the network. Raises
    DownloadError.
    """
    folder = root or cache_root()
    target = folder / f"{head.name}.pth"
    if _is_as_saved(target):
        return target
    failure = folder / f"{head.name}.unreachable"
    if not again and (why := _recent(failure)):
        raise DownloadError(why)
    try:
        _fetch(head, folder, target, progress, sources)
    except DownloadError as error:
        _remember(failure, str(error))
        raise
    failure.unlink(missing_ok=True)
    return target


def _recent(failure: Path) -> str | None:
    """Why fetching failed, if that was within the last day."""
    try:
        return failure.read_text(encoding="utf-8") if time.time() - failure.stat().st_mtime < FORGET_S else None
    except (OSError, UnicodeDecodeError):
        return None


def _remember(failure: Path, why: str) -> None:
    try:
        failure.parent.mkdir(parents=True, exist_ok=True)
        failure.write_text(why, encoding="utf-8")
    except OSError:
        return  # then it is tried at the next start


def _fetch(head: ReleasedHead, folder: Path, target: Path, progress: ProgressCallback | None, sources: Sources) -> None:
    hashes = folder / "hashes.json"
    known = _read_json(hashes)
    raw = folder / f"{head.name}.download"
    url = f"{sources.heads_url}/{head.address}"
    if (why := unreachable(url, sources.answer_s)) is not None:
        raise DownloadError(f"{head.name}: {urlsplit(url).netloc} cannot be reached: {why}")
    found = fetch(url, raw, sha256=head.sha256, progress=progress, patience=sources.patience)
    try:
        recorded = known.get(head.name)
        if recorded not in (None, found):
            raise DownloadError(
                f"{url} has changed since it was first fetched: sha256 {found}, recorded {recorded} in {hashes}"
            )
        _save_again(head, raw, target, url, found)
    finally:
        raw.unlink(missing_ok=True)
    _write_json(hashes, known | {head.name: found})


def _save_again(head: ReleasedHead, raw: Path, target: Path, url: str, sha256: str) -> None:
    """Keep a fetched head as a plain state dict with its description; refuse what is no head."""
    try:
        module = load_head(raw).module
    except CheckpointError as error:
        raise DownloadError(f"{url} did not give a tagging head (perhaps a page about an error): {error}") from error
    fresh = target.with_name(f"{target.name}.part")
    torch.save(module.state_dict(), fresh)
    description = {
        "name": head.name,
        "backbone": head.backbone,
        "kind": module.shape.kind.value,
        "low_width": module.shape.low_width,
        "labels": LABELS,
        "thresholds": None,
        "trained_spans_s": [10.0],  # AudioSet's clips
        "source": url,
        "source_sha256": sha256,
        "sha256": file_sha256(fresh),
    }
    os.replace(fresh, target)
    _write_json(target.with_suffix(".json"), description)


def _is_as_saved(target: Path) -> bool:
    described = _read_json(target.with_suffix(".json"))
    return target.is_file() and described.get("sha256") == file_sha256(target)


def _read_json(path: Path) -> dict[str, object]:
    """A JSON object; empty when there is none. Raises DownloadError when it is damaged."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DownloadError(f"{path} is damaged ({error}): delete it and what it belongs to, and pull again") from error
    return content if isinstance(content, dict) else {}


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    fresh = path.with_name(f"{path.name}.part")
    fresh.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(fresh, path)
