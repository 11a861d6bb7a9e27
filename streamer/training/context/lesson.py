"""What a window teaches: all that the official weights say of it with silence behind it, and how far the student is.

After FUTO's whisper-acft (hidden states of the decoder, the teacher's own text), with the decoder's probabilities,
those of the language and of nobody speaking among them, and the encoder's blocks as tagging heads read them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from whisper.audio import N_SAMPLES, log_mel_spectrogram, pad_or_trim
from whisper.model import Whisper

from streamer.model.decoding.search import AudioWindow, Decoded, GreedySearch
from streamer.model.encoder import TAP_POOL
from streamer.model.whisper import Model
from streamer.plans import DecodeTask
from streamer.training.context.windows import Samples, Window

POSITION_SAMPLES = 320
TEACHER_MARGIN = 640  # positions of silence behind the window that the teacher hears: with 512 it reads as with 30 s
MOST_TOKENS, LEAST_TOKENS = 200, 8
PROMPTED, PROMPT_TOKENS = 0.3, 60
HIDDEN_SHARE, TAPS_SHARE = 1.0, 0.3  # of the loss, beside the probabilities


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
    return max(1, len(samples) // POSITION_SAMPLES)


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
