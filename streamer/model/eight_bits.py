"""Products in 8-bit integers, for CPUs that multiply those fast (VNNI) and have no bfloat16 of their own.

Weights are rounded once, symmetrically, with a scale for each output; what they are multiplied with is rounded row by
row as it comes, so a row's result does not depend on its neighbours. About 1 % of a product's size is lost.
"""

from collections.abc import Callable
from functools import cache
from time import perf_counter

import torch
from torch import Tensor
from torch.nn import functional

from streamer.model.machine_facts import kernel_works

SLOWER = 8.0  # times as long as a plain product: a kernel is missing, no noise of a busy machine explains that


class EightBitWeight:
    """A weight [out, in] in 8 bits; called, it gives x Wᵀ, float32 [n, out], for x [n, in] of any floating type."""

    __slots__ = ("_scales", "_weight", "_zeros", "bytes")

    def __init__(self, weight: Tensor) -> None:
        self.bytes = weight.numel()
        self._scales = weight.abs().amax(dim=1).float().clamp_min(1e-12) / 127
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        rounded = (weight / self._scales[:, None]).round_().clamp_(-127, 127).to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(rounded, None)

    def __call__(self, x: Tensor) -> Tensor:
        """x Wᵀ. What is not finite stays so."""
        peaks = x.float().abs().amax(dim=1, keepdim=True).clamp_min_(1e-12)
        # As int8 and then by its highest bit to uint8: converting to uint8 takes four times as long.
        rounded = (x * (127 / peaks)).round_().to(torch.int8).view(torch.uint8).bitwise_xor_(128)
        return product(rounded, self._weight, self._scales, self._zeros).mul_(peaks)


def product(x: Tensor, packed: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
    """x [n, in] uint8, standing for (x - 128) / 127, times packed int8 weights [out, in] with a scale each: float32
    [n, out].

    Unsigned, because that is what VNNI multiplies: on processors without AMX a signed x takes a thousand times as long.
    """
    y: Tensor = torch.ops.onednn.qlinear_pointwise(
        x, 1 / 127, 128, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return y


@cache
def eight_bits_work() -> bool:
    """Whether this torch multiplies 8-bit integers on this CPU, right and not far slower than plain products."""
    return kernel_works("products of 8-bit integers", _eight_bits_tried)


def _eight_bits_tried() -> bool:
    x = torch.arange(0, 256, 2, dtype=torch.uint8)[None]
    weight = torch.full((4096, x.shape[1]), -127, dtype=torch.int8)
    scales, zeros = torch.full((4096,), 1 / 127), torch.zeros(4096, dtype=torch.int64)
    try:
        if not torch.cpu._is_vnni_supported():
            return False
        packed = torch.ops.onednn.qlinear_prepack(weight, None)
        y = product(x, packed, scales, zeros)
    except (RuntimeError, AttributeError):
        return False
    right = torch.allclose(y, -(x.float() - 128).sum() / 127 * torch.ones(4096), atol=1e-3)
    return right and keeps_up(lambda: product(x, packed, scales, zeros), x.float(), weight.float())


def keeps_up(call: Callable[[], object], x: Tensor, weight: Tensor) -> bool:
    """Whether `call` takes at most SLOWER times as long as the plain product of `x` [n, in] and `weight` [out, in].

    Where oneDNN has no kernel for a processor it falls back on loops that take hundreds of times as long.
    """
    return _seconds(call) <= SLOWER * _seconds(lambda: functional.linear(x, weight))


def _seconds(call: Callable[[], object], times: int = 5) -> float:
    """The least of so many times."""
    taken = []
    for _ in range(times):
        begun = perf_counter()
        call()
        taken.append(perf_counter() - begun)
    return min(taken)
