"""Training by several processes on one machine, each with its own part of every batch; gradients are averaged.

One thread each beats one process with as many threads on a busy machine: they wait for each other once a step, not at
every matrix product.
"""

import multiprocessing as mp
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from streamer.errors import EngineError


def launch(count: int, work: Callable[[int], None]) -> None:
    """Run `work(rank)` in `count` forked processes that know each other. Raises EngineError when one of them fails."""
    if count == 1:
        work(0)
        return
    context = mp.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        processes = [context.Process(target=_join, args=(rank, count, meeting, work)) for rank in range(count)]
        for process in processes:
            process.start()
        try:
            for process in processes:
                process.join()
        finally:
            for process in processes:
                process.terminate()
    if any(process.exitcode for process in processes):
        raise EngineError("a training process ended early; run the command again to go on from the saved state")


def _join(rank: int, count: int, meeting: Path, work: Callable[[int], None]) -> None:
    dist.init_process_group("gloo", init_method=meeting.as_uri(), rank=rank, world_size=count)
    work(rank)
    dist.destroy_process_group()


def check_parent(parent: int) -> None:
    """Raise EngineError in a process whose `parent` is gone: the training was killed."""
    if os.getppid() != parent:
        raise EngineError("the training was killed; run the command again to go on from the saved state")


def average_gradients(model: nn.Module) -> None:
    """Replace all gradients by their mean over the processes; nothing happens where there is only one."""
    if not dist.is_initialized():
        return
    parameters = [value for value in model.parameters() if value.requires_grad]
    gradients = [value.grad if value.grad is not None else torch.zeros_like(value) for value in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    place = 0
    for value in parameters:
        value.grad = flat[place : place + value.numel()].view_as(value).clone()
        place += value.numel()
