"""The processes of one training run, alone or several of `torchrun` (gloo on CPUs, NCCL on GPUs), and its progress."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from streamer.errors import UsageError

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among `count`; `rank` 0 writes files and speaks. `device`: what it computes on."""

    rank: int
    count: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """`tensor` summed over all processes, in place; the same bits in each of them."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def processes(device: str = "auto") -> Iterator[Processes]:
    """Join the processes that `torchrun` started (its variables RANK, WORLD_SIZE, LOCAL_RANK), or be alone."""
    count, rank = (_variable(name, default) for name, default in (("WORLD_SIZE", 1), ("RANK", 0)))
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if cuda and not torch.cuda.is_available():
        raise UsageError("--compute cuda: this machine has no CUDA that PyTorch can use: give cpu or auto")
    target = (
        torch.device("cuda", _variable("LOCAL_RANK", 0) % torch.cuda.device_count()) if cuda else torch.device("cpu")
    )
    if count == 1:
        yield Processes(0, 1, target)
        return
    if cuda:
        torch.cuda.set_device(target)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Processes(rank, count, target)
    finally:
        dist.destroy_process_group()


def _variable(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdigit():
        raise UsageError(f"environment variable {name} is {value!r}: torchrun sets it to a number")
    return int(value)


@contextmanager
def progress_bar(what: str, total: int, *, shown: bool) -> Iterator[Advance]:
    """A bar for `total` pieces of work; call what it gives with the number of pieces that were just done."""
    if not shown or total == 0:
        yield _nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def _nothing(count: int) -> None:
    """Nobody watches."""
