"""The tagging head's own stage: more training on frozen taps, then a calibration on the validation part.

The backbone is taken as it ships (rounded to float16) and its taps are computed once. Calibration is Platt's mapping
(score = sigmoid(scale * logit + offset)); classes with little validation data share one mapping, classes that were
never trained are mapped to zero.
"""

import copy
import multiprocessing as mp
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import whisper
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from streamer.events import SAMPLE_RATE
from streamer.recipes.nano.bank import Bank
from streamer.recipes.nano.batches import SPANS, span
from streamer.recipes.nano.compose import CLASSES, SPEECH, Recipe, Window, compose
from streamer.recipes.nano.hearing import encode
from streamer.recipes.nano.network import TagHead, tag_loss
from streamer.recipes.synthesis import alarms

AUDIBLE_DB = -5.0  # what is drowned in noise cannot be judged: it would only teach doubt
RECIPES = (
    Recipe(speech=0.0, alarm=0.0, sound=1.0, noisy=0.3, drowned_db=AUDIBLE_DB),
    Recipe(speech=0.4, alarm=0.15, sound=0.9, noisy=0.5, drowned_db=AUDIBLE_DB),
    Recipe(speech=0.3, alarm=0.9, sound=0.3, noisy=0.6, drowned_db=AUDIBLE_DB),
    Recipe(speech=0.6, alarm=0.3, sound=0.4, noisy=0.7, drowned_db=AUDIBLE_DB),
    Recipe(speech=0.0, alarm=0.0, sound=1.0, noisy=0.1, drowned_db=10.0, plain=0.7),  # next to nothing but the sound
)
LENGTHS_S = (2.0, 3.2, 5.0, 5.0, 10.0, 10.0, 20.0)
SMOOTHED = 0.97  # what a positive label counts as
NEVER_A, NEVER_B = 0.0, -20.0  # a class that was never trained


@dataclass(frozen=True, slots=True)
class Taps:
    """The taps of windows of one length [N, layers, steps, d] (float16), and the windows for their labels."""

    values: Tensor
    windows: list[Window]


def cache(
    model: whisper.Whisper, bank: Bank, *, groups: int, seed: int, of: int = 16, processes: int = 1
) -> list[Taps]:
    """Taps of `groups` times `of` composed windows; the windows' audio is dropped. The processes are forked."""
    compute = partial(_group, model, bank, seed, of)
    if processes == 1:
        found = list(map(compute, range(groups)))
    else:
        with mp.get_context("fork").Pool(processes, _inherited.append, (compute,)) as pool:
            found = pool.map(_compute, range(groups), chunksize=4)
    return [Taps(torch.from_numpy(values), windows) for values, windows in found]


_Group = tuple[NDArray[np.float16], list[Window]]
_inherited: list[Callable[[int], _Group]] = []  # in a process of the pool: what computes a group


def _compute(number: int) -> _Group:
    return _inherited[0](number)


def _group(model: whisper.Whisper, bank: Bank, seed: int, of: int, number: int) -> _Group:
    random = np.random.default_rng([seed, number])
    count = int(random.choice(np.array(LENGTHS_S)) * SAMPLE_RATE)
    windows = [compose(bank, count, random, RECIPES[number % len(RECIPES)]) for _ in range(of)]
    taps = encode(model, [window.audio for window in windows])[1]
    empty = np.zeros(0, np.float32)
    return taps.half().numpy(), [replace(window, audio=empty) for window in windows]


def train_head(
    head: TagHead,
    taps: list[Taps],
    *,
    steps: int,
    seed: int,
    rate: float = 2e-3,
    report: Callable[[str], None] = lambda _: None,
) -> TagHead:
    """`head` trained on for `steps` on cached taps; returns the average of its last half."""
    random = np.random.default_rng(seed)
    head = copy.deepcopy(head).train()
    average = copy.deepcopy(head)
    optimiser = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    losses = []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50) * (0.5 + 0.5 * np.cos(np.pi * step / steps))
        logits, labels, sure = _judgement(head, [taps[i] for i in random.integers(0, len(taps), 4)], random)
        loss = tag_loss(logits, labels * SMOOTHED, sure)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(loss.item())
        keep = 0.0 if step < steps // 2 else 0.995
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(head.parameters()), 1 - keep)
        if step % 200 == 199:
            report(f"head step {step + 1} loss {np.mean(losses[-200:]):.4f}")
    return average.eval()


def _judgement(head: TagHead, groups: list[Taps], random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels and certainty of one random span of each window."""
    logits, labels, sure = [], [], []
    for group in groups:
        total = group.values.shape[2]
        steps = int(random.choice(np.array([n for n in SPANS if n <= total])))
        first = random.integers(0, total - steps + 1, len(group.windows))
        first[: len(first) // 2] = total - steps
        index = torch.from_numpy(first)[:, None] + torch.arange(steps)
        part = group.values.transpose(1, 2)[torch.arange(len(first))[:, None], index].transpose(1, 2).float()
        truth = span(group.windows, steps, first.astype(np.int64))
        keep = torch.rand(part.shape[:1], generator=torch.Generator().manual_seed(int(random.integers(0, 2**31)))) < 0.5
        noise = torch.randn(part.shape, generator=torch.Generator().manual_seed(int(random.integers(0, 2**31))))
        part = part + 0.1 * noise * part.std() * keep[:, None, None, None]
        logits.append(head(part))
        labels.append(torch.from_numpy(truth.labels))
        sure.append(torch.from_numpy(truth.sure))
    return torch.cat(logits), torch.cat(labels), torch.cat(sure)


def trained_classes(bank: Bank) -> NDArray[np.int64]:
    """The AudioSet indices that there are examples of."""
    found = {label for clip in bank.sounds for label in clip.labels} | {SPEECH}
    found |= {label for kind in alarms.KINDS.values() for label in kind.labels}
    return np.array(sorted(found), np.int64)


@torch.inference_mode()
def calibrate(
    head: TagHead, taps: list[Taps], trained: NDArray[np.int64], *, seed: int, rounds: int = 6
) -> dict[str, Any]:
    """Thresholds [527] and the Platt mapping, in the form of `nano_at.json`, from validation taps.

    A class with 60 positive judgements or more has its own mapping, pulled towards the shared one.
    """
    random = np.random.default_rng(seed)
    parts = [_judgement(head, [group], random) for _ in range(rounds) for group in taps]
    logits, labels, sure = (torch.cat([part[i] for part in parts]).numpy() for i in range(3))
    a, b = np.full(CLASSES, NEVER_A), np.full(CLASSES, NEVER_B)
    thresholds = np.full(CLASSES, 0.5)
    chosen = sure[:, trained] > 0
    shared = _platt(logits[:, trained][chosen], labels[:, trained][chosen], (1.0, 0.0))
    for index in trained:
        valid = sure[:, index] > 0
        truth = labels[valid, index]
        own = truth.sum() >= 60
        a[index], b[index] = _platt(logits[valid, index], truth, shared) if own else shared
        if own:
            scores = 1 / (1 + np.exp(-(a[index] * logits[valid, index] + b[index])))
            thresholds[index] = _best_threshold(scores, truth)
    return {
        "thresholds": [round(float(value), 3) for value in thresholds],
        "calibration": {"scale": [round(float(v), 4) for v in a], "offset": [round(float(v), 4) for v in b]},
    }


def _platt(logits: NDArray[np.float32], truth: NDArray[np.float32], prior: tuple[float, float]) -> tuple[float, float]:
    """a and b of sigmoid(a * logit + b), with a mild penalty on leaving `prior`."""
    offset = prior[0] * logits + prior[1]
    fit = LogisticRegression(C=10.0, max_iter=500).fit(offset[:, None], truth > 0.5)
    slope, shift = max(float(fit.coef_[0, 0]), 0.05), float(fit.intercept_[0])
    return slope * prior[0], slope * prior[1] + shift


def _best_threshold(scores: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """The threshold of 0.3 to 0.7 with the best F1."""

    def f1(threshold: float) -> float:
        over = scores >= threshold
        hits = float((over & (truth > 0.5)).sum())
        return 2 * hits / max(1.0, float(over.sum() + truth.sum()))

    return max((round(float(value), 2) for value in np.arange(0.3, 0.71, 0.05)), key=f1)
