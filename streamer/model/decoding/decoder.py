"""Whisper's text decoder over an explicit KV cache: several windows, several tokens of each, in one step.

The weights are openai-whisper's modules', read once (self-attention's three projections joined, weights packed where
the machine wants it). Source: openai-whisper 20250625, whisper/model.py (MIT).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from whisper.model import LayerNorm, MultiHeadAttention, TextDecoder
from whisper.tokenizer import Tokenizer

from streamer.errors import EngineError
from streamer.model.decoding.filters import NEVER
from streamer.model.decoding.kv_cache import (
    CacheShape,
    KVCache,
    Places,
    audio_end,
    ragged_places,
    single_places,
    text_end,
)
from streamer.model.graphs import Outputs, Recorder, batch_bucket
from streamer.model.linear import FEW_ROWS, Affine, Projection, Vocabulary
from streamer.model.memory import send

RESCORED = 16  # candidates whose logits are computed again in float32 where the others are only near the truth
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
    """One decoder block's prepared weights; `alignment`: its cross-attention heads that follow the audio, if any."""

    norm: Norm
    qkv: Projection
    out: Projection
    cross_norm: Norm
    cross_query: Projection
    cross_kv: Affine
    cross_out: Projection
    mlp_norm: Norm
    mlp_in: Projection
    mlp_out: Projection
    alignment: Tensor | None


class Decoder:
    """The decoder's weights, immutable and shared; what changes lives in the `KVCache` that is passed in.

    `alignment_heads`: (layer, head) pairs whose attention follows the audio. `dtype`: float32, bfloat16 or float16.
    `near`: see `Vocabulary`. `eight_bits`: keys and values of the audio are products in 8 bits.
    """

    def __init__(
        self,
        module: TextDecoder,
        alignment_heads: Sequence[tuple[int, int]],
        dtype: torch.dtype,
        *,
        near: bool = False,
        eight_bits: bool = False,
    ):
        embedding = module.token_embedding.weight.detach()
        self.device = embedding.device
        self.dtype = dtype
        self.heads: int = module.blocks[0].attn.n_head
        self.positions, self.width = module.positional_embedding.shape
        self.embedding = embedding.to(dtype)
        self.positional = module.positional_embedding.detach().to(dtype)
        self.vocabulary = Vocabulary(self.embedding, near=near)
        self.norm = Norm(module.ln)
        grouped: dict[int, list[int]] = {}
        for layer, head in sorted(alignment_heads):
            grouped.setdefault(layer, []).append(head)
        self.layers = [
            _layer(block, tuple(grouped.get(i, ())), dtype, eight_bits) for i, block in enumerate(module.blocks)
        ]
        self.alignment_heads = len(alignment_heads)
        self._block = PACKED_BLOCK if self.layers[0].qkv.packed else 1

    def new_cache(self, recorder: Recorder | None = None) -> KVCache:
        """An empty cache that fits this decoder. `recorder`: what records `step_recorded`."""
        shape = CacheShape(
            layers=len(self.layers),
            width=self.width,
            heads=self.heads,
            positions=self.positions,
            alignment_heads=self.alignment_heads,
        )
        return KVCache(shape, dtype=self.dtype, device=self.device, recorder=recorder)

    def open(self, cache: KVCache, features: Sequence[Tensor], frames: Sequence[int]) -> None:
        """Give each window a slot and write its cross-attention keys and values.

        features: [frames, width] each; `frames`: how many of them may be attended.
        """
        cache.open(frames, max(map(len, features)))
        joined = (features[0] if len(features) == 1 else torch.cat(list(features))).to(self.dtype)
        lengths = [len(item) for item in features]
        for layer, cross in zip(self.layers, cache.cross, strict=True):
            written = layer.cross_kv(joined).view(len(joined), 2, self.heads, -1).permute(1, 2, 0, 3)
            for slot, rows in enumerate(torch.split(written, lengths, dim=2)):
                cross[slot, :, :, : rows.shape[2]].copy_(rows)

    def step(
        self, cache: KVCache, tokens: Sequence[Sequence[int]], wanted: Sequence[tuple[int, int]] | None = None
    ) -> Tensor:
        """Read `tokens` (at least one for each slot, in slot order) behind what the cache holds.

        Returns the last hidden states of the `wanted` (slot, place in its tokens), in that order: [n, width]. Without
        `wanted` those of all: [slots, longest, width], where what lies behind a row's own tokens means nothing. The
        cache's lengths grow by what was read: setting one back takes tokens back.
        """
        places = ragged_places(cache, tokens, self._block)
        kept = None if wanted is None else self._kept(wanted, places)
        x = self._read(cache, places, kept)
        for slot, row in enumerate(tokens):
            cache.lengths[slot] += len(row)
        return x.view(places.slots, places.longest, -1) if wanted is None else x[: len(wanted)]

    def step_recorded(
        self,
        cache: KVCache,
        tokens: Sequence[int],
        rules: Sequence[Sequence[int]],
        judge: Callable[[Tensor, Tensor], Outputs],
    ) -> Outputs:
        """Read one token for each slot as recorded work: the results of `judge`, row i of slot i, idle ones behind.

        `judge` gets the hidden states [rows, width] and the `rules` (whole numbers, of one length, for each slot) as a
        tensor; it is recorded with the step, once for each length of rules. The results last until the next step.
        """
        slots = batch_bucket(len(tokens))
        idle = [0, self.positions, 1, *rules[0]]
        places = zip(tokens, cache.lengths, cache.frames, rules, strict=True)
        rows = [[token, position, attended, *rule] for token, position, attended, rule in places]
        rows += [idle] * (slots - len(rows))
        end = text_end(max(cache.lengths) + 1, self.positions)
        frames = audio_end(max(cache.frames))

        def work(state: Tensor) -> Outputs:
            ids, positions, audio_lengths = state[:, 0], state[:, 1], state[:, 2]
            hidden = self._read(cache, single_places(cache, ids, positions, audio_lengths, end, frames), None)
            return judge(hidden, state[:, 3:])

        key = ("decoder step", slots, end, frames, len(rules[0]))
        results = cache.graphs.run(key, [torch.tensor(rows)], work)
        cache.lengths = [length + 1 for length in cache.lengths]
        return results

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits float32 [n, vocabulary] of hidden states [n, width]; only near the truth unless `vocabulary.exact`."""
        return self.vocabulary(hidden)

    def exact_logits(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Logits float32 [n, k] of chosen `tokens` [n, k], computed in float32 whatever the compute dtype is."""
        return torch.einsum("nd,nkd->nk", hidden.float(), self.embedding[tokens].float())

    def mend(self, hidden: Tensor, logits: Tensor, first_mark: int | None = None) -> Tensor | None:
        """Compute the largest logits again in float32, in place, where the vocabulary's are only near the truth.

        `first_mark`: those of all tokens from here on too, where 8 bits made the others: together time marks decide
        whether one is written. Returns the tokens [n, k] that were mended, None where every logit is true.
        """
        if self.vocabulary.exact:
            return None
        near = logits.topk(RESCORED, dim=-1)
        exact = self.exact_logits(hidden, near.indices).masked_fill_(near.values.isneginf(), NEVER)
        logits.scatter_(1, near.indices, exact)
        if first_mark is None or not self.vocabulary.coarse:
            return near.indices
        logits[:, first_mark:] = functional.linear(hidden.float(), self.embedding[first_mark:].float())
        marks = torch.arange(first_mark, logits.shape[1], device=logits.device)
        return torch.cat([near.indices, marks.expand(len(logits), -1)], dim=1)

    def bytes_read(self, rows: int, positions: int, frames: int) -> int:
        """The bytes that a step of one token for each of so many windows has to read: every weight once, and of each
        window the keys and values of its text positions and of the encoder frames that it attends.

        Biases, norms and what is computed in between (under a hundredth together) are left out.
        """
        projections = [
            part
            for layer in self.layers
            for part in (layer.qkv, layer.out, layer.cross_query, layer.cross_out, layer.mlp_in, layer.mlp_out)
        ]
        weights = sum(part.bytes_read(rows) for part in projections) + self.vocabulary.weight_bytes
        kept: int = 2 * len(self.layers) * self.width * (positions + frames) * self.embedding.element_size()
        return weights + rows * kept

    def attention(self, cache: KVCache, slot: int, first: int, frames: int) -> Tensor:
        """What the alignment heads attended: float32 [heads, rows, frames], each row a distribution over `frames`.

        Row 0 belongs to text position `first` of the slot; there is a row for each position up to the last one read.
        """
        keys = [
            cross[slot, 0, :, :frames].index_select(0, layer.alignment)
            for layer, cross in zip(self.layers, cache.cross, strict=True)
            if layer.alignment is not None
        ]
        joined = (keys[0] if len(keys) == 1 else torch.cat(keys)).float()
        query = cache.queries[slot, first : cache.lengths[slot]].float().transpose(0, 1)
        scores = (query * (self.width // self.heads) ** -0.5) @ joined.transpose(1, 2)
        distributions: Tensor = scores.softmax(dim=-1)
        return distributions

    def _read(self, cache: KVCache, places: Places, kept: Tensor | None) -> Tensor:
        """The last hidden states [slots * longest, width] of what stands at the places, or only its rows `kept`."""
        x = (self.embedding[places.ids] + self.positional[places.embedded]).flatten(0, 1)
        asked = []
        for index, layer in enumerate(self.layers):
            last = index == len(self.layers) - 1
            x = self._attend_text(layer, cache.own[index], places, x)
            x, query = self._attend_audio(layer, cache.cross[index], places, x, kept if last else None)
            if layer.alignment is not None:
                asked.append(query.index_select(2, layer.alignment))
            x = layer.mlp_out.added(layer.mlp_in.gelu(layer.mlp_norm(x)), x)
        if asked:
            places.write(cache.queries, asked[0] if len(asked) == 1 else torch.cat(asked, dim=2))
        return self.norm(x)

    def _kept(self, wanted: Sequence[tuple[int, int]], places: Places) -> Tensor | None:
        """Where the wanted (slot, place) stand among all rows of the step; None where they are all of them, in order.

        Many are filled up to whole blocks with the last one.
        """
        rows = [slot * places.longest + place for slot, place in wanted]
        if rows == list(range(places.slots * places.longest)):
            return None
        if len(rows) > FEW_ROWS:
            rows += [rows[-1]] * (-len(rows) % self._block)
        return send(rows, self.device)

    def _attend_text(self, layer: Layer, own: Tensor, places: Places, x: Tensor) -> Tensor:
        qkv = layer.qkv(layer.norm(x)).view(places.slots, places.longest, -1)
        places.write(own, qkv[..., self.width :])
        query = qkv[..., : self.width].view(places.slots, places.longest, self.heads, -1).transpose(1, 2)
        seen = (
            own[: places.slots, : places.end].view(places.slots, places.end, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        )
        mixed = functional.scaled_dot_product_attention(query, seen[0], seen[1], attn_mask=places.text_mask)
        return layer.out.added(mixed.transpose(1, 2).reshape(x.shape), x)

    def _attend_audio(
        self, layer: Layer, cross: Tensor, places: Places, x: Tensor, kept: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What the audio adds to x [slots * longest, width], of which only the rows `kept` go on; and the queries."""
        query = layer.cross_query(layer.cross_norm(x)).view(places.slots, places.longest, self.heads, -1)
        audio = cross[: places.slots, :, :, : places.frames]
        mixed = functional.scaled_dot_product_attention(
            query.transpose(1, 2), audio[:, 0], audio[:, 1], attn_mask=places.audio_mask
        )
        mixed = mixed.transpose(1, 2).reshape(x.shape)
        if kept is not None:
            x, mixed = x[kept], mixed[kept]
        return layer.cross_out.added(mixed, x), query


def _layer(block: object, alignment: tuple[int, ...], dtype: torch.dtype, eight_bits: bool) -> Layer:
    own: MultiHeadAttention = block.attn  # type: ignore[attr-defined]
    cross: MultiHeadAttention = block.cross_attn  # type: ignore[attr-defined]
    mlp = block.mlp  # type: ignore[attr-defined]
    return Layer(
        norm=Norm(block.attn_ln),  # type: ignore[attr-defined]
        qkv=Projection(*_joined(dtype, own.query, own.key, own.value)),
        out=Projection(*_joined(dtype, own.out)),
        cross_norm=Norm(block.cross_attn_ln),  # type: ignore[attr-defined]
        cross_query=Projection(*_joined(dtype, cross.query)),
        cross_kv=Affine(*_joined(dtype, cross.key, cross.value), eight_bits=eight_bits),
        cross_out=Projection(*_joined(dtype, cross.out)),
        mlp_norm=Norm(block.mlp_ln),  # type: ignore[attr-defined]
        mlp_in=Projection(*_joined(dtype, mlp[0])),
        mlp_out=Projection(*_joined(dtype, mlp[2])),
        alignment=torch.tensor(alignment, device=own.query.weight.device) if alignment else None,
    )


def _joined(dtype: torch.dtype, *modules: torch.nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias of several linear layers of one input as one; a missing bias (Whisper's keys) is zero."""
    weights = [module.weight.detach().to(dtype) for module in modules]
    biases = [weights[0].new_zeros(len(module.weight)) if module.bias is None else module.bias for module in modules]
    joined = weights[0] if len(weights) == 1 else torch.cat(weights)
    return joined, torch.cat([bias.detach().to(dtype) for bias in biases])


Allowed = tuple[str, ...]  # language codes; empty: all that the model knows


def spoken_languages(
    decoder: Decoder, cache: KVCache, tokenizer: Tokenizer, allowed: Sequence[Allowed]
) -> list[tuple[str, float]]:
    """The language of each of the first windows of the cache, and its probability among those `allowed` for it.

    The cache is left as it was opened. A probability is not finite where the decoder's output is not. Raises
    EngineError where the model knows none of a window's languages.
    """
    if not allowed:
        return []
    codes = tokenizer.all_language_codes
    closed = [[int(bool(among) and code not in among) for code in codes] for among in allowed]
    for among, row in zip(allowed, closed, strict=True):
        if all(row):
            raise EngineError(f"languages {', '.join(among)}: the model knows none of them; give codes such as 'en'")
    with cache.first(len(allowed)):
        hidden = decoder.step(cache, [[tokenizer.sot]] * len(allowed))[:, 0]
    known = send(tokenizer.all_language_tokens, hidden.device)
    logits = decoder.exact_logits(hidden, known.expand(len(allowed), -1))
    if any(allowed):
        logits = logits.masked_fill(send(closed, hidden.device).bool(), -torch.inf)
    probabilities, best = logits.softmax(dim=-1).max(dim=-1)
    return [(codes[int(place)], value) for place, value in torch.stack([best.float(), probabilities], dim=1).tolist()]
