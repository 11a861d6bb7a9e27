"""The training loop of a head on cached taps: steps, schedule, weight averaging, and a state that survives a kill.

The state on disk is replaced by one rename, so that a killed run goes on from a whole one; since all draws come from
seed, epoch and step (`sampling`), the weights are then those of a run that was never killed, bit for bit. With several
processes each takes its share of every batch and the gradients are summed.
"""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from streamer.errors import CheckpointError
from streamer.model.head import HeadModule, HeadShape
from streamer.model.tensor_files import load_safely
from streamer.training.head_settings import RecipeSection
from streamer.training.processes import Processes
from streamer.training.progress import progress_bar
from streamer.training.sampling import Part, Sampler


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
    run: Run, sampler: Sampler, recipe: RecipeSection, state: Path, group: Processes, *, progress: bool = False
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
