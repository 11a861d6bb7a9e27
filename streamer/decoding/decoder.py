"""Whisper's text decoder over an explicit KV cache: several windows, several tokens of each, in one step.

The weights are openai-whisper's modules', read once (self-attention's three projections joined, weights packed where
the machine wants it). Source: openai-whisper 20250625, whisper/model.py (MIT).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from whisper.model import LayerNorm, MultiHeadAttention, TextDecoder

from streamer.decoding.affine import Vocabulary
from streamer.decoding.kv_cache import CacheShape, KVCache
from streamer.model.affine import Affine

PACKED_BLOCK = 8  # packed products are compiled for each number of rows: steps of several tokens come in few lengths


class Norm:
    """LayerNorm with float32 weights over x of any dtype; the result has the dtype of x."""

    __slots__ = ("bias", "eps", "shape", "weight")

    def __init__(self, module: LayerNorm):
        self.weight = module.weight.detach().float()
        self.bias = module.bias.detach().float()
        self.shape = module.normalized_shape
        self.eps = module.eps

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., width] normalised."""
        if x.device.type == "cpu" or x.dtype == torch.float32:  # only CPUs take float32 weights beside a half x
            return functional.layer_norm(x, self.shape, self.weight, self.bias, self.eps)
        return functional.layer_norm(x.float(), self.shape, self.weight, self.bias, self.eps).to(x.dtype)


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder block's prepared weights; `alignment`: its cross-attention heads that follow the audio."""

    norm: Norm
    qkv: Affine
    out: Affine
    cross_norm: Norm
    cross_query: Affine
    cross_kv: Affine
    cross_out: Affine
    mlp_norm: Norm
    mlp_in: Affine
    mlp_out: Affine
    alignment: tuple[int, ...]


class Decoder:
    """The decoder's weights, immutable and shared; what changes lives in the `KVCache` that is passed in.

    `alignment_heads`: (layer, head) pairs whose attention follows the audio. `dtype`: float32, bfloat16 or float16.
    """

    def __init__(self, module: TextDecoder, alignment_heads: Sequence[tuple[int, int]], dtype: torch.dtype):
        embedding = module.token_embedding.weight.detach()
        self.device = embedding.device
        self.dtype = dtype
        self.heads: int = module.blocks[0].attn.n_head
        self.positions, self.width = module.positional_embedding.shape
        self.embedding = embedding.to(dtype)
        self.positional = module.positional_embedding.detach().to(dtype)
        self.vocabulary = Vocabulary(self.embedding)
        self.norm = Norm(module.ln)
        grouped: dict[int, list[int]] = {}
        for layer, head in sorted(alignment_heads):
            grouped.setdefault(layer, []).append(head)
        self.layers = [_layer(block, tuple(grouped.get(i, ())), dtype) for i, block in enumerate(module.blocks)]
        self.alignment_heads = len(alignment_heads)
        self._block = PACKED_BLOCK if self.layers[0].qkv.packed else 1

    def new_cache(self) -> KVCache:
        """An empty cache that fits this decoder."""
        shape = CacheShape(
            layers=len(self.layers),
            width=self.width,
            positions=self.positions,
            alignment_heads=self.alignment_heads,
            head_width=self.width // self.heads,
        )
        return KVCache(shape, dtype=self.dtype, device=self.device)

    def open(self, cache: KVCache, features: Sequence[Tensor], frames: Sequence[int]) -> None:
        """Give each window a slot and write its cross-attention keys and values.

        features: [frames, width] each; `frames`: how many of them may be attended.
        """
        cache.open(frames, max(map(len, features)))
        joined = (features[0] if len(features) == 1 else torch.cat(list(features))).to(self.dtype)
        for layer, cross in zip(self.layers, cache.cross, strict=True):
            rows = torch.split(layer.cross_kv(joined), [len(item) for item in features])
            for slot, row in enumerate(rows):
                cross[slot, : len(row)].copy_(row)

    def step(self, cache: KVCache, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Read `tokens` (at least one for each slot, in slot order) behind what the cache holds.

        Returns the last hidden states [slots, longest, width]; those behind a row's own tokens mean nothing. The
        cache's lengths grow by what was read: setting one back takes tokens back.
        """
        places = _Places(cache, tokens, self.positions, self._block)
        x = self.embedding[places.ids] + self.positional[places.embedded]
        asked = []
        for index, layer in enumerate(self.layers):
            x = self._attend_text(layer, cache.own[index], places, x)
            x, query = self._attend_audio(layer, cache.cross[index], places, x)
            if layer.alignment:
                asked.append(query[:, :, list(layer.alignment)])
            x = x + layer.mlp_out(functional.gelu(layer.mlp_in(layer.mlp_norm(x))))
        if asked:
            places.write(cache.queries, asked[0] if len(asked) == 1 else torch.cat(asked, dim=2))
        for slot, row in enumerate(tokens):
            cache.lengths[slot] += len(row)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits float32 [n, vocabulary] of hidden states [n, width]; only near the truth unless `vocabulary.exact`."""
        return self.vocabulary(hidden)

    def exact_logits(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Logits float32 [n, k] of chosen `tokens` [n, k], computed in float32 whatever the compute dtype is."""
        return torch.einsum("nd,nkd->nk", hidden.float(), self.embedding[tokens].float())

    def attention(self, cache: KVCache, slot: int, first: int, frames: int) -> Tensor:
        """What the alignment heads attended: float32 [heads, rows, frames], each row a distribution over `frames`.

        Row 0 belongs to text position `first` of the slot; there is a row for each position up to the last one read.
        """
        width = self.width
        keys = []
        for layer, cross in zip(self.layers, cache.cross, strict=True):
            if layer.alignment:
                key = cross[slot, :frames, :width].view(frames, self.heads, -1)
                keys.append(key[:, list(layer.alignment)])
        joined = torch.cat(keys, dim=1).float().permute(1, 2, 0)
        query = cache.queries[slot, first : cache.lengths[slot]].float().transpose(0, 1)
        scores = (query @ joined) * (width // self.heads) ** -0.5
        distributions: Tensor = scores.softmax(dim=-1)
        return distributions

    def _attend_text(self, layer: Layer, own: Tensor, places: "_Places", x: Tensor) -> Tensor:
        qkv = layer.qkv(layer.norm(x))
        places.write(own, qkv[..., self.width :])
        seen = own[: len(x), : places.end]
        mixed = functional.scaled_dot_product_attention(
            self._split(qkv[..., : self.width]),
            self._split(seen[..., : self.width]),
            self._split(seen[..., self.width :]),
            attn_mask=places.text_mask,
        )
        return x + layer.out(mixed.transpose(1, 2).flatten(2))

    def _attend_audio(self, layer: Layer, cross: Tensor, places: "_Places", x: Tensor) -> tuple[Tensor, Tensor]:
        query = layer.cross_query(layer.cross_norm(x))
        heard = cross[: len(x), : places.frames]
        mixed = functional.scaled_dot_product_attention(
            self._split(query),
            self._split(heard[..., : self.width]),
            self._split(heard[..., self.width :]),
            attn_mask=places.audio_mask,
        )
        return x + layer.cross_out(mixed.transpose(1, 2).flatten(2)), query.view(*query.shape[:2], self.heads, -1)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class _Places:
    """Where the tokens of one step stand: ids, positions, masks. Rows are padded on the right.

    A query sees the keys up to its own position, so what padding or an earlier, longer row left behind is never seen.
    The padding of ragged rows goes to the scratch position, that of even ones to where the next tokens will be written.
    """

    def __init__(self, cache: KVCache, tokens: Sequence[Sequence[int]], scratch: int, block: int):
        device, starts, slots = cache.device, cache.lengths, len(tokens)
        longest = max(map(len, tokens))
        self.even = all(len(row) == longest for row in tokens) and all(start == starts[0] for start in starts)
        if longest > 1 and starts[0] + longest + block <= scratch:
            longest = -(-longest // block) * block
        self.first, self.longest = starts[0], longest
        self.frames = max(cache.frames)
        self.ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in tokens], device=device)
        if self.even:
            self.end = starts[0] + longest
            self.embedded = torch.arange(starts[0], self.end, device=device)
            self.text_mask = self._even_mask(device)
        else:
            self.end = max(start + len(row) for start, row in zip(starts, tokens, strict=True))
            padded = [
                [*range(start, start + len(row)), *[scratch] * (longest - len(row))]
                for start, row in zip(starts, tokens, strict=True)
            ]
            self.positions = torch.tensor(padded, device=device)
            self.slots = torch.arange(slots, device=device)[:, None]
            self.embedded = self.positions.clamp(max=scratch - 1)
            self.text_mask = (torch.arange(self.end, device=device) <= self.positions[:, :, None])[:, None]
        self.audio_mask: Tensor | None = None
        if any(frames != self.frames for frames in cache.frames):
            limits = torch.tensor(cache.frames, device=device)[:, None, None, None]
            self.audio_mask = torch.arange(self.frames, device=device) < limits

    def write(self, buffer: Tensor, values: Tensor) -> None:
        """Put values [slots, longest, ...] where the step's tokens stand in a buffer [slots, positions, ...]."""
        if self.even:
            buffer[: len(values), self.first : self.end] = values
        else:
            buffer[self.slots, self.positions] = values

    def _even_mask(self, device: torch.device) -> Tensor | None:
        if self.longest == 1:
            return None
        keys = torch.arange(self.end, device=device)
        return keys <= keys[self.first :, None]


def _layer(block: object, alignment: tuple[int, ...], dtype: torch.dtype) -> Layer:
    own: MultiHeadAttention = block.attn  # type: ignore[attr-defined]
    cross: MultiHeadAttention = block.cross_attn  # type: ignore[attr-defined]
    mlp = block.mlp  # type: ignore[attr-defined]
    return Layer(
        norm=Norm(block.attn_ln),  # type: ignore[attr-defined]
        qkv=_joined(dtype, own.query, own.key, own.value),
        out=_joined(dtype, own.out),
        cross_norm=Norm(block.cross_attn_ln),  # type: ignore[attr-defined]
        cross_query=_joined(dtype, cross.query),
        cross_kv=_joined(dtype, cross.key, cross.value),
        cross_out=_joined(dtype, cross.out),
        mlp_norm=Norm(block.mlp_ln),  # type: ignore[attr-defined]
        mlp_in=_joined(dtype, mlp[0]),
        mlp_out=_joined(dtype, mlp[2]),
        alignment=alignment,
    )


def _joined(dtype: torch.dtype, *modules: torch.nn.Linear) -> Affine:
    """Several linear layers of one input as one; a missing bias (Whisper's keys) is zero."""
    weights = [module.weight.detach().to(dtype) for module in modules]
    biases = [weights[0].new_zeros(len(module.weight)) if module.bias is None else module.bias for module in modules]
    joined = weights[0] if len(weights) == 1 else torch.cat(weights)
    return Affine(joined, torch.cat([bias.detach().to(dtype) for bias in biases]))
