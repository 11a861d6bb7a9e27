"""What attention is not to see: added to its scores, 0 or minus infinity (it would turn truth values into that)."""

import torch
from torch import Tensor


def additive_mask(where: Tensor, dtype: torch.dtype) -> Tensor:
    """Minus infinity where it is true, else 0."""
    return torch.zeros(where.shape, dtype=dtype, device=where.device).masked_fill_(where, float("-inf"))


def key_padding_mask(lengths: Tensor, frames: int, dtype: torch.dtype) -> Tensor:
    """The mask [rows, 1, 1, frames] of rows that may attend their first `lengths` [rows] frames."""
    return additive_mask(torch.arange(frames, device=lengths.device) >= lengths[:, None, None, None], dtype)
