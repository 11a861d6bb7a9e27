"""The keys and values of a batch of windows, addressed by slot, and where the tokens of a step stand in them.

A slot belongs to one window for one decode. Slots 0..n-1 are in use; when a window is done, the last one in use moves
into its place, so that a step always works on one contiguous piece and never gathers.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from streamer.model.encoder import additive_mask, key_padding_mask
from streamer.model.graphs import Graphs, Recorder, batch_bucket
from streamer.model.memory import send

# Text positions and encoder frames (5, 10, 20 and 30 s) that recorded steps look at; the cross-attention buffers grow
# by the latter. Multiples of 8: else attention's kernels on a GPU would pad the masks anew in each layer of each step.
TEXT_ENDS = (64, 128, 192, 256)  # then all positions
AUDIO_ENDS = (256, 512, 1024, 1536)
RECORDED_STEPS = 256  # kinds of decoder steps that are kept: these for each number of rows, without and with time marks


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What decides the buffers' sizes: decoder layers, width, heads, text positions, alignment heads."""

    layers: int
    width: int
    heads: int
    positions: int
    alignment_heads: int

    @property
    def head_width(self) -> int:
        """Values of one attention head."""
        return self.width // self.heads


class KVCache:
    """Buffers for self-attention, cross-attention and the queries of the alignment heads.

    - `own[layer]` [slots, positions + 1, 2 * width]: key | value of each text position; the last position is scratch,
      where the padding of a ragged step is written and nothing ever reads.
    - `cross[layer]` [slots, 2, heads, frames, head width]: keys, then values, of each encoder frame. Every step reads
      them all, so each head's lie in one piece.
    - `queries` [slots, positions + 1, alignment heads, head width]: what each position asked the audio.
    - `lengths`: text positions in use, per slot.  `frames`: encoder frames that may be attended, per slot.
    - `graphs`: steps that were recorded on these buffers, dropped when new ones are allocated. Where there are any,
      there are as many slots as the widest of them has.
    """

    def __init__(
        self, shape: CacheShape, *, dtype: torch.dtype, device: torch.device, recorder: Recorder | None = None
    ):
        self.shape = shape
        self.dtype = dtype
        self.device = device
        self.lengths: list[int] = []
        self.frames: list[int] = []
        self._slots = 0
        self._frame_capacity = 0
        self.own: list[Tensor] = []
        self.cross: list[Tensor] = []
        self.queries = torch.empty(0)
        self.graphs = Graphs(recorder, device, RECORDED_STEPS)

    def open(self, frames: Sequence[int], longest: int) -> None:
        """Take one slot for each window; the buffers grow when they must.

        `frames`: the encoder frames of each window that may be attended; `longest`: the most that will be written.
        """
        slots = batch_bucket(len(frames)) if self.graphs.records else len(frames)
        if slots > self._slots or longest > self._frame_capacity:
            self._allocate(max(slots, self._slots), audio_end(max(longest, self._frame_capacity)))
        self.lengths = [0] * len(frames)
        self.frames = list(frames)

    @contextmanager
    def first(self, count: int) -> Iterator[None]:
        """Inside, the first `count` slots are all there are; behind it all are there again, and empty."""
        frames = self.frames
        self.frames, self.lengths = frames[:count], [0] * count
        try:
            yield
        finally:
            self.frames, self.lengths = frames, [0] * len(frames)

    def release(self, slot: int) -> int:
        """Give the slot back: the last one in use moves into it. Returns the slot that was moved or closed."""
        last = len(self.lengths) - 1
        if slot != last:
            length, frames = self.lengths[last], self.frames[last]
            for own, cross in zip(self.own, self.cross, strict=True):
                own[slot, :length].copy_(own[last, :length])
                cross[slot, :, :, :frames].copy_(cross[last, :, :, :frames])
            self.queries[slot, :length].copy_(self.queries[last, :length])
            self.lengths[slot], self.frames[slot] = length, frames
        self.lengths.pop()
        self.frames.pop()
        return last

    def free(self) -> None:
        """Give the buffers' memory back, and what was recorded on them; the next windows allocate what they need."""
        self.graphs.drop()
        self.lengths, self.frames = [], []
        self.own, self.cross, self.queries = [], [], torch.empty(0)
        self._slots = self._frame_capacity = 0

    def reset(self) -> None:
        """Forget everything, also what a failed step may have left (a NaN that is masked still spoils a sum)."""
        self.lengths, self.frames = [], []
        for buffer in (*self.own, *self.cross, self.queries):
            buffer.zero_()

    def _allocate(self, slots: int, frames: int) -> None:
        shape = self.shape
        self.free()  # first, so that old and new ones need not fit beside each other
        positions = shape.positions + 1
        self.own = [self._zeros(slots, positions, 2 * shape.width) for _ in range(shape.layers)]
        self.cross = [self._zeros(slots, 2, shape.heads, frames, shape.head_width) for _ in range(shape.layers)]
        self.queries = self._zeros(slots, positions, shape.alignment_heads, shape.head_width)
        self._slots, self._frame_capacity = slots, frames  # only now: memory may run out in between

    def _zeros(self, *size: int) -> Tensor:
        return torch.zeros(size, dtype=self.dtype, device=self.device)


def text_end(length: int, positions: int) -> int:
    """How many of a cache's text `positions` a recorded step looks at that has `length` of them in use."""
    return next((end for end in TEXT_ENDS if length <= end < positions), positions)


def audio_end(frames: int) -> int:
    """So many encoder frames, rounded up to what recorded steps look at; whole blocks of the largest behind that."""
    return next((end for end in AUDIO_ENDS if frames <= end), -(-frames // AUDIO_ENDS[-1]) * AUDIO_ENDS[-1])


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
