"""The device's memory: what happens where it runs out, and the way into it.

To a GPU things go through pinned memory, so that the copy is queued behind the work there and nobody waits for it.
Pinned memory is torch's: it is kept for the next transfer, and never before the copy out of it is done.
"""

import ctypes
import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from streamer.errors import EngineError

CPU = torch.device("cpu")

# What CUDA, its libraries and the CPU's allocator say; torch's own class is not raised by all of them.
_DEVICE_SAID = ("cuda error", "cublas_status", "cudnn_status", "device-side assert")
_SAID = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed", "cudaerrormemoryallocation")


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, here or in what this error followed from.

    A capture that is given up raises an error of its own, behind which the want of memory stands.
    """
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        said = str(error).lower() if isinstance(error, RuntimeError) else ""
        if isinstance(error, torch.OutOfMemoryError) or any(words in said for words in _SAID):
            return True
        error = error.__cause__ or error.__context__
    return False


def device_failed(error: BaseException) -> bool:
    """Whether the device itself is the reason: lost, or a kernel failed, after which CUDA does nothing more."""
    said = str(error).lower()
    return any(words in said for words in _DEVICE_SAID)


def hand_back(device: torch.device) -> None:
    """Hand memory that nothing uses any more back to the device, so that it can be given out in other pieces.

    On Linux glibc keeps what a thread has freed for later threads: 70 to 110 MiB after some workers with `nano`.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
    elif sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


@contextmanager
def within_memory(what: str, device: torch.device) -> Iterator[None]:
    """Raise EngineError, one line that says what would be right, where memory runs out inside."""
    try:
        yield
    except RuntimeError as error:
        if not ran_out_of_memory(error):
            raise
        raise EngineError(does_not_hold(what, device, str(error))) from error


def does_not_hold(what: str, device: torch.device, said: str) -> str:
    """What people are told when memory is too small for `what`; `said`: what torch said, of which the first line."""
    detail = said.partition("\n")[0]
    return (
        f"the memory of {device} does not hold {what}: a smaller --model, a narrower --dtype or a device with more "
        f"memory is needed ({detail})"
    )


Numbers = Sequence[float] | Sequence[Sequence[int]]


def send(values: Numbers, device: torch.device) -> Tensor:
    """Numbers as a tensor on `device`: int64 of whole ones, else float32."""
    if device.type != "cuda":
        return torch.tensor(values, device=device)
    return torch.tensor(values, pin_memory=True).to(device, non_blocking=True)


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor as it can be copied to `device` with `non_blocking`: in pinned memory where it has a way to go."""
    if device.type != "cuda" or tensor.is_cuda or tensor.is_pinned():
        return tensor
    return tensor.pin_memory()
