"""What a window teaches: all that the official weights say of it with silence behind it, and how far the student is.

After FUTO's whisper-acft (hidden states of the decoder, the teacher's own text), with the decoder's probabilities,
those of the language and of nobody speaking among them, and the encoder's blocks as tagging heads read them.
One window a step, AdamW, averaged weights, a state that survives a kill.
"""

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from whisper.audio import N_SAMPLES, log_mel_spectrogram, pad_or_trim
from whisper.model import AudioEncoder, Whisper

from streamer.events import FRAME_SAMPLES
from streamer.events.plans import DecodeTask
from streamer.model.context_adapter import adapted_matrices
from streamer.model.decoding.search import AudioWindow, Decoded, GreedySearch
from streamer.model.encoder import TAP_POOL
from streamer.model.tensor_files import load_safely
from streamer.model.whisper import Model
from streamer.training.context.windows import Samples, Window, Windows

TEACHER_MARGIN = 640  # positions of silence behind the window that the teacher hears: with 512 it reads as with 30 s
MOST_TOKENS, LEAST_TOKENS = 200, 8
PROMPTED, PROMPT_TOKENS = 0.3, 60
HIDDEN_SHARE, TAPS_SHARE = 1.0, 0.3  # of the loss, beside the probabilities


RATE, WARM_STEPS, LEAST_RATE = 1e-3, 50, 0.05
AVERAGED = 0.995  # of the averaged weights stays in each step
MARGINS = (40, 144)  # positions of silence behind the audio that the student hears
WHOLE = 0.1  # how often it hears 30 s
SAVE_EVERY = 100


@dataclass(frozen=True, slots=True)
class Lesson:
    """A window and what the teacher makes of it.

    `mel`: [1, n_mels, 3000]; `real`: encoder positions that hold audio; `tokens` [1, n]; `judged`: the index of the
    first token whose successor counts; `hidden`: of every decoder block [1, n, d]; `logits` [1, n, vocabulary];
    `taps`: of every encoder block, averaged.
    """

    mel: Tensor
    real: int
    tokens: Tensor
    judged: int
    hidden: list[Tensor]
    logits: Tensor
    taps: list[Tensor]


def encode(module: Whisper, mel: Tensor, length: int, real: int) -> tuple[Tensor, list[Tensor]]:
    """What the decoder attends of the first `length` positions; every block's output over the `real` ones, averaged.

    As `streamer.model.encoder`, whose products are made for speed and know no gradients.
    """
    encoder = module.encoder
    x = functional.gelu(encoder.conv1(mel[:, :, : 2 * length]))
    x = functional.gelu(encoder.conv2(x)).permute(0, 2, 1)
    x = x + encoder.positional_embedding[:length]
    taps = []
    steps = real // TAP_POOL
    for block in encoder.blocks:
        x = block(x)
        taps.append(x[:, : steps * TAP_POOL].reshape(1, steps, TAP_POOL, -1).mean(2))
    return encoder.ln_post(x), taps


def decode(module: Whisper, tokens: Tensor, features: Tensor) -> tuple[list[Tensor], Tensor]:
    """Every decoder block's output and the logits, for tokens [1, n] that are given."""
    decoder = module.decoder
    x = (decoder.token_embedding(tokens) + decoder.positional_embedding[: tokens.shape[1]]).to(features.dtype)
    hidden = []
    for block in decoder.blocks:
        x = block(x, features, mask=decoder.mask)
        hidden.append(x)
    return hidden, functional.linear(decoder.ln(x), decoder.token_embedding.weight)


class Reader:
    """Reads windows with one model, greedily, with as much silence behind them as is asked for."""

    def __init__(self, module: Whisper) -> None:
        """Takes `module` over, as `Model` does."""
        self.module = module
        self.model = Model(module)
        self._search = GreedySearch(self.model, near=True)

    def read(self, samples: Samples, margin: int, task: DecodeTask) -> tuple[Decoded, Tensor, list[Tensor]]:
        """What is said in samples [n], what was attended, and every block's output, averaged."""
        real = positions(samples)
        frames = 2 * min(real + margin, self.module.dims.n_audio_ctx)
        features, taps = self.model.encode(mel_of(samples, self.module)[:, :, :frames])
        (found,) = self._search.decode([AudioWindow(features[0], real)], [task])
        return found, features, [item[:, : real // TAP_POOL] for item in taps.unbind(1)]


def positions(samples: Samples) -> int:
    """How many positions of the encoder hold audio."""
    return max(1, len(samples) // FRAME_SAMPLES)


def mel_of(samples: Samples, module: Whisper) -> Tensor:
    """The mel [1, n_mels, 3000] of a window with silence behind it."""
    found: Tensor = log_mel_spectrogram(pad_or_trim(torch.from_numpy(samples), N_SAMPLES), module.dims.n_mels)[None]
    return found


@torch.no_grad()
def taught(teacher: Reader, window: Window, chance: float) -> Lesson:
    """What the teacher makes of a window. `chance`, 0..1: below PROMPTED the earlier text is given as a prompt."""
    real, module = positions(window.samples), teacher.module
    tokenizer = teacher.model.tokenizer(window.language or "en")
    prompt = tokenizer.encode(f" {window.before}")[-PROMPT_TOKENS:] if window.before and chance < PROMPTED else []
    most = min(MOST_TOKENS, LEAST_TOKENS + real // 4)  # 12.5 a second: nobody speaks faster
    task = DecodeTask(language=window.language or "en", prompt=tuple(prompt), max_new_tokens=most)
    found, features, taps = teacher.read(window.samples, TEACHER_MARGIN, task)
    before = [tokenizer.sot_prev, *prompt] if prompt else []
    tokens = torch.tensor([[*before, *found.forced, *found.tokens]])
    hidden, logits = decode(module, tokens, features.clone())
    return Lesson(mel_of(window.samples, module), real, tokens, len(before), hidden, logits, taps)


def loss(student: Whisper, lesson: Lesson, length: int) -> Tensor:
    """How far the student, who hears `length` positions, is from what the teacher said."""
    features, taps = encode(student, lesson.mel, length, min(lesson.real, length))
    hidden, logits = decode(student, lesson.tokens, features)
    from_here = slice(lesson.judged, None)
    said = functional.kl_div(
        logits[0, from_here].log_softmax(-1),
        lesson.logits[0, from_here].log_softmax(-1),
        reduction="batchmean",
        log_target=True,
    )
    of_hidden = _apart([item[:, from_here] for item in hidden], [item[:, from_here] for item in lesson.hidden])
    of_taps = _apart(taps, lesson.taps) if lesson.taps[0].shape[1] else said.new_zeros(())
    return said + HIDDEN_SHARE * of_hidden + TAPS_SHARE * of_taps


def _apart(found: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """The mean over blocks of the squared difference, of the square."""
    shares = [(one - other).square().sum() / other.square().sum() for one, other in zip(found, wanted, strict=True)]
    return torch.stack(shares).mean()


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
