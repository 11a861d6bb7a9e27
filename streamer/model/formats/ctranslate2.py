"""CTranslate2's format: a folder with `model.bin` and `config.json`, as faster-whisper and WhisperX use it.

`model.bin`, version 6 (github.com/OpenNMT/CTranslate2, python/ctranslate2/specs/model_spec.py), little endian: version
u32; name of the kind of model; revision u32; number of variables u32; per variable its name, rank u8, sizes u32, type
u8, length u32 and data; number of aliases u32; per alias its name and that of a variable. Text is its length u16 and so
many bytes, the last a zero. An integer weight has a `_scale` beside it, one number or one per row, by which it was
multiplied before it was rounded.
"""

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from streamer.errors import CheckpointError
from streamer.model.formats.assembly import AlignmentHeads, Checkpoint, assemble, measured_dims
from streamer.model.tensor_files import read_description

VERSION = 6
MAX_RANK = 4
_TYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)  # by their number

# CTranslate2's names and openai-whisper's. Matrices that belong together lie one under the other in one variable.
_BLOCK = {
    "self_attention/layer_norm": ("attn_ln",),
    "self_attention/linear_0": ("attn.query", "attn.key", "attn.value"),
    "self_attention/linear_1": ("attn.out",),
    "attention/layer_norm": ("cross_attn_ln",),
    "attention/linear_0": ("cross_attn.query",),
    "attention/linear_1": ("cross_attn.key", "cross_attn.value"),
    "attention/linear_2": ("cross_attn.out",),
    "ffn/layer_norm": ("mlp_ln",),
    "ffn/linear_0": ("mlp.0",),
    "ffn/linear_1": ("mlp.2",),
}
_AROUND = {
    "encoder/conv1": "encoder.conv1",
    "encoder/conv2": "encoder.conv2",
    "encoder/layer_norm": "encoder.ln_post",
    "decoder/embeddings": "decoder.token_embedding",
    "decoder/layer_norm": "decoder.ln",
}
_POSITIONS = {
    "encoder/position_encodings/encodings": "encoder.positional_embedding",
    "decoder/position_encodings/encodings": "decoder.positional_embedding",
}
_LEAVES = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
_PROJECTION = "decoder/projection/weight"  # Whisper's output weights are its embeddings


class _Config(BaseModel):
    """What is read of `config.json`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    alignment_heads: AlignmentHeads | None = None


class _DamagedError(Exception):
    """What is wrong with the bytes of a file."""


def read_ctranslate2(weights: Path) -> Checkpoint:
    """The Whisper in a `model.bin`, with the alignment heads of the `config.json` beside it.

    Integer weights become float32, others keep their type. Raises CheckpointError with one line when it is missing,
    damaged, or another kind of model.
    """
    source = f"checkpoint {weights}"
    config = read_description(weights.with_name("config.json"), _Config)
    variables = read_variables(weights)
    tensors = _renamed(variables, source)
    audio_heads, text_heads = (_number(variables, f"{part}/num_heads") for part in ("encoder", "decoder"))
    module = assemble(tensors, measured_dims(tensors, source, audio_heads, text_heads), source)
    return Checkpoint(module, config.alignment_heads or None)


def read_variables(path: Path) -> dict[str, Tensor]:
    """All variables of a `model.bin` by name, aliases too; integer weights that have a scale as float32.

    Raises CheckpointError when it is missing, damaged, or no Whisper.
    """
    try:
        with path.open("rb") as file:
            return _read(file, path.stat().st_size)
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {path} does not exist") from error
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}") from error
    except _DamagedError as error:
        raise CheckpointError(f"checkpoint {path} is damaged or no CTranslate2 model: {error}") from error


@dataclass(frozen=True, slots=True)
class _Stored:
    """Where a variable's data lie; they are known to lie within the file."""

    sizes: tuple[int, ...]
    dtype: torch.dtype
    offset: int


class _Cursor:
    """Reads forward through a file and never past its end."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def number(self, kind: str) -> int:
        """One unsigned number: B, H or I as in `struct`."""
        (found,) = struct.unpack(f"<{kind}", self._take(struct.calcsize(f"<{kind}")))
        return int(found)

    def text(self) -> str:
        found = self._take(self.number("H"))
        if not found.endswith(b"\0") or not found.isascii():
            raise _DamagedError(f"a name is expected at byte {self._file.tell() - len(found)}")
        return found[:-1].decode("ascii")

    def skip(self, count: int) -> int:
        """Pass over bytes; returns where they begin."""
        begin = self._file.tell()
        self._check(count)
        self._file.seek(count, 1)
        return begin

    def _take(self, count: int) -> bytes:
        self._check(count)
        return self._file.read(count)

    def _check(self, count: int) -> None:
        missing = self._file.tell() + count - self._size
        if missing > 0:
            raise _DamagedError(f"it ends {missing} bytes early")


def _read(file: BinaryIO, size: int) -> dict[str, Tensor]:
    """Every length is held against the file's size before anything is allocated."""
    cursor = _Cursor(file, size)
    if (version := cursor.number("I")) != VERSION:
        raise _DamagedError(f"its version is {version}; {VERSION} is needed")
    if (kind := cursor.text()) != "WhisperSpec":
        raise _DamagedError(f"it is a {kind or 'nameless model'}; a WhisperSpec is needed")
    cursor.number("I")  # the revision of WhisperSpec: 3 brought num_heads
    stored = dict(_variable(cursor) for _ in range(cursor.number("I")))
    aliases = {cursor.text(): cursor.text() for _ in range(cursor.number("I"))}
    found = {name: _loaded(file, place) for name, place in stored.items()}
    for name, tensor in list(found.items()):
        if (scale := found.pop(f"{name}_scale", None)) is not None:
            found[name] = _unscaled(name, tensor, scale)
    for alias, name in aliases.items():
        if name not in found:
            raise _DamagedError(f"`{alias}` stands for `{name}`, which is not there")
        found[alias] = found[name]
    return found


def _variable(cursor: _Cursor) -> tuple[str, _Stored]:
    name = cursor.text()
    sizes = tuple(cursor.number("I") for _ in range(cursor.number("B")))
    number, length = cursor.number("B"), cursor.number("I")
    if len(sizes) > MAX_RANK or 0 in sizes:
        raise _DamagedError(f"`{name}` has the sizes {list(sizes[: MAX_RANK + 1])}")
    if number >= len(_TYPES):
        raise _DamagedError(f"`{name}` has the unknown type {number}")
    dtype = _TYPES[number]
    if length != math.prod(sizes) * dtype.itemsize:
        raise _DamagedError(f"`{name}` has {length} bytes, which {list(sizes)} of {dtype} do not need")
    return name, _Stored(sizes, dtype, cursor.skip(length))


def _loaded(file: BinaryIO, place: _Stored) -> Tensor:
    tensor = torch.empty(place.sizes, dtype=place.dtype)
    file.seek(place.offset)
    if file.readinto(tensor.view(-1).view(torch.uint8).numpy()) != tensor.nbytes:  # type: ignore[attr-defined]
        raise _DamagedError("it was cut off while it was read")
    return tensor


def _unscaled(name: str, tensor: Tensor, scale: Tensor) -> Tensor:
    rows = len(tensor) if tensor.ndim else 1
    if tensor.is_floating_point() or not scale.is_floating_point() or scale.numel() not in (1, rows):
        raise _DamagedError(f"`{name}_scale` has {scale.numel()} numbers of {scale.dtype} for {list(tensor.shape)}")
    return tensor.float() / scale.float().reshape(-1, *[1] * (tensor.ndim - 1))


def _renamed(variables: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Tensors by openai-whisper's names; what is no weight is left out."""
    found: dict[str, Tensor] = {}
    for name, tensor in variables.items():
        owner, _, leaf = name.rpartition("/")
        block = re.fullmatch(r"(encoder|decoder)/layer_(\d+)/(.+)", owner)
        if block is not None and leaf in _LEAVES and block[3] in _BLOCK:
            parts = [f"{block[1]}.blocks.{block[2]}.{part}" for part in _BLOCK[block[3]]]
            found |= _parted(parts, _LEAVES[leaf], tensor, f"{source}: `{name}`")
        elif owner in _AROUND and leaf in _LEAVES:
            found[f"{_AROUND[owner]}.{_LEAVES[leaf]}"] = tensor
        elif name in _POSITIONS:
            found[_POSITIONS[name]] = tensor
        elif tensor.is_floating_point() and name != _PROJECTION:
            raise CheckpointError(f"{source} has the unknown `{name}`")
    projection, embeddings = variables.get(_PROJECTION), variables.get("decoder/embeddings/weight")
    if projection is embeddings or projection is None or embeddings is None:  # the same by an alias, mostly
        return found
    if not torch.equal(projection, embeddings):
        raise CheckpointError(f"{source}: `{_PROJECTION}` differs from the embeddings; in a Whisper they are the same")
    return found


def _parted(parts: list[str], leaf: str, tensor: Tensor, source: str) -> dict[str, Tensor]:
    if tensor.ndim < 1 or len(tensor) % len(parts):
        raise CheckpointError(f"{source} has shape {list(tensor.shape)}, which has no {len(parts)} equal parts")
    split = zip(parts, tensor.chunk(len(parts)), strict=True)
    # A bias of the keys adds the same to all of a query's scores, so that softmax takes it away: Whisper has none.
    return {f"{part}.{leaf}": piece for part, piece in split if not (part.endswith(".key") and leaf == "bias")}


def _number(variables: Mapping[str, Tensor], name: str) -> int | None:
    found = variables.get(name)
    return int(found) if found is not None and found.numel() == 1 else None
