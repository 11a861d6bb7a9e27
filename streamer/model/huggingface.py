"""Checkpoints on the Hugging Face hub, fetched through its own library into its own cache, at pinned revisions.

Other programs that use the hub share that cache: what faster-whisper has fetched is found here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from streamer.errors import DownloadError
from streamer.model.download import Progress, ProgressCallback

FILES = ("config.json", "model.bin")  # the weights last: what is begun has the rest


@dataclass(frozen=True, slots=True)
class HubFolder:
    """A CTranslate2 folder on the hub at one revision; `sha256` is that of its `model.bin`."""

    repository: str
    revision: str
    sha256: str


def _systran(name: str, revision: str, sha256: str) -> HubFolder:
    return HubFolder(f"Systran/faster-whisper-{name}", revision, sha256)


_LARGE_V3 = _systran(
    "large-v3",
    "edaa852ec7e145841d8ffdb056a99866b5f0a478",
    "69f74147e3334731bc3a76048724833325d2ec74642fb52620eda87352e3d4f1",
)
_TURBO = HubFolder(
    "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "0a363e9161cbc7ed1431c9597a8ceaf0c4f78fcf",
    "e76620f83d5f5b69efd3d87e3dc180c1bd21df9fbebacfd4335e5e1efcc018da",
)
# Revisions and hashes as several public projects pin them, independently of one another.
HUB = {
    "tiny.en": _systran(
        "tiny.en",
        "0d3d19a32d3338f10357c0889762bd8d64bbdeba",
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
    "tiny": _systran(
        "tiny",
        "d90ca5fe260221311c53c58e660288d3deb8d356",
        "dcb76c6586fc06cbdac6dd21f14cfd129cc4cdd9dce19bf4ffa62e59cbe6e6d1",
    ),
    "base.en": _systran(
        "base.en",
        "3d3d5dee26484f91867d81cb899cfcf72b96be6c",
        "2a166925539a16005f14ff328359f9b9adb9dc4fb631bb3b227526862e93e2ef",
    ),
    "base": _systran(
        "base",
        "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66",
        "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    ),
    "small.en": _systran(
        "small.en",
        "d1d751a5f8271d482d14ca55d9e2deeebbae577f",
        "62b2a45b05ee59acb4a5341b33ee35e041395d378d418a18acfe4c9e768ee37a",
    ),
    "small": _systran(
        "small",
        "536b0662742c02347bc0e980a01041f333bce120",
        "3e305921506d8872816023e4c273e75d2419fb89b24da97b4fe7bce14170d671",
    ),
    "medium.en": _systran(
        "medium.en",
        "a29b04bd15381511a9af671baec01072039215e3",
        "11b220779aea4c6f3ce9d2549c8a95ea869ed84066864b999531ef53e594fe5b",
    ),
    "medium": _systran(
        "medium",
        "08e178d48790749d25932bbc082711ddcfdfbc4f",
        "9b45e1009dcc4ab601eff815b61d80e60ce3fd8c74c1a14f4a282258286b51ae",
    ),
    "large-v1": _systran(
        "large-v1",
        "b07c8d4be0be90092aa01a29c975077acb8d15c9",
        "a3cce8081a5414206ab09a80aa410ebf9965feef52adafeead13f4a83398b1d1",
    ),
    "large-v2": _systran(
        "large-v2",
        "f0fe81560cb8b68660e564f55dd99207059c092e",
        "bf2a9746382e1aa7ffff6b3a0d137ed9edbd9670c3b87e5d35f5e85e70d0333a",
    ),
    "large-v3": _LARGE_V3,
    "large": _LARGE_V3,
    "large-v3-turbo": _TURBO,
    "turbo": _TURBO,
}


def default_endpoint() -> str:
    """The hub's address: $HF_ENDPOINT, else https://huggingface.co."""
    return constants.ENDPOINT


def place_in_cache(folder: HubFolder, cache: Path | None = None) -> Path:
    """Where the folder lies once it is fetched. `cache`: the hub's cache (default: the user's own)."""
    name = f"models--{folder.repository.replace('/', '--')}"
    return (cache or Path(constants.HF_HUB_CACHE)) / name / "snapshots" / folder.revision


def fetch_folder(
    folder: HubFolder,
    *,
    cache: Path | None = None,
    endpoint: str | None = None,
    progress: ProgressCallback | None = None,
) -> None:
    """Fetch the folder into the hub's cache, continuing what was begun. Raises DownloadError."""
    from huggingface_hub import hf_hub_download  # takes half a second: only where something is fetched
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    for name in FILES:
        try:
            hf_hub_download(
                folder.repository,
                name,
                revision=folder.revision,
                cache_dir=cache,
                endpoint=endpoint,
                tqdm_class=_bar(f"{folder.repository.partition('/')[2]}/{name}", progress),
            )
        except (HTTPError, OSError, ValueError, RuntimeError) as error:
            why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise DownloadError(f"{folder.repository} on the Hugging Face hub: {name}: {why}") from error


def _bar(name: str, progress: ProgressCallback | None) -> Any:
    """What the hub's library takes for its progress bar: shows nothing and tells `progress`."""
    from tqdm import tqdm

    tell: Callable[[Progress], None] = progress or (lambda step: None)

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options | {"disable": True})
            self._received = int(options.get("initial") or 0)

        def update(self, n: float | None = 1) -> bool | None:
            self._received += int(n or 0)
            tell(Progress(name, self._received, int(self.total) if self.total else None))
            return None

    return Bar
