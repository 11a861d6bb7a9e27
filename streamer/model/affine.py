"""A linear layer, laid out for the machine that runs it.

A decoder step at batch 1 is bound by reading weights, an encoder pass by multiplying them: packed once, both are
faster.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional


class Affine:
    """y = x Wᵀ + b. On a CPU in bfloat16 the weight is packed once for oneDNN: half the time of a plain one at batch 1.

    `weight` [out, in] in the compute dtype, `bias` [out] or None. Calling it takes x [..., in] and returns [..., out]
    in the same dtype; `gelu` and `added` do more in the same pass over y. The packed form is what torch's own inductor
    uses (`torch.ops.mkldnn._linear_pointwise`).
    """

    __slots__ = ("bias", "packed", "weight", "weight_bytes")

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        self.bias = bias
        self.weight_bytes = weight.numel() * weight.element_size()  # of the weight, which is read once a call
        self.packed = weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and _packing_works()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, None) if self.packed else weight

    def __call__(self, x: Tensor) -> Tensor:
        """The layer's output [..., out] for x [..., in]."""
        if self.packed:
            y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
            return y
        return functional.linear(x, self.weight, self.bias)

    def gelu(self, x: Tensor) -> Tensor:
        """The exact GELU of the layer's output."""
        if self.packed:
            y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "gelu", [], "none")
            return y
        return functional.gelu(functional.linear(x, self.weight, self.bias))

    def added(self, x: Tensor, residual: Tensor) -> Tensor:
        """`residual` [..., out], contiguous, plus the layer's output."""
        if self.packed:
            y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")
            return y
        return residual + functional.linear(x, self.weight, self.bias)


@cache
def _packing_works() -> bool:
    """Whether this torch was built with oneDNN and this CPU has the bfloat16 instructions that it needs."""
    return torch._C._has_mkldnn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
