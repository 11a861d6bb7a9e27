"""A linear layer, laid out for the machine that runs it.

A decoder step at batch 1 is bound by reading weights, an encoder pass by multiplying them: packed once, both are
faster.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from streamer.model.eight_bits import EightBitWeight, eight_bits_work

LARGE = 1 << 17  # values of a weight worth 8 bits: all of `tiny`'s; smaller models lie in the processor's cache anyway


class Affine:
    """y = x Wᵀ + b. On a CPU in bfloat16 the weight is packed once for oneDNN: half the time of a plain one at batch 1.

    `weight` [out, in] in the compute dtype, `bias` [out] or None. Calling it takes x [..., in] and returns [..., out]
    in the same dtype; `gelu` and `added` do more in the same pass over y. The packed form is what torch's own inductor
    uses (`torch.ops.mkldnn._linear_pointwise`). `eight_bits`: multiply a large weight in 8 bits, where that works.
    """

    __slots__ = ("_rounded", "bias", "packed", "weight", "weight_bytes")

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, eight_bits: bool = False):
        self.bias = bias
        wanted = eight_bits and weight.device.type == "cpu" and weight.numel() >= LARGE and eight_bits_work()
        self._rounded = EightBitWeight(weight) if wanted else None
        if self._rounded is not None:
            self.weight_bytes, self.packed, self.weight = self._rounded.bytes, False, weight.new_empty(0)
            return
        self.weight_bytes = weight.numel() * weight.element_size()  # of the weight, which is read once a call
        self.packed = weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and _packing_works()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, None) if self.packed else weight

    def __call__(self, x: Tensor) -> Tensor:
        """The layer's output [..., out] for x [..., in]."""
        if self.packed:
            y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
            return y
        return self._plain(x)

    def gelu(self, x: Tensor) -> Tensor:
        """The exact GELU of the layer's output."""
        if self.packed:
            y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "gelu", [], "none")
            return y
        return functional.gelu(self._plain(x))

    def added(self, x: Tensor, residual: Tensor) -> Tensor:
        """`residual` [..., out], contiguous, plus the layer's output."""
        if self.packed:
            y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")
            return y
        return residual + self._plain(x)

    def _plain(self, x: Tensor) -> Tensor:
        if self._rounded is None:
            return functional.linear(x, self.weight, self.bias)
        y = self._rounded(x.reshape(-1, x.shape[-1]))
        return (y if self.bias is None else y.add_(self.bias)).view(*x.shape[:-1], -1)


@cache
def _packing_works() -> bool:
    """Whether this torch was built with oneDNN and this CPU has the bfloat16 instructions that it needs."""
    return torch._C._has_mkldnn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
