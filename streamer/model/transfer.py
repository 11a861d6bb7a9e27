"""The way to the GPU: through pinned memory, so that the copy is queued behind the work there and nobody waits for it.

Pinned memory is torch's: it is kept for the next transfer, and never before the copy out of it is done.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

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
