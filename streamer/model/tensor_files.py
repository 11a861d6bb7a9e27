"""Reading files of tensors that others made: nothing in them is ever executed, and every refusal is one line."""

import json
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from streamer.errors import CheckpointError

Description = TypeVar("Description", bound=BaseModel)

WEIGHT_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

# What `torch.load` raises on files that are cut off, altered, or something else altogether.
_UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ImportError,
    OverflowError,
    MemoryError,
    struct.error,
    pickle.PickleError,
    zipfile.BadZipFile,
)


def load_safely(path: Path, what: str) -> Any:
    """The content of a PyTorch file, on the CPU, tensors and plain values only (`weights_only`).

    `what` names the file's part in errors ("checkpoint", "head"). Raises CheckpointError.
    """
    try:
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):  # about odd files, refused below
            _check_sizes(file, f"{what} {path}")
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{what} {path} does not exist") from error
    except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise CheckpointError(f"{what} {path} cannot be read: {error.strerror}") from error
    except _UNREADABLE as error:
        raise CheckpointError(f"{what} {path} is damaged or not a PyTorch file of plain tensors") from error


def _check_sizes(file: BinaryIO, source: str) -> None:
    """Refuse an archive that unpacks to more than it is, before anything of it is unpacked: PyTorch packs nothing."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > file.seek(0, os.SEEK_END):
            raise CheckpointError(f"{source} is packed: it would grow to {unpacked} bytes; save it with torch.save")
    file.seek(0)


def read_tensors(path: Path, what: str) -> dict[str, Tensor]:
    """A PyTorch file that is one flat state dict of finite floating-point tensors. Raises CheckpointError."""
    content = load_safely(path, what)
    return checked_tensors(content, f"{what} {path}")


def checked_tensors(content: Any, source: str) -> dict[str, Tensor]:
    """`content` as a state dict; raises CheckpointError unless it is one, all floating-point and finite."""
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{source} holds no tensors by name: it is a {type(content).__name__}")
    held: dict[int, int] = {}  # what is really there, by storage
    claimed: dict[tuple[int, ...], int] = {}  # what is made of it: the same tensor under two names counts once
    for key, tensor in content.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{source}: `{key}` is a {type(tensor).__name__}; a tensor is needed")
        if tensor.dtype not in WEIGHT_TYPES or tensor.layout != torch.strided:
            raise CheckpointError(f"{source}: `{key}` is {tensor.dtype}; dense floating-point weights are needed")
        storage = tensor.untyped_storage()
        if tensor.nbytes > storage.nbytes():  # expanded: one number that claims to be gigabytes
            raise CheckpointError(f"{source}: `{key}` claims {tensor.nbytes} bytes and holds {storage.nbytes()}")
        held[storage.data_ptr()] = storage.nbytes()
        claimed[storage.data_ptr(), int(tensor.storage_offset()), *tensor.shape, *tensor.stride()] = tensor.nbytes
    total, there = sum(claimed.values()), sum(held.values())
    if total > there:  # views of one another, of which each would be copied
        raise CheckpointError(f"{source} claims {total} bytes of tensors and holds {there}")
    for key, tensor in content.items():
        if tensor.numel() and not bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all()):  # NaN wins in both
            raise CheckpointError(f"{source}: `{key}` has values that are not finite; the file is damaged")
    return dict(content)


def read_description(path: Path, kind: type[Description]) -> Description:
    """The JSON beside a weights file, validated; all defaults when there is none. Raises CheckpointError."""
    if not path.exists():
        return kind()
    try:
        return kind.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "its content"
        raise CheckpointError(f"description {path}: {field}: {first['msg']}".replace("\n", " ")) from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"description {path} is not readable JSON: {error}".replace("\n", " ")) from error


def check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> None:
    """Raise CheckpointError, naming the first offenders, unless keys and shapes are exactly the expected ones."""
    missing = [key for key in expected if key not in tensors]
    unknown = [key for key in tensors if key not in expected]
    if missing or unknown:
        said = [f"lacks {_some(missing)}"] if missing else []
        said += [f"has the unknown {_some(unknown)}"] if unknown else []
        raise CheckpointError(f"{source} {' and '.join(said)}")
    for key, tensor in tensors.items():
        if tensor.shape != expected[key].shape:
            raise CheckpointError(
                f"{source}: `{key}` has shape {list(tensor.shape)} where {list(expected[key].shape)} belongs"
            )


def cast_weights(module: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Freeze a module's weights on a device in a type; LayerNorms become float32, buffers keep their type."""
    for part in module.modules():
        target = torch.float32 if isinstance(part, nn.LayerNorm) else dtype
        for parameter in part.parameters(recurse=False):
            parameter.requires_grad_(False)
            parameter.data = parameter.data.to(device=device, dtype=target)
        for name, buffer in part.named_buffers(recurse=False):
            part._buffers[name] = buffer.to(device=device)


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - 2} more" if len(keys) > 2 else ""
    return ", ".join(f"`{key}`" for key in keys[:2]) + more
