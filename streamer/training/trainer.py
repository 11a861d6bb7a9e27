"""The training of a head on cached taps: what an epoch sees, steps, schedule, averages, a state that survives a kill.

Everything random is drawn from the seed, the epoch and the item's place in it, never from a running generator, and the
state on disk is replaced by one rename: a run that was killed goes on to the weights of one that was not, bit for bit.
Several processes draw what one would: each takes its share of every batch and the gradients are summed. The recipe is
Whisper-AT's (Gong et al., arXiv 2307.03183, and its training code): class-balanced sampling, mixup of features, time
masks, label smoothing; ours are the short spans.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from streamer.errors import CheckpointError
from streamer.model.head import CLASSES, HeadModule, HeadShape
from streamer.model.tensor_files import load_safely
from streamer.model.whisper import span_steps
from streamer.training.features import TapSet
from streamer.training.head_settings import RecipeSection
from streamer.training.processes import Processes, progress_bar


@dataclass(frozen=True, slots=True)
class Part:
    """The items of a batch that have equally many steps: taps [n, layers, steps, d] and targets [n, 527]."""

    taps: Tensor
    targets: Tensor


def balanced_weights(labels: Sequence[tuple[int, ...]]) -> NDArray[np.float64]:
    """The chance of each item to be drawn [n]: the sum of 1000 / (count + 0.01) over its labels, normalised.

    An item without labels (nothing that is known sounds in it) is drawn as if "nothing" were a class.
    """
    counts = np.zeros(CLASSES + 1)
    classes = [item or (CLASSES,) for item in labels]
    for item in classes:
        counts[list(item)] += 1
    weights = np.array([(1000 / (counts[list(item)] + 0.01)).sum() for item in classes])
    return np.asarray(weights / weights.sum())


class Batches(Protocol):
    """What draws the batches of a training."""

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        ...

    def draw(self, epoch: int, step: int, rank: int = 0, count: int = 1) -> list[Part]:
        """The part of a batch that belongs to process `rank` of `count`, items of one length together."""
        ...


class Sampler:
    """Draws batches from a `TapSet`: one epoch is as many draws as there are windows."""

    def __init__(self, taps: TapSet, recipe: RecipeSection, seed: int) -> None:
        self._taps, self._recipe, self._seed = taps, recipe, seed
        count = len(taps)
        uniform = np.full(count, 1 / count)
        weights = balanced_weights([window.clip.labels for window in taps.windows]) if recipe.balanced else uniform
        self._cumulative = np.cumsum(weights)
        self._spans = [max(1, span_steps(span)) for span in recipe.spans_s]

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        return max(1, len(self._taps) // self._recipe.batch)

    def draw(self, epoch: int, step: int, rank: int = 0, count: int = 1) -> list[Part]:
        """The part of a batch that belongs to process `rank` of `count`, items of one length together."""
        by_steps: dict[int, list[tuple[Tensor, Tensor]]] = {}
        for place in range(rank, self._recipe.batch, count):
            taps, target = self._item(np.random.default_rng((self._seed, epoch, step, place)))
            by_steps.setdefault(taps.shape[1], []).append((taps, target))
        return [
            Part(torch.stack([taps for taps, _ in items]), torch.stack([target for _, target in items]))
            for _, items in sorted(by_steps.items())
        ]

    def _item(self, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        index = self._pick(random)
        steps = self._spans[int(random.integers(len(self._spans)))]
        taps, target = self._cut(index, steps, random), self._target(index)
        if random.random() < self._recipe.mixup:
            other = self._pick(random)
            share = float(random.beta(self._recipe.mixup_beta, self._recipe.mixup_beta))
            partner = _repeated(self._cut(other, taps.shape[1], random), taps.shape[1])
            taps = share * taps + (1 - share) * partner
            target = share * target + (1 - share) * self._target(other)
        return masked(taps, self._recipe.time_mask_share, random), target

    def _pick(self, random: np.random.Generator) -> int:
        return min(int(np.searchsorted(self._cumulative, random.random())), len(self._taps) - 1)

    def _cut(self, index: int, steps: int, random: np.random.Generator) -> Tensor:
        """`steps` of a window's steps from a random one on, or all that it has."""
        has = self._taps.windows[index].steps
        steps = min(steps, has)
        return self._taps.taps(index, int(random.integers(has - steps + 1)), steps)

    def _target(self, index: int) -> Tensor:
        """0.9 for the labels, 0.1 / 527 for the others (with a smoothing of 0.1), as the paper's code has it."""
        smoothing = self._recipe.label_smoothing
        target = torch.full((CLASSES,), smoothing / CLASSES)
        target[list(self._taps.windows[index].clip.labels)] = 1 - smoothing
        return target


def _repeated(taps: Tensor, steps: int) -> Tensor:
    """A shorter partner, again and again up to the length of what it is mixed with."""
    times = -(-steps // taps.shape[1])
    return taps.repeat(1, times, 1)[:, :steps]


def masked(taps: Tensor, share: float, random: np.random.Generator) -> Tensor:
    """Zeros over a random run of at most `share` of the steps (10 of 25)."""
    steps = taps.shape[1]
    length = int(random.integers(int(share * steps) + 1))
    first = int(random.integers(steps - length + 1))
    if length:
        taps = taps.clone()
        taps[:, first : first + length] = 0
    return taps


@dataclass(slots=True)
class Run:
    """A head in training. `epoch` (from 1) and `step` (in it, from 0) come next; `averaged`: epochs in `average`.

    `epoch_loss`: sum over the steps of this epoch; `losses`: mean of each epoch.
    """

    head: HeadModule
    optimiser: torch.optim.Adam
    average: dict[str, Tensor]
    identity: str
    averaged: int = 0
    epoch: int = 1
    step: int = 0
    epoch_loss: float = 0.0
    losses: list[float] = field(default_factory=list)


def begin(shape: HeadShape, recipe: RecipeSection, seed: int, identity: str, device: torch.device) -> Run:
    """A fresh head with weights drawn from the seed. `identity`: a hash of all that the result depends on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = HeadModule(shape).to(device).train()
    optimiser = torch.optim.Adam(
        head.parameters(), lr=recipe.rate, betas=recipe.betas, weight_decay=recipe.weight_decay, foreach=False
    )
    average = {name: torch.zeros_like(value) for name, value in head.state_dict().items()}
    return Run(head, optimiser, average, identity)


def train(
    run: Run, sampler: Batches, recipe: RecipeSection, state: Path, group: Processes, *, progress: bool = False
) -> None:
    """Train until the last epoch, keeping the state at `state` after each and every `save_every_steps` in between."""
    with progress_bar("training", recipe.epochs * sampler.batches, shown=progress and group.leads) as advance:
        advance((run.epoch - 1) * sampler.batches + run.step)
        unsaved = torch.zeros(1, device=group.device)
        while run.epoch <= recipe.epochs:
            for setting in run.optimiser.param_groups:
                setting["lr"] = rate(recipe, run.epoch, (run.epoch - 1) * sampler.batches + run.step)
            parts = sampler.draw(run.epoch, run.step, group.rank, group.count)
            unsaved += _step(run, parts, recipe.batch, group)
            run.step += 1
            advance(1)
            ends = run.step == sampler.batches
            if ends or run.step % recipe.save_every_steps == 0:
                run.epoch_loss += float(group.sum(unsaved))
                unsaved.zero_()
                if ends:
                    _end_epoch(run, recipe)
                if group.leads:
                    save(run, state)
                group.wait()


def rate(recipe: RecipeSection, epoch: int, step: int) -> float:
    """The learning rate of a step (counted from 0 over all epochs) in an epoch (counted from 1)."""
    decays = max(0, (epoch - recipe.decay_from) // recipe.decay_every + 1) if epoch >= recipe.decay_from else 0
    warmth = min(1.0, (step + 1) / recipe.warmup_steps) if recipe.warmup_steps else 1.0
    return recipe.rate * recipe.decay**decays * warmth


def _step(run: Run, parts: list[Part], batch: int, group: Processes) -> Tensor:
    """One step on this process's share of a batch; its share of the mean loss."""
    run.optimiser.zero_grad(set_to_none=False)
    loss = torch.zeros(1, device=group.device)
    for part in parts:
        logits = run.head(part.taps.to(group.device))
        loss = loss + F.binary_cross_entropy_with_logits(logits, part.targets.to(group.device), reduction="sum")
    loss = loss / (batch * run.head.shape.classes)
    if parts:
        torch.autograd.backward(loss)
    for parameter in run.head.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        group.sum(parameter.grad)
    run.optimiser.step()
    return loss.detach()


def _end_epoch(run: Run, recipe: RecipeSection) -> None:
    if run.epoch >= recipe.average_from:
        run.averaged += 1
        for name, value in run.head.state_dict().items():
            run.average[name].lerp_(value, 1 / run.averaged)
    run.losses.append(round(run.epoch_loss / run.step, 7))
    run.epoch, run.step, run.epoch_loss = run.epoch + 1, 0, 0.0


def averaged_head(run: Run) -> HeadModule:
    """The head with the mean of the weights of the last epochs, on the CPU."""
    head = HeadModule(run.head.shape)
    head.load_state_dict({name: value.cpu() for name, value in run.average.items()})
    return head.eval()


def save(run: Run, path: Path) -> None:
    """Write the state to go on from, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "identity": run.identity,
        "epoch": run.epoch,
        "step": run.step,
        "epoch_loss": run.epoch_loss,
        "averaged": run.averaged,
        "losses": run.losses,
        "head": run.head.state_dict(),
        "optimiser": run.optimiser.state_dict(),
        "average": run.average,
    }
    fresh = path.with_name(f"{path.name}.part")
    torch.save(content, fresh)
    os.replace(fresh, path)


def resume(run: Run, path: Path) -> bool:
    """Go on from a state, if there is one.

    Raises CheckpointError when it is damaged or belongs to other settings or data.
    """
    if not path.exists():
        return False
    content = load_safely(path, "training state")
    if not isinstance(content, dict) or content.get("identity") != run.identity:
        raise CheckpointError(
            f"training state {path} belongs to other settings, weights or data: delete it to begin again, or give "
            "another `out`"
        )
    run.head.load_state_dict(content["head"])
    run.optimiser.load_state_dict(content["optimiser"])
    run.average = {name: value.to(run.average[name].device) for name, value in content["average"].items()}
    run.epoch, run.step, run.epoch_loss = content["epoch"], content["step"], content["epoch_loss"]
    run.averaged, run.losses = content["averaged"], list(content["losses"])
    return True


def identity_of(*parts: Any) -> str:
    """The hash of what a result depends on."""
    return hashlib.sha256("\n".join(str(part) for part in parts).encode()).hexdigest()
