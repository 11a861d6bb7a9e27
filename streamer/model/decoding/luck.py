"""Drawing tokens at a temperature, the same ones for the same seed."""

from collections.abc import Sequence

import torch
from torch import Tensor

TINY = torch.finfo(torch.float32).tiny


def luck(rows: Sequence[tuple[torch.Generator | None, float]], vocabulary: int) -> Tensor | None:
    """What to add to the logits [rows, vocabulary] so that the largest of each row is a draw; None: no row draws.

    `rows`: what each is drawn with (None: nothing is added) and its temperature. Gumbel's noise: the largest of
    log p + G is distributed as p (Maddison, Tarlow and Minka, arXiv 1411.0030). On the CPU, whatever the device is.
    """
    if not any(chance for chance, _ in rows):
        return None
    noise = torch.zeros(len(rows), vocabulary)
    for row, (chance, temperature) in zip(noise, rows, strict=True):
        if chance is not None:
            row.exponential_(generator=chance).clamp_min_(TINY).log_().mul_(-temperature)
    return noise
