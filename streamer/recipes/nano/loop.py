"""The training loop of `nano`: batches in, one optimiser step each, saved states that a killed run goes on from.

The state of step N holds everything that decides steps after N, so a resumed run equals an uninterrupted one. Several
processes have their own part of every batch each, and gradients are averaged: one thread each beats one process with as
many threads on a busy machine, for they wait for each other once a step, not at every matrix product.
"""

import json
import multiprocessing as mp
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import Parameter
from whisper.model import ModelDimensions as Dimensions

from streamer.errors import EngineError
from streamer.recipes.nano.bank import Bank
from streamer.recipes.nano.batches import Batch, Mix, Plan, stream
from streamer.recipes.nano.compose import Recipe
from streamer.recipes.nano.mels import log_mel, masked
from streamer.recipes.nano.network import Nano, attention_loss, tag_loss, token_loss
from streamer.recipes.nano.settings import LongWindows, Schedule, Settings
from streamer.recipes.nano.vocabulary import N_VOCAB, Faults, Vocabulary
from streamer.recipes.nano.voices import ipa

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Phones:
    """The phones of each word, numbered from 1 (0 is the CTC blank)."""

    words: dict[str, tuple[int, ...]]
    count: int


class Optimiser:
    """Muon for the matrices of the transformer blocks, AdamW for everything else, as one.

    Muon (Jordan et al., 2024) makes every step of a matrix orthogonal, so that all its directions are learned equally
    fast; in the steps that an hour allows it gets further than AdamW alone. Every parameter is in exactly one group.
    """

    def __init__(self, model: Nano, schedule: Schedule):
        blocks, head, tables, vectors = list[Parameter](), list[Parameter](), list[Parameter](), list[Parameter]()
        for name, value in model.named_parameters():
            if name.startswith("head."):
                head.append(value)
            elif value.dim() <= 1:
                vectors.append(value)
            elif ".blocks." in name:
                blocks.append(value)
            else:
                tables.append(value)
        decay = schedule.weight_decay
        groups = [
            {"params": tables, "weight_decay": decay, "speed": 1.0},
            {"params": vectors, "weight_decay": 0.0, "speed": 1.0},
            {"params": head, "weight_decay": decay, "speed": schedule.head_speed},
        ]
        self._adam = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), fused=True)
        self._muon = torch.optim.Muon(
            [{"params": blocks, "speed": schedule.matrix_speed}], weight_decay=decay, adjust_lr_fn="match_rms_adamw"
        )

    def step(self, rate: float) -> None:
        """One step along the gradients at a learning rate, which every group multiplies by its `speed`."""
        for part in (self._adam, self._muon):
            for group in part.param_groups:
                group["lr"] = rate * group["speed"]
            part.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._adam.zero_grad(set_to_none=True)
        self._muon.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"adam": self._adam.state_dict(), "muon": self._muon.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self._adam.load_state_dict(state["adam"])
        self._muon.load_state_dict(state["muon"])


@dataclass(slots=True)
class Run:
    """What a training run carries from step to step; `average` is the model that is shipped."""

    model: Nano
    average: Nano
    optimiser: Optimiser
    step: int


def phones_of(words: tuple[str, ...]) -> Phones:
    """Phones from espeak-ng's American English."""
    spelled = {word: ipa(word) for word in words}
    letters = sorted({letter for text in spelled.values() for letter in text})
    number = {letter: index + 1 for index, letter in enumerate(letters)}
    return Phones({word: tuple(number[letter] for letter in text) for word, text in spelled.items()}, len(letters))


def plan_of(settings: Settings) -> Plan:
    """The batches that the settings ask for."""
    part, long = settings.composition, settings.schedule.long
    recipe = Recipe(speech=part.speech, alarm=part.alarm, sound=part.sound, noisy=part.noisy)
    return Plan(
        seed=settings.schedule.seed,
        audio_s=part.audio_s,
        lengths_s=part.lengths_s,
        short_steps=part.short_steps,
        long_steps=part.long_steps,
        mix=Mix(part.shares, part.padded, part.timestamps, part.late, recipe),
        last_from=settings.schedule.steps,
        last=Mix(long.shares, long.padded, long.timestamps, long.late, replace(recipe, flite=long.flite)),
        easy=Recipe(speech=0.97, alarm=0.03, sound=0.08, noisy=0.2, dense=1.0, plain=0.9, recorded=0.75),
        faults=Faults(),
    )


def start(settings: Settings, vocabulary: Vocabulary, phones: Phones) -> Run:
    """A fresh run, or the saved one in the output folder."""
    torch.set_num_threads(settings.schedule.threads)
    torch.manual_seed(settings.schedule.seed)
    size = settings.network
    dims = Dimensions(
        80, 1500, size.width, size.encoder_heads, size.encoder_layers,
        N_VOCAB, 448, size.width, size.decoder_heads, size.decoder_layers,
    )  # fmt: skip
    model, average = Nano(dims, vocabulary, phones.count), Nano(dims, vocabulary, phones.count)
    average.load_state_dict(model.state_dict())
    run = Run(model, average, Optimiser(model, settings.schedule), 0)
    saved = settings.out / "state.pt"
    if saved.is_file():
        state = torch.load(saved, weights_only=True)
        run.model.load_state_dict(state["model"])
        run.average.load_state_dict(state["average"])
        run.optimiser.load_state_dict(state["optimiser"])
        run.step = int(state["step"])
    return run


def save(run: Run, folder: Path) -> None:
    """Write the state so that a kill at any moment leaves the old or the new one."""
    state = {
        "step": run.step,
        "model": run.model.state_dict(),
        "average": run.average.state_dict(),
        "optimiser": run.optimiser.state_dict(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "state.tmp")
    os.replace(folder / "state.tmp", folder / "state.pt")


def learning_rate(schedule: Schedule, step: int) -> float:
    """A linear rise, then half a cosine down to the final rate; once more for the long windows."""
    part: Schedule | LongWindows = schedule
    if step >= schedule.steps:
        step, part = step - schedule.steps, schedule.long
    if step < part.warmup:
        return part.learning_rate * (step + 1) / part.warmup
    done = min(1.0, (step - part.warmup) / max(1, part.steps - part.warmup))
    low = schedule.final_rate
    return low + (part.learning_rate - low) * 0.5 * (1 + float(np.cos(np.pi * done)))


def all_steps(schedule: Schedule) -> int:
    """The steps of both stages."""
    return schedule.steps + schedule.long.steps


def train(
    run: Run, bank: Bank, vocabulary: Vocabulary, phones: Phones, settings: Settings, report: Report, rank: int = 0
) -> None:
    """From the run's step to the schedule's end on this process's part of the batches; rank 0 saves on the way."""
    schedule = settings.schedule
    settings.out.mkdir(parents=True, exist_ok=True)
    batches = stream(
        bank,
        vocabulary,
        plan_of(settings),
        first=run.step,
        last=all_steps(schedule),
        workers=settings.composition.workers,
        part=rank,
    )
    parent = os.getppid()
    began, sums = time.monotonic(), dict[str, float]()
    with (settings.out / "log.jsonl").open("a") as log:
        for batch in batches:
            check_parent(parent)
            losses = step(run, batch, vocabulary, phones, schedule)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
            if rank:
                continue
            if run.step % 20 == 0:
                means = {name: round(value / 20, 4) for name, value in sums.items()}
                sums.clear()
                line = {"step": run.step, "seconds": round(time.monotonic() - began, 1), **means}
                log.write(json.dumps(line) + "\n")
                log.flush()
                report(" ".join(f"{key} {value}" for key, value in line.items()))
            if run.step % schedule.save_every == 0 or run.step == all_steps(schedule):
                save(run, settings.out)


def step(run: Run, batch: Batch, vocabulary: Vocabulary, phones: Phones, schedule: Schedule) -> dict[str, float]:
    """One optimiser step on one batch; its losses by name."""
    run.model.train()
    random = np.random.default_rng([schedule.seed, batch.step, 1])
    louder = np.where(random.random(len(batch.audio)) < 0.3, random.uniform(0, 1.5, len(batch.audio)), 0.0)
    mel = log_mel(torch.from_numpy(batch.audio), padding=batch.padding, louder=torch.from_numpy(louder).float())
    mel = masked(mel, random, share=schedule.spec_mask)
    with torch.autocast("cpu", torch.bfloat16, enabled=schedule.bfloat16):
        losses = _losses(run.model, mel, batch, vocabulary, phones)
    part = schedule.early if batch.step < schedule.steps // 2 else schedule.late
    weights = {
        "token": 1.0,
        "heard": part.align,
        "told": part.align * 0.5,
        "ctc": part.ctc,
        "spoken": part.spoken,
        "tags": part.tags,
    }
    total = torch.stack([losses[name] * weight for name, weight in weights.items()]).sum()
    run.optimiser.zero_grad()
    torch.autograd.backward(total)
    average_gradients(run.model)
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    run.optimiser.step(learning_rate(schedule, batch.step))
    run.step = batch.step + 1
    keep = min(schedule.average, (1 + run.step) / (20 + run.step))
    with torch.no_grad():
        torch._foreach_lerp_(list(run.average.parameters()), list(run.model.parameters()), 1 - keep)
    return {"loss": total.item(), "norm": norm.item(), **{name: value.item() for name, value in losses.items()}}


def _losses(model: Nano, mel: Tensor, batch: Batch, vocabulary: Vocabulary, phones: Phones) -> dict[str, Tensor]:
    features, taps = model.encode(mel, torch.from_numpy(batch.first))
    written = model.write(torch.from_numpy(batch.tokens), features)
    tags = []
    for span in batch.spans:
        index = torch.from_numpy(span.first)[:, None] + torch.arange(span.steps)
        part = taps.transpose(1, 2)[torch.arange(len(taps))[:, None], index].transpose(1, 2)
        tags.append(tag_loss(model.head(part), torch.from_numpy(span.labels), torch.from_numpy(span.sure)))
    heard = features[:, : batch.spoken.shape[1]]
    spoken = model.spoken(heard).float().flatten(0, 1)
    return {
        "token": token_loss(written.logits, torch.from_numpy(batch.targets), vocabulary),
        "heard": attention_loss(written.aligned, torch.from_numpy(batch.heard)),
        "told": attention_loss(written.placed, torch.from_numpy(batch.told)),
        "ctc": _ctc(model.phones(heard).float(), batch, phones),
        "spoken": torch.nn.functional.cross_entropy(spoken, torch.from_numpy(batch.spoken).flatten()),
        "tags": torch.stack(tags).mean(),
    }


def _ctc(scores: Tensor, batch: Batch, phones: Phones) -> Tensor:
    """The phones of the window's words, per phone."""
    spelled = [[phone for word in words for phone in phones.words[word]] for words in batch.words]
    lengths = torch.tensor([len(phone) for phone in spelled])
    targets = torch.tensor([phone for item in spelled for phone in item], dtype=torch.long)
    frames = torch.full((len(spelled),), scores.shape[1])
    loss = torch.nn.functional.ctc_loss(
        scores.log_softmax(dim=-1).transpose(0, 1), targets, frames, lengths, reduction="none", zero_infinity=True
    )
    return loss.sum() / (lengths.sum() + 5 * len(spelled))


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
