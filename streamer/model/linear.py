"""Linear layers, laid out for the machine that runs them.

A decoder step at batch 1 is bound by reading weights, above all the vocabulary's: half the bytes, half the time. An
encoder pass is bound by multiplying. Packed once, both are faster.

CPUs that multiply 8-bit integers fast (VNNI) and have no bfloat16 of their own get products of those: weights are
rounded once, symmetrically, with a scale for each output; what they are multiplied with is rounded row by row as it
comes, so a row's result does not depend on its neighbours. About 1 % of a product's size is lost.
"""

from collections.abc import Callable
from functools import cache
from time import perf_counter

import torch
from torch import Tensor
from torch.nn import functional

from streamer.model.machine_facts import kernel_works

SLOWER = 8.0  # times as long as a plain product: a kernel is missing, no noise of a busy machine explains that
LARGE = 1 << 17  # values of a weight worth 8 bits: all of `tiny`'s; smaller models lie in the processor's cache anyway
FEW_ROWS = 4  # up to so many rows the reading of the weight costs more than the multiplying


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
