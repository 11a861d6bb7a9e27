"""The network in training: openai-whisper's modules over the used tokens, with taps, alignment and auxiliary outputs.

Differences from `whisper.model.Whisper` that end with the training: the token table holds the used tokens only,
timestamp rows are a learned projection of sinusoids (so that 76 of them are learned from little), and the
encoder has two outputs of its own: phones for a CTC loss, and the word that each frame lies in.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from whisper.model import ModelDimensions as Dimensions
from whisper.model import MultiHeadAttention, ResidualAttentionBlock, Whisper, sinusoids

from streamer.recipes.nano.vocabulary import COARSE, N_VOCAB, TIMESTAMPS, Vocabulary

POOL = 20  # encoder frames of one tap, 0.4 s
CLASSES = 527
LOCAL = 1.3  # how strongly encoder heads look at their neighbourhood at the start
OFFSETS = ((-6, -2, 2, 6), (-12, -4, 4, 12), (-16, 0, 6, 16), (-24, -8, 8, 24))  # in frames, by layer and head
ALIGNMENT_LAYER = -1
ALIGNMENT_HEADS = (0, 1)  # of the last decoder layer
ONE_BY_ONE_FROM = 150  # encoder frames from which one item's scores at a time are faster: they stay in the cache
HEAD_BY_HEAD_FROM = 1200  # and from which one head's are
POSITION_HEAD = 0  # of the first decoder layer: looks at the word that was just written


@dataclass(frozen=True, slots=True)
class Written:
    """`logits` [B, T, used]; `aligned` [B, heads, T, frames] and `placed` [B, T, frames]: attention, sums 1."""

    logits: Tensor
    aligned: Tensor
    placed: Tensor


class TagHead(nn.Module):
    """Whisper-AT's TL-Tr head under its released key names. Taps [B, layers, steps, d] -> logits [B, 527]."""

    def __init__(self, width: int):
        super().__init__()
        self.time_tr = ResidualAttentionBlock(width, 1)
        self.layer_tr = ResidualAttentionBlock(width, 8)
        self.mlp_layer = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, CLASSES))

    def forward(self, taps: Tensor) -> Tensor:
        """One judgement over all steps of each item."""
        batch, layers, steps, width = taps.shape
        over_time = self.time_tr(taps.reshape(batch * layers, steps, width)).mean(dim=1)
        over_layers = self.layer_tr(over_time.view(batch, layers, width)).mean(dim=1)
        return cast(Tensor, self.mlp_layer(over_layers))


class Nano(nn.Module):
    """Backbone, tagging head and the auxiliary outputs of phones and words."""

    def __init__(self, dims: Dimensions, vocabulary: Vocabulary, phones: int):
        super().__init__()
        small = Dimensions(**{**vars(dims), "n_vocab": len(vocabulary.used) - TIMESTAMPS})
        self.dims = dims
        self.whisper = Whisper(small)
        self.times = nn.Linear(dims.n_text_state, dims.n_text_state)
        self.head = TagHead(dims.n_audio_state)
        self.phones = nn.Linear(dims.n_audio_state, phones + 1)
        self.spoken = nn.Linear(dims.n_audio_state, len(vocabulary.words) + 1)
        self.register_buffer("clock", sinusoids(TIMESTAMPS * COARSE, dims.n_text_state)[::COARSE], persistent=False)
        self._start_loud()
        self._start_local()
        nn.init.normal_(self.whisper.decoder.token_embedding.weight, std=0.05)
        nn.init.normal_(self.whisper.decoder.positional_embedding, std=0.02)
        nn.init.normal_(self.times.weight, std=0.05 / dims.n_text_state**0.5)
        nn.init.constant_(self.head.state_dict()["mlp_layer.1.bias"], -5.0)

    def _start_loud(self) -> None:
        """Make the sound as loud as the sinusoids added to it; PyTorch's own start leaves it 12 times quieter."""
        with torch.no_grad():
            self.whisper.encoder.conv1.weight.mul_(3.0)
            self.whisper.encoder.conv2.weight.mul_(4.0)

    def _start_local(self) -> None:
        """Let each encoder head look at a small neighbourhood, a fixed number of frames before or behind.

        Query and key pick the same sinusoids out of the position; the query turns them by the offset. Attention that
        has to find locality by itself from absolute positions stays on a plateau for a thousand steps.
        """
        width = self.dims.n_audio_state
        for layer, block in enumerate(self.whisper.encoder.blocks):
            attention = block.attn
            size = width // attention.n_head
            pairs = torch.linspace(4, 27, size // 2).round().long() * (width // 2) // 64
            rates = torch.exp(-math.log(10_000) / (width // 2 - 1) * pairs)
            with torch.no_grad():
                for part in (attention.query, attention.key):
                    part.weight.mul_(0.3)
                for head in range(attention.n_head):
                    offset = OFFSETS[layer % len(OFFSETS)][head % len(OFFSETS[0])]
                    rows = head * size + 2 * torch.arange(size // 2)
                    turn = rates * offset
                    _plant(attention.query.weight, rows, pairs, width, turn)
                    _plant(attention.key.weight, rows, pairs, width, torch.zeros_like(turn))

    def encode(self, mel: Tensor, first: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """mel [B, 80, frames] -> features [B, frames/2, d], taps [B, layers, frames/40, d].

        `first` int64 [B]: the position of each item's first frame, 0 when None.
        """
        encoder = self.whisper.encoder
        x = F.gelu(encoder.conv1(mel))
        x = F.gelu(encoder.conv2(x)).permute(0, 2, 1)
        place = torch.arange(x.shape[1])
        x = x + encoder.positional_embedding[place if first is None else first[:, None] + place]
        steps, taps = x.shape[1] // POOL, []
        for block in encoder.blocks:
            x = x + _own_attention(block.attn, block.attn_ln(x), causal=False)
            x = x + block.mlp(block.mlp_ln(x))
            taps.append(x[:, : steps * POOL].unflatten(1, (steps, POOL)).float().mean(dim=2))
        return encoder.ln_post(x), torch.stack(taps, dim=1)

    def table(self) -> Tensor:
        """The rows of all used tokens [used, d], timestamps last."""
        return torch.cat([self.whisper.decoder.token_embedding.weight, self.times(self.clock)])

    def write(self, tokens: Tensor, features: Tensor) -> Written:
        """Dense tokens [B, T] behind which the next one is asked for, features [B, frames, d]."""
        decoder = self.whisper.decoder
        table = self.table()
        x = F.embedding(tokens, table.float()) + decoder.positional_embedding[: tokens.shape[1]]
        x = x.to(features.dtype)
        weights = []
        for block in decoder.blocks:
            x = x + _own_attention(block.attn, block.attn_ln(x), causal=True)
            attended, weight = _cross_attention(block.cross_attn, block.cross_attn_ln(x), features)
            x = x + attended
            x = x + block.mlp(block.mlp_ln(x))
            weights.append(weight)
        logits = decoder.ln(x) @ table.to(x.dtype).T
        return Written(logits.float(), weights[ALIGNMENT_LAYER][:, list(ALIGNMENT_HEADS)], weights[0][:, POSITION_HEAD])


def _plant(weight: Tensor, rows: Tensor, pairs: Tensor, width: int, turn: Tensor) -> None:
    """Add to `weight` what maps a position's sinusoids to (sin, cos) of the position, turned by `turn` radians."""
    sine, cosine = pairs, pairs + width // 2
    weight[rows, sine] += LOCAL * turn.cos()
    weight[rows, cosine] += LOCAL * turn.sin()
    weight[rows + 1, cosine] += LOCAL * turn.cos()
    weight[rows + 1, sine] -= LOCAL * turn.sin()


def _split(x: Tensor, heads: int) -> Tensor:
    return x.view(*x.shape[:-1], heads, x.shape[-1] // heads).transpose(1, 2)


def _own_attention(attention: MultiHeadAttention, x: Tensor, *, causal: bool) -> Tensor:
    """Self-attention by plain products: PyTorch's fused one takes 1.1 to 5 times as long here, backward above all."""
    q, k, v = (
        _split(part(x), attention.n_head).contiguous() for part in (attention.query, attention.key, attention.value)
    )
    if x.shape[1] < ONE_BY_ONE_FROM:
        out = _attended(q, k, v, causal=causal)
    else:
        parts = (q, k, v) if x.shape[1] < HEAD_BY_HEAD_FROM else [part.flatten(0, 1) for part in (q, k, v)]
        out = torch.stack([_attended(*item, causal=causal) for item in zip(*parts, strict=True)]).view_as(q)
    return cast(Tensor, attention.out(out.transpose(1, 2).flatten(2)))


def _attended(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if causal:
        scores = scores + torch.full(scores.shape[-2:], -torch.inf, dtype=scores.dtype).triu_(1)
    return cast(Tensor, scores.softmax(dim=-1) @ v)


def _cross_attention(attention: MultiHeadAttention, x: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    q = _split(attention.query(x), attention.n_head)
    k, v = (_split(part(features), attention.n_head) for part in (attention.key, attention.value))
    weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).float().softmax(dim=-1)
    out = weights.to(v.dtype) @ v
    return attention.out(out.transpose(1, 2).flatten(2)), weights


def token_loss(logits: Tensor, targets: Tensor, vocabulary: Vocabulary) -> Tensor:
    """Cross-entropy over Whisper's whole vocabulary: the unused tokens, all at logit 0, are one more column."""
    column = torch.full_like(logits[..., :1], float(vocabulary.unused)).log()
    scores = torch.cat([logits, column], dim=-1).log_softmax(dim=-1)
    valid = targets >= 0
    return -scores[valid].gather(1, targets[valid][:, None]).mean()


def attention_loss(weights: Tensor, frames: Tensor) -> Tensor:
    """Minus the log of the attention that falls on each position's word.

    weights [B, (heads,) T, F]; frames int64 [B, T, 2]: [first, last), last = 0 where there is no word.
    """
    if weights.dim() == 3:
        weights = weights[:, None]
    place = torch.arange(weights.shape[-1])
    inside = (place >= frames[..., :1] - 1) & (place < frames[..., 1:] + 1)
    valid = (frames[..., 1] > 0) & inside.any(dim=-1)
    mass = (weights * inside[:, None]).sum(dim=-1)
    return -(mass + 1e-5).log().mean(dim=1)[valid].mean() if bool(valid.any()) else mass.sum() * 0


def tag_loss(logits: Tensor, labels: Tensor, sure: Tensor) -> Tensor:
    """The sum of the binary cross-entropies of all classes, mean over items; `sure` masks what cannot be judged."""
    losses = F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="none")
    return (losses * sure).sum(dim=1).mean()


def full_state(model: Nano, vocabulary: Vocabulary) -> dict[str, Tensor]:
    """The state dict of `whisper.model.Whisper(model.dims)`: all 51,864 rows, those of unused tokens zero; float16."""
    state = {key: value.detach().clone() for key, value in model.whisper.state_dict().items()}
    rows = torch.zeros(N_VOCAB, model.dims.n_text_state)
    rows[torch.from_numpy(vocabulary.used)] = model.table().detach().float()
    state["decoder.token_embedding.weight"] = rows
    return {key: value.half() for key, value in state.items()}
