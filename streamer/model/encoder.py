"""Our forward over openai-whisper's audio encoder: any length, a batch, every block's output visible, low precision.

The weights are those of `whisper.model.AudioEncoder`. Query, key and value become one matrix (the module's own weights
are then views of it), the convolutions become matrix products over strided views (no transposes in between), and
LayerNorm keeps float32 weights, since bfloat16 ones fail there on CPUs. On CPUs in bfloat16 the matrices are packed
once (`affine.Affine`), and GELU and the residual sums happen in the product's own pass.
"""

import hashlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from whisper.model import AudioEncoder, MultiHeadAttention, ResidualAttentionBlock

from streamer.model.linear import Affine

TAP_POOL = 20  # encoder positions (50 a second) averaged into one tap step: 0.4 s


class Encoder:
    """`whisper.model.AudioEncoder` without its fixed length. Holds views of its weights, no state."""

    def __init__(self, module: AudioEncoder, *, eight_bits: bool = False) -> None:
        """`module`: on its device and in its dtype already, LayerNorms in float32 (`weights.cast_weights`).

        `eight_bits`: as for `Affine`.
        """
        self._conv1 = _Convolution(module.conv1, eight_bits)
        self._conv2 = _Convolution(module.conv2, eight_bits)
        self._positions: Tensor = module.positional_embedding
        self._blocks = [Block(block, eight_bits=eight_bits) for block in module.blocks]
        self._ln_post: nn.LayerNorm = module.ln_post

    def blocks(self, mel: Tensor, lengths: Tensor | None = None) -> Iterator[Tensor]:
        """Yield the output of every block [B, frames/2, d] for a mel [B, n_mels, frames] of the weights' dtype.

        `lengths` [B]: of each window the positions that there are (None: all). A window whose mel is zero behind them
        comes out as one that ends there: attention does not see what lies behind, and the convolutions see the zeros
        that they put behind an end anyway. What comes out behind them means nothing.
        """
        x = self._conv2(self._conv1(mel.transpose(1, 2)))
        x = (x + self._positions[: x.shape[1]]).to(mel.dtype)
        mask = None if lengths is None else key_padding_mask(lengths, x.shape[1], x.dtype)
        for block in self._blocks:
            x = block(x, mask)
            yield x

    def features(self, x: Tensor) -> Tensor:
        """The last block's output through `ln_post`: what the decoder attends."""
        return _layer_norm(x, self._ln_post)


def pool_taps(x: Tensor, start: int, steps: int) -> Tensor:
    """Average the positions [start, start + 20 steps) of x [..., positions, d] by 20: [..., steps, d]."""
    *leading, _, width = x.shape
    return x[..., start : start + steps * TAP_POOL, :].reshape(*leading, steps, TAP_POOL, width).mean(-2)


def pool_taps_until(x: Tensor, ends: Tensor, steps: int) -> Tensor:
    """The `steps` averages of 20 positions before each item's `ends` [B], for x [B, positions, d]: [B, steps, d].

    Those that would begin before the first position mean nothing. As `pool_taps`, where the ends are on the device.
    """
    places = ends[:, None] + torch.arange(-steps * TAP_POOL, 0, device=x.device)
    rows = torch.arange(len(x), device=x.device)[:, None]
    return x[rows, places.clamp(min=0)].view(len(x), steps, TAP_POOL, -1).mean(2)


class _Convolution:
    """A width-3 convolution over [B, frames, channels] with one frame of padding and GELU, as a matrix product."""

    def __init__(self, module: nn.Conv1d, eight_bits: bool) -> None:
        out, channels, width = module.weight.shape
        self._width, self._stride = width, module.stride[0]
        assert module.bias is not None
        weight = module.weight.permute(0, 2, 1).reshape(out, width * channels).contiguous()
        self._affine = Affine(weight, module.bias, eight_bits=eight_bits)

    def __call__(self, x: Tensor) -> Tensor:
        batch, frames, channels = x.shape
        padded = F.pad(x, (0, 0, 1, 1)).contiguous()
        shape = (batch, (frames - 1) // self._stride + 1, self._width * channels)
        rows = padded.as_strided(shape, (padded.stride(0), self._stride * channels, 1))
        return self._affine.gelu(rows.contiguous() if self._affine.packed else rows)


class Block:
    """One of Whisper's residual attention blocks (no cross-attention), with query, key and value in one product."""

    def __init__(self, module: ResidualAttentionBlock, *, eight_bits: bool = False) -> None:
        """As for `Encoder`."""
        self._heads: int = module.attn.n_head
        self._qkv = Affine(*_fuse_qkv(module.attn), eight_bits=eight_bits)
        self._out = Affine(module.attn.out.weight, module.attn.out.bias, eight_bits=eight_bits)
        self._attn_ln: nn.LayerNorm = module.attn_ln
        self._mlp_ln: nn.LayerNorm = module.mlp_ln
        self._up = Affine(module.mlp[0].weight, module.mlp[0].bias, eight_bits=eight_bits)
        self._down = Affine(module.mlp[2].weight, module.mlp[2].bias, eight_bits=eight_bits)

    def __call__(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The block's output for x [B, positions, d], contiguous; `mask` is added to attention's scores."""
        batch, positions, width = x.shape
        qkv = self._qkv(_layer_norm(x, self._attn_ln))
        q, k, v = qkv.view(batch, positions, 3, self._heads, width // self._heads).permute(2, 0, 3, 1, 4).unbind()
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        x = self._out.added(attended, x)
        return self._down.added(self._up.gelu(_layer_norm(x, self._mlp_ln)), x)


def _fuse_qkv(attention: MultiHeadAttention) -> tuple[Tensor, Tensor]:
    """One weight [3d, d] and bias [3d] for query, key and value; the module's own become views of them."""
    query, key, value = attention.query, attention.key, attention.value
    weight = torch.cat([query.weight.data, key.weight.data, value.weight.data])
    bias = torch.cat([query.bias.data, torch.zeros_like(query.bias.data), value.bias.data])
    for part, rows in zip((query, key, value), weight.chunk(3), strict=True):
        part.weight.data = rows
    return weight, bias


def _layer_norm(x: Tensor, module: nn.LayerNorm) -> Tensor:
    shape = list(module.normalized_shape)
    if x.is_cuda and x.dtype != torch.float32:  # the CUDA kernel wants one dtype, the CPU's mixes them in one pass
        return F.layer_norm(x.float(), shape, module.weight, module.bias, module.eps).to(x.dtype)
    return F.layer_norm(x, shape, module.weight, module.bias, module.eps)


def additive_mask(where: Tensor, dtype: torch.dtype) -> Tensor:
    """Minus infinity where it is true, else 0."""
    return torch.zeros(where.shape, dtype=dtype, device=where.device).masked_fill_(where, float("-inf"))


def key_padding_mask(lengths: Tensor, frames: int, dtype: torch.dtype) -> Tensor:
    """The mask [rows, 1, 1, frames] of rows that may attend their first `lengths` [rows] frames."""
    return additive_mask(torch.arange(frames, device=lengths.device) >= lengths[:, None, None, None], dtype)


def encoder_sha256(encoder: AudioEncoder) -> str:
    """What tells an encoder's weights from all others, whatever the precision and the format that they came in."""
    digest = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.to("cpu", torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()
