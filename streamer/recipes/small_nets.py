"""What the recipes of the signal's small networks share: composed scenes that stay in a folder, and the training."""

import multiprocessing as mp
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from streamer.errors import UsageError
from streamer.recipes.synthesis.scenes import Sounds, read_manifest

BLOCK = 200  # scenes in a file

DECAY = 0.998  # of the running average of the weights

Item = TypeVar("Item")
Result = TypeVar("Result")
Net = TypeVar("Net", bound=nn.Module)
Arrays = dict[str, NDArray[Any]]
Compose = Callable[[Sounds, range], Arrays]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides a network. `data`: a folder with `manifest.csv`, whose train split is used."""

    data: Path
    out: Path
    scenes: int
    steps: int
    seed: int = 0
    processes: int = 2


@contextmanager
def blamed(out: Path) -> Iterator[None]:
    """Turn what is missing or cannot be written into UsageError naming the option."""
    try:
        yield
    except FileNotFoundError as error:
        raise UsageError(f"{error.filename}: not found; espeak-ng, flite and the manifest's files are needed") from None
    except OSError as error:
        raise UsageError(f"{error.filename or out}: {error.strerror}") from None
    except subprocess.CalledProcessError as error:
        raise UsageError(f"{error.cmd[0]}: failed ({error.cmd}); it must have the voices of the list") from None


def composed(compose: Compose, numbers: range, data: Path, folder: Path, processes: int, say: Say) -> Arrays:
    """What `compose` makes of the scenes of these numbers, joined; blocks that the folder has are not redone."""
    read_manifest(data)  # a wrong one is told before any process begins
    folder.mkdir(parents=True, exist_ok=True)
    blocks = [numbers[first : first + BLOCK] for first in range(0, len(numbers), BLOCK)]
    wanted = [block for block in blocks if not _file(folder, block).exists()]
    for done, _ in enumerate(as_done(_compose, wanted, processes, _prepare, (data, folder, compose)), 1):
        say(f"{done} of {len(wanted)} blocks of scenes composed")
    stored = [np.load(_file(folder, block)) for block in blocks]
    return {name: np.concatenate([block[name] for block in stored]) for name in stored[0].files}


def fit(
    network: Net,
    loss: Callable[[int], Tensor],
    steps: int,
    *,
    rate: Callable[[int], float],
    weight_decay: float,
    told_every: int,
    say: Say,
) -> Net:
    """The running average of the network's weights after so many steps of AdamW.

    `loss` is that of a step (from 0) with the weights as they are, `rate` its learning rate.
    """
    averaging = torch.optim.swa_utils.get_ema_multi_avg_fn(DECAY)  # type: ignore[no-untyped-call]
    average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=averaging, use_buffers=True)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=weight_decay)
    losses = []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate(step)
        found = loss(step)
        optimiser.zero_grad()
        found.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        average.update_parameters(network)
        losses.append(float(found.detach()))
        if step % told_every == told_every - 1:
            say(f"step {step + 1} of {steps}: loss {np.mean(losses[-told_every:]):.4f}")
    return cast(Net, average.module.eval())


def as_done(
    attempt: Callable[[Item], Result],
    wanted: Sequence[Item],
    processes: int,
    prepare: Callable[..., None],
    given: tuple[Any, ...],
) -> Iterator[tuple[int, Result]]:
    """The place of each item in `wanted` and what its attempt gave, as they are done.

    `prepare(*given)` runs once in every process before its first attempt; with one process, or one item, in this one.
    Raises UsageError when a process was ended from outside. However it ends, what was not begun is left undone.
    """
    if processes == 1 or len(wanted) < 2:
        if wanted:
            prepare(*given)
        yield from enumerate(map(attempt, wanted))
        return
    with ProcessPoolExecutor(processes, mp.get_context("spawn"), prepare, given) as pool:
        places = {pool.submit(attempt, item): place for place, item in enumerate(wanted)}
        try:
            for done in as_completed(places):
                yield places[done], done.result()
        except BrokenProcessPool:
            raise UsageError("--processes: one was ended from outside; give the same command again") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_composing: list[tuple[Sounds, Path, Compose]] = []  # of this process of the pool


def _prepare(data: Path, folder: Path, compose: Compose) -> None:
    _composing[:] = [(Sounds(data), folder, compose)]


def _compose(block: range) -> None:
    sounds, folder, compose = _composing[0]
    partial = folder / f"{block.start:05d}.partial.npz"
    np.savez(partial, **compose(sounds, block))  # type: ignore[arg-type]
    partial.rename(_file(folder, block))


def _file(folder: Path, block: range) -> Path:
    return folder / f"{block.start:05d}-{len(block)}.npz"
