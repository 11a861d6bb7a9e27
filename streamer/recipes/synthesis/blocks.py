"""Scenes that are composed block by block and stay in a folder: what the small networks of the signal learn from."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.errors import UsageError
from streamer.measure.processes import as_done
from streamer.recipes.sirens.scenes import Sounds

BLOCK = 200  # scenes in a file
COLUMNS = ("path", "kind", "split", "labels")

Arrays = dict[str, NDArray[Any]]
Compose = Callable[[Sounds, range], Arrays]
Say = Callable[[str], None]


@contextmanager
def blamed(data: Path, out: Path) -> Iterator[None]:
    """Turn what is missing or cannot be written into UsageError naming the option. `data` has a `manifest.csv`."""
    try:
        header = (data / "manifest.csv").read_text(encoding="utf-8").partition("\n")[0].strip().split(",")
    except (OSError, UnicodeDecodeError):
        header = []
    if not set(COLUMNS) <= set(header):
        raise UsageError(f"--data {data}: must have a manifest.csv with the columns {', '.join(COLUMNS)}")
    try:
        yield
    except FileNotFoundError as error:
        raise UsageError(f"{error.filename}: not found; espeak-ng, flite and the manifest's files are needed") from None
    except OSError as error:
        raise UsageError(f"{error.filename or out}: {error.strerror}") from None
    except subprocess.CalledProcessError as error:
        raise UsageError(f"{error.cmd[0]}: failed ({error.cmd}); it must have the voices of the list") from None


def composed(compose: Compose, numbers: range, data: Path, folder: Path, processes: int, say: Say) -> Arrays:
    """What `compose` makes of the scenes of these numbers, joined; blocks that the folder has are not redone."""
    folder.mkdir(parents=True, exist_ok=True)
    blocks = [numbers[first : first + BLOCK] for first in range(0, len(numbers), BLOCK)]
    wanted = [block for block in blocks if not _file(folder, block).exists()]
    for done, _ in enumerate(as_done(_compose, wanted, processes, _prepare, (data, folder, compose)), 1):
        say(f"{done} of {len(wanted)} blocks of scenes composed")
    stored = [np.load(_file(folder, block)) for block in blocks]
    return {name: np.concatenate([block[name] for block in stored]) for name in stored[0].files}


_composing: list[tuple[Sounds, Path, Compose]] = []  # of this process of the pool


def _prepare(data: Path, folder: Path, compose: Compose) -> None:
    _composing[:] = [(Sounds(data), folder, compose)]


def _compose(block: range) -> None:
    sounds, folder, compose = _composing[0]
    partial = folder / f"{block.start:05d}.partial.npz"
    np.savez(partial, **compose(sounds, block))  # type: ignore[arg-type]
    partial.rename(_file(folder, block))


def _file(folder: Path, block: range) -> Path:
    return folder / f"{block.start:05d}-{len(block)}.npz"
