"""What can be had by name: the bundled checkpoint, openai-whisper's, and Whisper-AT's released heads.

Checkpoints: addresses and sha256 are openai-whisper's own. Heads: those of YuanGongND/whisper-at, published without
checksums, so the hash of the first download is recorded and anything else is refused later. A head is saved again as a
plain state dict (nothing executable can be in it) with a JSON beside it.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import whisper

from streamer.errors import CheckpointError, DownloadError
from streamer.model.download import Patience, ProgressCallback, fetch, file_sha256
from streamer.model.head import load_head

BUNDLED = "nano"
CHECKPOINTS_URL = "https://openaipublic.azureedge.net/main/whisper/models"
HEADS_URL = "https://www.dropbox.com/s"
LABELS = "AudioSet's 527 classes in the order of class_labels_indices.csv"


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


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to fetch from: mirrors with the publishers' paths under other addresses, and how patiently."""

    checkpoints_url: str = CHECKPOINTS_URL
    heads_url: str = HEADS_URL
    patience: Patience = field(default_factory=Patience)


PUBLISHED = Sources()


def cache_root() -> Path:
    """Where downloads are kept: $XDG_CACHE_HOME/streamer, else ~/.cache/streamer."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamer"


def bundled_path() -> Path:
    """Where the bundled checkpoint lies. Raises CheckpointError when this installation has none."""
    path = Path(__file__).parents[1] / "data" / f"{BUNDLED}.pt"
    if not path.is_file():
        raise CheckpointError(
            f"model {BUNDLED}: this installation has no bundled checkpoint at {path}: "
            "give another name, or the path of a .pt (--model)"
        )
    return path


def official_names() -> list[str]:
    """The names of openai-whisper's checkpoints."""
    return list(whisper.available_models())


def is_official(name: str) -> bool:
    """Whether a name is one of openai-whisper's checkpoints."""
    return name in whisper._MODELS


def alignment_heads(name: str) -> bytes:
    """openai-whisper's encoded alignment heads of an official checkpoint, for `Whisper.set_alignment_heads`."""
    encoded: bytes = whisper._ALIGNMENT_HEADS[name]
    return encoded


def head_of(name: str) -> ReleasedHead | None:
    """The released full-width head of an official checkpoint; None where none was released (large-v3, turbo)."""
    return HEADS.get(f"{name}_ori")


def pull(
    name: str, *, root: Path | None = None, progress: ProgressCallback | None = None, sources: Sources = PUBLISHED
) -> Path:
    """Fetch what a name stands for unless it is there already, and return its file.

    name: `nano`, an official checkpoint (its released head comes along) or a released head (`base_ori`, `small_low`).
    root: where to keep it (default `cache_root()`). Raises CheckpointError for an unknown name, DownloadError.
    """
    if name == BUNDLED:
        return bundled_path()
    if name in HEADS:
        return pull_head(HEADS[name], root=root, progress=progress, sources=sources)
    if not is_official(name):
        raise CheckpointError(
            f"{name} is not in the catalogue: {BUNDLED}, {', '.join(official_names())}, {', '.join(HEADS)} are"
        )
    path = pull_checkpoint(name, root=root, progress=progress, sources=sources)
    head = head_of(name)
    if head is not None:
        pull_head(head, root=root, progress=progress, sources=sources)
    return path


def pull_checkpoint(
    name: str, *, root: Path | None = None, progress: ProgressCallback | None = None, sources: Sources = PUBLISHED
) -> Path:
    """An official checkpoint's file, fetched once and verified each time against openai-whisper's sha256.

    A copy that openai-whisper itself has already fetched is used where it lies (unless `root` is given).
    """
    url: str = whisper._MODELS[name]
    sha256, file = url.split("/")[-2:]
    target = (root or cache_root()) / file
    fetched_by_whisper = cache_root().parent / "whisper" / file
    for path in (target,) if root is not None else (target, fetched_by_whisper):
        if path.is_file() and file_sha256(path) == sha256:
            return path
    mirrored = url.replace(CHECKPOINTS_URL, sources.checkpoints_url, 1)
    fetch(mirrored, target, sha256=sha256, progress=progress, patience=sources.patience)
    return target


def pull_head(
    head: ReleasedHead,
    *,
    root: Path | None = None,
    progress: ProgressCallback | None = None,
    sources: Sources = PUBLISHED,
) -> Path:
    """A released head's file, `NAME.pth` with `NAME.json` beside it, fetched once and verified each time."""
    folder = root or cache_root()
    target = folder / f"{head.name}.pth"
    if _is_as_saved(target):
        return target
    hashes = folder / "hashes.json"
    known = _read_json(hashes)
    raw = folder / f"{head.name}.download"
    url = f"{sources.heads_url}/{head.address}"
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
    return target


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
