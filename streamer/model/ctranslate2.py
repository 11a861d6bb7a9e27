"""CTranslate2's `model.bin`, version 6 (github.com/OpenNMT/CTranslate2, python/ctranslate2/specs/model_spec.py).

Little endian: version u32; name of the kind of model; revision u32; number of variables u32; per variable its name,
rank u8, sizes u32, type u8, length u32 and data; number of aliases u32; per alias its name and that of a variable. Text
is its length u16 and so many bytes, the last a zero. An integer weight has a `_scale` beside it, one number or one per
row, by which it was multiplied before it was rounded.
"""

import math
import struct
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from streamer.errors import CheckpointError

VERSION = 6
MAX_RANK = 4
_TYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)  # by their number


class _DamagedError(Exception):
    """What is wrong with the bytes of a file."""


def read_variables(path: Path) -> dict[str, Tensor]:
    """All variables of a `model.bin` by name, aliases too; integer weights that have a scale as float32.

    Raises CheckpointError when it is missing, damaged, or no Whisper.
    """
    try:
        with path.open("rb") as file:
            return _variables(_Reader(file, path.stat().st_size))
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {path} does not exist") from error
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}") from error
    except _DamagedError as error:
        raise CheckpointError(f"checkpoint {path} is damaged or no CTranslate2 model: {error}") from error


class _Reader:
    """Reads forward through a file; every length is held against its size before room is made."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def take(self, count: int) -> bytearray:
        missing = self._file.tell() + count - self._size
        if missing > 0:
            raise _DamagedError(f"it ends {missing} bytes early")
        found = bytearray(count)
        if self._file.readinto(found) != count:  # type: ignore[attr-defined]
            raise _DamagedError("it was cut off while it was read")
        return found

    def number(self, kind: str) -> int:
        """One unsigned number: B, H or I as in `struct`."""
        return int(struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))[0])

    def text(self) -> str:
        found = self.take(self.number("H"))
        if not found.endswith(b"\0") or not found.isascii():
            raise _DamagedError(f"a name is expected at byte {self._file.tell() - len(found)}")
        return found[:-1].decode("ascii")


def _variables(reader: _Reader) -> dict[str, Tensor]:
    if (version := reader.number("I")) != VERSION:
        raise _DamagedError(f"its version is {version}; {VERSION} is needed")
    if (kind := reader.text()) != "WhisperSpec":
        raise _DamagedError(f"it is a {kind or 'nameless model'}; a WhisperSpec is needed")
    reader.number("I")  # the revision of WhisperSpec: 3 brought num_heads
    found: dict[str, Tensor] = {}
    for _ in range(reader.number("I")):
        name = reader.text()
        sizes = tuple(reader.number("I") for _ in range(reader.number("B")))
        number, length = reader.number("B"), reader.number("I")
        if len(sizes) > MAX_RANK or 0 in sizes:
            raise _DamagedError(f"`{name}` has the sizes {list(sizes[: MAX_RANK + 1])}")
        if number >= len(_TYPES):
            raise _DamagedError(f"`{name}` has the unknown type {number}")
        dtype = _TYPES[number]
        if length != math.prod(sizes) * dtype.itemsize:
            raise _DamagedError(f"`{name}` has {length} bytes, which {list(sizes)} of {dtype} do not need")
        found[name] = torch.frombuffer(reader.take(length), dtype=dtype).view(sizes)
    for name, tensor in list(found.items()):
        if (scale := found.pop(f"{name}_scale", None)) is None:
            continue
        if tensor.is_floating_point() or not scale.is_floating_point() or scale.numel() not in (1, *tensor.shape[:1]):
            said = f"{scale.numel()} numbers of {scale.dtype} for {list(tensor.shape)}"
            raise _DamagedError(f"`{name}_scale` has {said}")
        found[name] = tensor.float() / scale.float().reshape(-1, *[1] * (tensor.ndim - 1))
    for alias, name in [(reader.text(), reader.text()) for _ in range(reader.number("I"))]:
        if name not in found:
            raise _DamagedError(f"`{alias}` stands for `{name}`, which is not there")
        found[alias] = found[name]
    return found
