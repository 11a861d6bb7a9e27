"""Where a checkpoint lies: which format a path holds, and where what belongs to it lies.

`X.pt` is openai-whisper's; its description is `X.json`, its tagging head `X_at.pth`. A folder is read by its
`model.safetensors` (or the index of its shards: transformers) or `model.bin` (CTranslate2), or by that file if it is
given itself; its description is `streamer.json` in it, its head `at.pth`.
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from streamer.errors import CheckpointError
from streamer.model.formats.assembly import Checkpoint
from streamer.model.formats.ctranslate2 import read_ctranslate2
from streamer.model.formats.openai import read_whisper
from streamer.model.formats.transformers import INDEX, read_transformers

IN_FOLDERS = ("model.safetensors", INDEX, "model.bin")  # the first that is there is read


class Format(Enum):
    """Whose files they are."""

    OPENAI = "openai-whisper"
    CTRANSLATE2 = "CTranslate2"
    TRANSFORMERS = "transformers"


@dataclass(frozen=True, slots=True)
class Place:
    """A checkpoint on disk. `weights`: the file that is read first; the others need not be there."""

    format: Format
    name: str
    weights: Path
    description: Path
    head: Path


def place_of(path: Path) -> Place:
    """The checkpoint that a path means: a file, or a folder that holds one. Raises CheckpointError for other folders.

    Whether a file is what its name says is found out by `read_checkpoint`.
    """
    if path.is_dir():
        return _in_folder(path, _weights_in(path))
    if path.name.endswith((".safetensors", INDEX)):
        return _in_folder(path.parent, path)
    if path.suffix == ".bin":
        return _in_folder(path.parent, path)
    described, head = path.with_suffix(".json"), path.with_name(f"{path.stem}_at.pth")
    return Place(Format.OPENAI, path.stem, path, described, head)


def read_checkpoint(place: Place) -> Checkpoint:
    """The checkpoint at a place. Raises CheckpointError, one line, when it is missing, damaged or odd."""
    if place.format is Format.TRANSFORMERS:
        return read_transformers(place.weights)
    if place.format is Format.CTRANSLATE2:
        return read_ctranslate2(place.weights)
    return Checkpoint(read_whisper(place.weights))


def _in_folder(folder: Path, weights: Path) -> Place:
    kind = Format.CTRANSLATE2 if weights.suffix == ".bin" else Format.TRANSFORMERS
    return Place(kind, folder.resolve().name, weights, folder / "streamer.json", folder / "at.pth")


def _weights_in(folder: Path) -> Path:
    for name in IN_FOLDERS:
        if (folder / name).is_file():
            return folder / name
    said = f"folder {folder} holds no model: {', '.join(IN_FOLDERS[:2])} (transformers) or model.bin (CTranslate2)"
    if (folder / "pytorch_model.bin").is_file():
        raise CheckpointError(f"{said} is needed; save its pytorch_model.bin again with safe_serialization=True")
    single = sorted(folder.glob("*.pt"))
    raise CheckpointError(f"{said} is needed" + (f"; or give {single[0]} itself" if single else ""))
