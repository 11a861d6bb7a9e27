"""The decoder's layers and its vocabulary, laid out for the machine that runs them.

A decoder step at batch 1 is bound by reading weights, above all the vocabulary's: half the bytes, half the time.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from streamer.model.affine import LARGE, Affine
from streamer.model.eight_bits import EightBitWeight, eight_bits_work, keeps_up
from streamer.model.machine_facts import kernel_works

FEW_ROWS = 4  # up to so many rows the reading of the weight costs more than the multiplying


class Projection(Affine):
    """A linear layer that, packed and large, is also kept in 8 bits: few rows read that, in two thirds of the time.

    Only the weight is rounded (symmetric, a scale for each output), not what it is multiplied with.
    """

    __slots__ = ("_eight", "_scales")

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__(weight, bias)
        self._eight: Tensor | None = None
        if self.packed and weight.numel() >= LARGE and _few_rows_work():
            self._eight, self._scales = _in_eight_bits(weight)

    def __call__(self, x: Tensor) -> Tensor:
        """The layer's output [rows, out] for x [rows, in]."""
        few = self._few(x)
        return super().__call__(x) if few is None else few

    def gelu(self, x: Tensor) -> Tensor:
        """The exact GELU of the layer's output."""
        few = self._few(x)
        return super().gelu(x) if few is None else functional.gelu(few)

    def added(self, x: Tensor, residual: Tensor) -> Tensor:
        """`residual` [rows, out] plus the layer's output."""
        few = self._few(x)
        return super().added(x, residual) if few is None else few.add_(residual)

    def bytes_read(self, rows: int) -> int:
        """The bytes of the weight that a call with so many rows reads."""
        return self.weight_bytes if self._eight is None or rows > FEW_ROWS else self._eight.numel()

    def _few(self, x: Tensor) -> Tensor | None:
        """The layer's output by its 8 bits; None where these are not for so many rows, or there are none."""
        if self._eight is None or len(x) > FEW_ROWS:
            return None
        assert self.bias is not None
        return torch._weight_int8pack_mm(x, self._eight, self._scales).add_(self.bias)


class Vocabulary:
    """Logits of hidden states: x Eᵀ in float32. On a CPU in bfloat16 E is kept in 8 bits: a third of the time; in
    float32 as well where `near` is enough: a third of the time for one row, a sixth for four.

    What 8 bits get wrong (some hundredths of the logits' spread) is for the caller to mend: it computes the few logits
    that matter again, see `Decoder.exact_logits`. Only in float32 and without 8 bits is there nothing to mend
    (`exact`); with 8 bits it is more than a rounding (`coarse`).
    """

    __slots__ = ("_affine", "_eight", "coarse", "exact", "weight_bytes")

    def __init__(self, embedding: Tensor, *, near: bool = False):
        low = embedding.dtype == torch.bfloat16 or (near and embedding.dtype == torch.float32)
        eight_bits = embedding.device.type == "cpu" and low and eight_bits_work()
        self.coarse = eight_bits
        self.exact = embedding.dtype == torch.float32 and not eight_bits
        self._affine = None if eight_bits else Affine(embedding)
        self.weight_bytes = embedding.numel() * (1 if eight_bits else embedding.element_size())
        self._eight = EightBitWeight(embedding) if eight_bits else None

    def __call__(self, x: Tensor) -> Tensor:
        """Logits float32 [n, vocabulary] of x [n, width]."""
        if self._eight is not None:
            return self._eight(x)
        assert self._affine is not None
        return self._affine(x).float()


def log_mass(logits: Tensor) -> Tensor:
    """The logarithm of the sum of exp(logits) over the last dimension, in half the passes of `logsumexp`.

    Not finite where a row is of nothing but minus infinities.
    """
    peak = logits.amax(dim=-1, keepdim=True)
    mass: Tensor = (logits - peak).exp_().sum(dim=-1).log_().add_(peak[..., 0])
    return mass


def _in_eight_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight [out, in] as int8, and the scale [out] of each row, in the weight's own type."""
    scales = (weight.abs().amax(dim=1).float() / 127).clamp_min(1e-12).to(weight.dtype)
    return (weight.float() / scales.float()[:, None]).round_().clamp_(-127, 127).to(torch.int8), scales


@cache
def _few_rows_work() -> bool:
    """Whether this torch multiplies bfloat16 rows by a weight in 8 bits on this CPU, right and not far slower."""
    return kernel_works("bfloat16 rows by a weight in 8 bits", _few_rows_tried)


def _few_rows_tried() -> bool:
    x, weight = torch.linspace(-2, 2, 64).bfloat16()[None], torch.linspace(-1, 1, 4096 * 64).view(4096, 64).bfloat16()
    rounded, scales = _in_eight_bits(weight)
    try:
        y = torch._weight_int8pack_mm(x, rounded, scales)
    except (RuntimeError, AttributeError):
        return False
    right = torch.allclose(y.float(), x.float() @ weight.float().T, atol=0.1, rtol=0.03)
    return right and keeps_up(lambda: torch._weight_int8pack_mm(x, rounded, scales), x, weight)
