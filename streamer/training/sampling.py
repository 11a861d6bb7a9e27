"""Which windows an epoch sees, and how each is cut, mixed and masked.

Everything random is drawn from the seed, the epoch and the item's place in it, never from a running generator: a run
that was killed goes on with the same draws, and several processes draw what one would. The recipe is Whisper-AT's
(Gong et al., arXiv 2307.03183, and its training code): class-balanced sampling, mixup of features, time masks, label
smoothing; ours are the short spans.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamer.model.head import CLASSES
from streamer.model.whisper import span_steps
from streamer.training.features import TapSet


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What is done to a window before the head sees it; see `configs/train_head.yaml` for the meaning of each."""

    spans_s: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0)
    mixup: float = 0.5
    mixup_beta: float = 10.0
    time_mask_share: float = 0.4
    label_smoothing: float = 0.1


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


class Sampler:
    """Draws batches from a `TapSet`: one epoch is as many draws as there are windows."""

    def __init__(
        self, taps: TapSet, augmentation: Augmentation, *, batch: int, seed: int, balanced: bool = True
    ) -> None:
        self._taps, self._augmentation, self._batch, self._seed = taps, augmentation, batch, seed
        count = len(taps)
        uniform = np.full(count, 1 / count)
        weights = balanced_weights([window.clip.labels for window in taps.windows]) if balanced else uniform
        self._cumulative = np.cumsum(weights)
        self._spans = [max(1, span_steps(span)) for span in augmentation.spans_s]

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        return max(1, len(self._taps) // self._batch)

    def draw(self, epoch: int, step: int, rank: int = 0, count: int = 1) -> list[Part]:
        """The part of a batch that belongs to process `rank` of `count`, items of one length together."""
        by_steps: dict[int, list[tuple[Tensor, Tensor]]] = {}
        for place in range(rank, self._batch, count):
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
        if random.random() < self._augmentation.mixup:
            other = self._pick(random)
            share = float(random.beta(self._augmentation.mixup_beta, self._augmentation.mixup_beta))
            partner = _repeated(self._cut(other, taps.shape[1], random), taps.shape[1])
            taps = share * taps + (1 - share) * partner
            target = share * target + (1 - share) * self._target(other)
        return _masked(taps, self._augmentation.time_mask_share, random), target

    def _pick(self, random: np.random.Generator) -> int:
        return min(int(np.searchsorted(self._cumulative, random.random())), len(self._taps) - 1)

    def _cut(self, index: int, steps: int, random: np.random.Generator) -> Tensor:
        """`steps` of a window's steps from a random one on, or all that it has."""
        has = self._taps.windows[index].steps
        steps = min(steps, has)
        return self._taps.taps(index, int(random.integers(has - steps + 1)), steps)

    def _target(self, index: int) -> Tensor:
        """0.9 for the labels, 0.1 / 527 for the others (with a smoothing of 0.1), as the paper's code has it."""
        smoothing = self._augmentation.label_smoothing
        target = torch.full((CLASSES,), smoothing / CLASSES)
        target[list(self._taps.windows[index].clip.labels)] = 1 - smoothing
        return target


def _repeated(taps: Tensor, steps: int) -> Tensor:
    """A shorter partner, again and again up to the length of what it is mixed with."""
    times = -(-steps // taps.shape[1])
    return taps.repeat(1, times, 1)[:, :steps]


def _masked(taps: Tensor, share: float, random: np.random.Generator) -> Tensor:
    """Zeros over a random run of at most `share` of the steps (10 of 25)."""
    steps = taps.shape[1]
    length = int(random.integers(int(share * steps) + 1))
    first = int(random.integers(steps - length + 1))
    if length:
        taps = taps.clone()
        taps[:, first : first + length] = 0
    return taps
