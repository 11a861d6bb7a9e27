"""How the network learns: windows of 4.1 s that end anywhere in the scenes, half of them while a siren sounds.

What sounded a moment ago or has only just begun is left out: nobody could say. Every so often the windows without a
siren that are most like one are looked for, and shown more often from then on.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from streamer.model.checkpoint import has_native_bfloat16
from streamer.recipes.sirens.network import TrainedNet
from streamer.recipes.sirens.scenes import RECORDED
from streamer.recipes.small_nets import Say, fit
from streamer.sound.patterns.sirens import BANDS, CLASSES, STEPS
from streamer.sound.patterns.spectrum import FLOOR_DB

BATCH, POSITIVE, EARLY, HARD = 96, 28, 16, 19  # windows; with a siren, with one that has just begun, hard ones without
BEGUN_STEPS, EARLY_STEPS, ENDED_STEPS = 10, 45, 16  # a third of a second, one and a half, half a second
FIRST_STEP = STEPS // 4
RATE, LAST_RATE, WARMUP = 2e-3, 1e-5, 200
NEGATIVE_WEIGHT = 1.5
MINED_EVERY, MINED_FROM, MINED_ABOVE, MINED_KEPT = 1500, 12_000, 0.03, 6000
VALIDATION = 12  # one scene in so many is held out
SHIFT, HIDDEN_CHANCE, HIDDEN_BANDS = 2, 0.3, 4
TOLD_EVERY = 500

Places = NDArray[np.int32]  # [n, 2]: scene, step at which the window ends


@dataclass(frozen=True, slots=True)
class Bank:
    """Scenes: levels [scenes, steps, BANDS] in dB, classes [scenes, steps]."""

    levels: NDArray[np.float16]
    classes: NDArray[np.int8]

    def places(self) -> tuple[Places, Places, Places]:
        """Where windows end: with a siren, with one that has just begun, without; validation left out."""
        scenes, steps = self.classes.shape
        since = np.zeros((scenes, steps), np.int32)
        for step in range(1, steps):
            same = self.classes[:, step] == self.classes[:, step - 1]
            since[:, step] = np.where(same, since[:, step - 1] + 1, 0)
        never = np.cumsum(self.classes > 0, axis=1) == 0
        clear = np.where(self.classes > 0, since >= BEGUN_STEPS, (since >= ENDED_STEPS) | never)
        clear[:, :FIRST_STEP] = False
        clear[::VALIDATION] = False
        found = np.argwhere(clear).astype(np.int32)
        sounding = self.classes[found[:, 0], found[:, 1]] > 0
        early = sounding & (since[found[:, 0], found[:, 1]] < EARLY_STEPS)
        return found[sounding], found[early], found[~sounding]

    def windows(self, places: Places) -> Tensor:
        """Levels [n, STEPS, BANDS] that end there; nothing before a scene's beginning."""
        found = np.full((len(places), STEPS, BANDS), FLOOR_DB, np.float32)
        for row, (scene, step) in enumerate(places):
            known = min(int(step) + 1, STEPS)
            found[row, STEPS - known :] = self.levels[scene, step + 1 - known : step + 1]
        return torch.from_numpy(found)


def train(bank: Bank, steps: int, seed: int = 0, say: Say = lambda line: None) -> TrainedNet:
    """A network after so many steps: the running average of its weights."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    sounding, early, silent = bank.places()
    hard = silent[:0]
    network, fast = TrainedNet(), has_native_bfloat16()

    def loss(step: int) -> Tensor:
        nonlocal hard
        if step and step % MINED_EVERY == 0:
            some = _some(silent, MINED_FROM, random)
            hard = np.concatenate([hard, some[heard(network, bank, some) > MINED_ABOVE]])[-MINED_KEPT:]
        parts = [_some(sounding, POSITIVE, random), _some(early, EARLY, random)]
        parts += [_some(hard, HARD, random)] if len(hard) else []
        parts += [_some(silent, BATCH - sum(map(len, parts)), random)]
        places = np.concatenate(parts)
        classes = torch.from_numpy(bank.classes[places[:, 0], places[:, 1]].astype(np.int64))
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            logits = network(_varied(bank.windows(places), random))
        return _loss(logits.float(), classes)

    def rate(step: int) -> float:
        return float(RATE * min(1, step / WARMUP) * (0.5 + 0.5 * np.cos(np.pi * step / steps)) + LAST_RATE)

    return fit(network, loss, steps, rate=rate, weight_decay=0.02, told_every=TOLD_EVERY, say=say)


@torch.no_grad()
def heard(network: TrainedNet, bank: Bank, places: Places) -> NDArray[np.float32]:
    """How surely each window has a siren [n]."""
    training = network.training
    network.eval()
    parts = [
        1 - functional.softmax(network(bank.windows(places[first : first + 400])), dim=1)[:, 0]
        for first in range(0, len(places), 400)
    ]
    network.train(training)
    return np.asarray(torch.cat(parts))


def _some(places: Places, count: int, random: np.random.Generator) -> Places:
    return places[random.integers(len(places), size=count)]


def _varied(windows: Tensor, random: np.random.Generator) -> Tensor:
    """At a slightly other pitch; now and then some bands are silent."""
    windows = torch.roll(windows, int(random.integers(-SHIFT, SHIFT + 1)), dims=2)
    if random.random() < HIDDEN_CHANCE:
        first = int(random.integers(0, BANDS - HIDDEN_BANDS))
        windows[:, :, first : first + int(random.integers(1, HIDDEN_BANDS + 1))] = FLOOR_DB
    return windows


def _loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy; of a recorded siren only that it is one of them."""
    logs = functional.log_softmax(logits, dim=1)
    own = -logs.gather(1, classes.clamp(max=len(CLASSES) - 1)[:, None])[:, 0]
    any_siren = -torch.log1p(-logs[:, 0].exp().clamp(max=0.9999))
    weight = torch.where(classes == 0, NEGATIVE_WEIGHT, 1.0)
    return (torch.where(classes == RECORDED, any_siren, own) * weight).mean()
