"""CUDA graph capture, emulated on the CPU: what may not be recorded fails, what is replayed is the operations alone.

As on a GPU: a Python number inside recorded work stays what it was; nothing may be read on the host or brought from it
during a recording; a recording computes no results; a replay writes into the very tensors of the recording, and may
overwrite whatever any other recording made (they share their memory).
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from streamer.model.graphs import WARM_UPS, Outputs

HOST_READS = {  # what waits for the device
    "aten::_local_scalar_dense",
    "aten::_unique",
    "aten::_unique2",
    "aten::allclose",
    "aten::argwhere",
    "aten::bincount",
    "aten::equal",
    "aten::is_nonzero",
    "aten::item",
    "aten::masked_select",
    "aten::nonzero",
    "aten::nonzero_numpy",
    "aten::resolve_neg",  # remains of `tolist` and `numpy` where the tensor is on the CPU anyway
    "aten::unique_consecutive",
    "aten::unique_dim",
}
HOST_CALLS = {"cpu", "numpy", "tolist", "item", "__bool__", "__float__", "__int__", "__index__", "pin_memory"}
FROM_HOST = "aten::lift_fresh"  # how torch brings Python's numbers into a tensor


def reads_host(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether an operation waits for the device, or has a result whose shape depends on values there."""
    name = func.name().partition(".")[0]
    if name == "aten::where":
        return len(args) == 1
    if name in ("aten::index", "aten::index_put", "aten::index_put_"):
        return any(item.dtype in (torch.bool, torch.uint8) for item in tensors(args[1]))
    if name == "aten::repeat_interleave":
        return any(isinstance(item, Tensor) for item in args[1:2])
    return name in HOST_READS


def tensors(*values: Any) -> Iterator[Tensor]:
    return (item for item in tree_leaves(values) if isinstance(item, Tensor))


def place(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


class TapeRecorder:
    """Stands where `CudaRecorder` does. `refuse`: fail on the recording of that number."""

    def __init__(self, refuse: int | None = None) -> None:
        self.tried = self.replays = 0
        self._last: Tape | None = None  # the one whose results stand; all others' are spoilt
        self._refuse = refuse

    def __call__(self, device: torch.device) -> "TapeRecorder":
        return self

    def record(self, work: Callable[[], Outputs]) -> tuple[Callable[[], object], Outputs]:
        self.tried += 1
        seen = Seen()
        for _ in range(WARM_UPS):
            with seen:
                work()
            seen.end_run()
        tape = Tape(seen)
        with NoHost(), tape:
            outputs = work()
        if self._refuse == self.tried:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture\nmore lines")
        tape.spoil()

        def replay() -> None:
            self.replays += 1
            if self._last is not None and self._last is not tape:
                self._last.spoil()
            self._last = tape
            tape.replay()

        return replay, outputs


class Seen(TorchDispatchMode):
    """What work uses that it did not make itself. All is kept, so that no place in memory is given out twice."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: set[int] = set()
        self._made: set[int] = set()
        self._kept: list[Any] = []

    def end_run(self) -> None:
        self._made.clear()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self.outside |= {place(item) for item in tensors(args, kwargs)} - self._made
        result = func(*args, **kwargs)
        self._made |= {place(item) for item in tensors(result)} - self.outside
        self._kept.append((args, kwargs, result))
        return result


class NoHost(TorchFunctionMode):
    """Refuses what Python asks of a tensor's values."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in HOST_CALLS:
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing: {func.__name__}")
        return func(*args, **(kwargs or {}))


class Tape(TorchDispatchMode):
    """The operations of one recording, with their tensors."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self._seen = seen
        self._made: dict[int, Tensor] = {}
        self._calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if reads_host(func, args):
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing: {func.name()}")
        given = {place(item) for item in tensors(args, kwargs)}
        if func.name() == FROM_HOST or given - self._made.keys() - self._seen.outside:
            raise RuntimeError(f"Cannot copy between CPU and CUDA tensors during CUDA graph capture: {func.name()}")
        result = func(*args, **kwargs)
        results = list(tensors(result))
        if func._schema.is_mutable:
            self._calls.append((func, args, kwargs, []))
        elif not given & {place(item) for item in results}:  # else it is another view of what is there
            self._calls.append((func, args, kwargs, results))
            self._made |= {place(item): item for item in results}
        return result

    def replay(self) -> None:
        for func, args, kwargs, results in self._calls:
            for kept, new in zip(results, tensors(func(*args, **kwargs)), strict=False):
                kept.copy_(new)

    def spoil(self) -> None:
        for item in self._made.values():
            item.fill_(float("nan") if item.is_floating_point() else item.dtype == torch.bool or 99_999_999)


class HostReads(TorchDispatchMode):
    """Counts what waits for the device, and what is brought to it otherwise than by `sending`."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.brought = self.sent = 0
        self._sending = False

    def sending(self, send: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def counted(*args: Any) -> Tensor:
            self._sending = True
            self.sent += 1
            try:
                return send(*args)
            finally:
                self._sending = False

        return counted

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if reads_host(func, args):
            self.reads.append(func.name())
        if func.name() == FROM_HOST and not self._sending:
            self.brought += 1
        return func(*args, **(kwargs or {}))
