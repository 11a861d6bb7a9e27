"""Where the tokens of one decoder step stand: ids, positions, and what each of them may see."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamer.model.decoding.kv_cache import KVCache
from streamer.model.masks import additive_mask, key_padding_mask
from streamer.model.transfer import send


@dataclass(slots=True)
class Places:
    """Rows of `longest` tokens for the first `slots` of a cache, padded on the right.

    A query sees the keys up to its own position, so what padding or an earlier, longer row left behind is never seen.
    Masks are what is added to the scores: 0 or minus infinity (attention would turn truth values into them each time).

    - `ids`: [slots, longest].  `embedded`: the positions whose embedding is added, [slots, longest] or [longest].
    - `end`, `frames`: how many text positions and encoder frames are looked at; the masks say which of them are seen.
    - `positions`: where each token's values are written, [slots, longest]; None: everywhere at the last `longest`
      before `end`.
    """

    slots: int
    longest: int
    end: int
    frames: int
    ids: Tensor
    embedded: Tensor
    text_mask: Tensor | None
    audio_mask: Tensor | None
    positions: Tensor | None = None
    rows: Tensor | None = None

    def write(self, buffer: Tensor, values: Tensor) -> None:
        """Put values [slots, longest, ...] where the step's tokens stand in a buffer [slots, positions, ...]."""
        if self.positions is None:
            buffer[: len(values), self.end - self.longest : self.end] = values
        else:
            buffer[self.rows, self.positions] = values


def ragged_places(cache: KVCache, tokens: Sequence[Sequence[int]], block: int) -> Places:
    """The places of `tokens`, any number for each slot, behind what the cache holds.

    Several tokens are padded to whole blocks. The padding of ragged rows goes to the scratch position, that of even
    ones to where the next tokens will be written.
    """
    device, starts, scratch = cache.device, cache.lengths, cache.shape.positions
    longest = max(map(len, tokens))
    even = all(len(row) == longest for row in tokens) and all(start == starts[0] for start in starts)
    if longest > 1 and starts[0] + longest + block <= scratch:
        longest = -(-longest // block) * block
    frames = max(cache.frames)
    ids = send([[*row, *[0] * (longest - len(row))] for row in tokens], device)
    audio_mask = None
    if any(count != frames for count in cache.frames):
        audio_mask = key_padding_mask(send(cache.frames, device), frames, cache.dtype)
    if even:
        end = starts[0] + longest
        embedded = torch.arange(starts[0], end, device=device)
        keys = torch.arange(end, device=device)
        text_mask = None if longest == 1 else additive_mask(keys > keys[starts[0] :, None], cache.dtype)
        return Places(len(tokens), longest, end, frames, ids, embedded, text_mask, audio_mask)
    end = max(start + len(row) for start, row in zip(starts, tokens, strict=True))
    padded = [
        [*range(start, start + len(row)), *[scratch] * (longest - len(row))]
        for start, row in zip(starts, tokens, strict=True)
    ]
    return _scattered(ids, send(padded, device), audio_mask, end, frames, cache)


def single_places(
    cache: KVCache, ids: Tensor, positions: Tensor, audio_lengths: Tensor, end: int, frames: int
) -> Places:
    """The places of one token for each slot, all from tensors [slots]: what is recorded with them fits any step.

    `audio_lengths`: encoder frames that each may attend. An idle slot writes to the scratch position, attends one.
    """
    audio_mask = key_padding_mask(audio_lengths, frames, cache.dtype)
    return _scattered(ids[:, None], positions[:, None], audio_mask, end, frames, cache)


def _scattered(
    ids: Tensor, positions: Tensor, audio_mask: Tensor | None, end: int, frames: int, cache: KVCache
) -> Places:
    """Each token at a position of its own; those of padding are the scratch position, behind all others."""
    slots, longest = ids.shape
    later = torch.arange(end, device=ids.device) > positions[:, :, None]
    return Places(
        slots=slots,
        longest=longest,
        end=end,
        frames=frames,
        ids=ids,
        embedded=positions.clamp(max=cache.shape.positions - 1),
        text_mask=additive_mask(later[:, None], cache.dtype),
        audio_mask=audio_mask,
        positions=positions,
        rows=torch.arange(slots, device=ids.device)[:, None],
    )
