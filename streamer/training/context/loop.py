"""Teaching the differences: one window a step, AdamW, averaged weights, a state that survives a kill."""

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from whisper.model import AudioEncoder, Whisper

from streamer.model.context_adapter import adapted_matrices
from streamer.model.tensor_files import load_safely
from streamer.training.context.lesson import Reader, loss, taught
from streamer.training.context.windows import Windows

RATE, WARM_STEPS, LEAST_RATE = 1e-3, 50, 0.05
AVERAGED = 0.995  # of the averaged weights stays in each step
MARGINS = (40, 144)  # positions of silence behind the audio that the student hears
WHOLE = 0.1  # how often it hears 30 s
SAVE_EVERY = 100


class LowRank(nn.Module):
    """A frozen matrix and its difference `up` [out, rank] @ `down` [rank, in]; none at the beginning."""

    def __init__(self, matrix: nn.Linear, rank: int) -> None:
        super().__init__()
        out, width = matrix.weight.shape
        self.matrix = matrix
        self.down = nn.Parameter(torch.randn(rank, width) / width**0.5)
        self.up = nn.Parameter(torch.zeros(out, rank))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] to [..., out]."""
        found: Tensor = self.matrix(x) + functional.linear(functional.linear(x, self.down), self.up)
        return found


@dataclass(slots=True)
class Run:
    """A student in training. `step` comes next; `average` of its differences; `curve`: what was judged when."""

    teacher: Reader
    student: Whisper
    parts: dict[str, LowRank]
    optimiser: torch.optim.AdamW
    average: list[Tensor]
    step: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)

    @property
    def weights(self) -> list[nn.Parameter]:
        """What is taught."""
        return [weight for part in self.parts.values() for weight in (part.up, part.down)]


def begin(teacher: Whisper, rank: int, seed: int) -> Run:
    """A student that says what its teacher says. Its decoder is the teacher's own."""
    torch.manual_seed(seed)
    teacher = teacher.eval().requires_grad_(False)
    student = with_encoder(teacher, copy.deepcopy(teacher.encoder))
    parts = {name: LowRank(matrix, rank) for name, matrix in adapted_matrices(student.encoder)}
    for name, part in parts.items():
        parent, _, last = name.rpartition(".")
        setattr(student.encoder.blocks.get_submodule(parent), last, part)
    weights = [weight for part in parts.values() for weight in (part.up, part.down)]
    optimiser = torch.optim.AdamW(weights, lr=RATE, betas=(0.9, 0.98), weight_decay=0.01, foreach=False)
    return Run(Reader(teacher), student, parts, optimiser, [weight.detach().clone() for weight in weights])


def with_encoder(module: Whisper, encoder: AudioEncoder) -> Whisper:
    """The same decoder behind another encoder."""
    other = copy.copy(module)
    other._modules = {**module._modules, "encoder": encoder}
    return other


def train(run: Run, windows: Windows, steps: int, state: Path, judge: Callable[[Run], None]) -> None:
    """Teach until `steps`; `judge` is called now and then, and the state kept at `state`."""
    while run.step < steps:
        random = np.random.default_rng((1, run.step))
        lesson = taught(run.teacher, windows.draw(run.step), float(random.random()))
        whole = run.student.dims.n_audio_ctx
        margin = whole if random.random() < WHOLE else int(random.integers(*MARGINS))
        for group in run.optimiser.param_groups:
            group["lr"] = _rate(run.step, steps)
        run.optimiser.zero_grad()
        loss(run.student, lesson, min(lesson.real + margin, whole)).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(run.weights, 1.0)
        run.optimiser.step()
        run.step += 1
        share = min(AVERAGED, run.step / (run.step + 10))
        for mean, weight in zip(run.average, run.weights, strict=True):
            mean.lerp_(weight.detach(), 1 - share)
        judge(run)
        if run.step % SAVE_EVERY == 0 or run.step == steps:
            save(run, state)


def save(run: Run, state: Path) -> None:
    """Keep all that is needed to go on, replacing what was kept by one rename."""
    part = state.with_suffix(".part")
    content = {
        "step": run.step,
        "weights": [weight.detach() for weight in run.weights],
        "average": run.average,
        "optimiser": run.optimiser.state_dict(),
        "curve": run.curve,
    }
    torch.save(content, part)
    os.replace(part, state)


def go_on(run: Run, state: Path) -> None:
    """Take up what was kept. Raises CheckpointError where it is damaged."""
    content = load_safely(state, "state")
    run.step, run.curve = content["step"], content["curve"]
    _put(run.weights, content["weights"])
    _put(run.average, content["average"])
    run.optimiser.load_state_dict(content["optimiser"])


def _put(places: list[nn.Parameter] | list[Tensor], values: list[Tensor]) -> None:
    with torch.no_grad():
        for place, value in zip(places, values, strict=True):
            place.copy_(value)


def _rate(step: int, steps: int) -> float:
    rising = min(1.0, (step + 1) / WARM_STEPS)
    falling = LEAST_RATE + (1 - LEAST_RATE) * 0.5 * (1 + float(np.cos(np.pi * step / steps)))
    return RATE * rising * falling
