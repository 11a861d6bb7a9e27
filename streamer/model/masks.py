"""What attention is not to see: added to its scores, 0 or minus infinity (it would turn truth values into that)."""

import torch
from torch import Tensor


def barred(where: Tensor, dtype: torch.dtype) -> Tensor:
    """Minus infinity where it is true, else 0."""
    return torch.zeros(where.shape, dtype=dtype, device=where.device).masked_fill_(where, float("-inf"))


def deaf_behind(heard: Tensor, frames: int, dtype: torch.dtype) -> Tensor:
    """The mask [rows, 1, 1, frames] of rows that may attend their first `heard` [rows] frames."""
    return barred(torch.arange(frames, device=heard.device) >= heard[:, None, None, None], dtype)
