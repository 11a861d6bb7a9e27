import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_whisper import random_model

from streamer.decoding.decoder import Decoder

MODEL = random_model(0)


def features(seed: int, frames: int) -> torch.Tensor:
    return torch.randn(frames, 64, generator=torch.Generator().manual_seed(seed))


@given(
    pieces=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), min_size=1, max_size=4),
    seed=st.integers(0, 999),
)
@settings(max_examples=25, deadline=None)
@torch.inference_mode()
def test_tokens_read_in_ragged_pieces_give_what_the_module_gives_for_the_whole(pieces, seed):
    """Rows of different length, read in different pieces, over audio of different length; rows leave when they are done."""
    decoder = Decoder(MODEL.decoder, MODEL.alignment_heads, torch.float32)
    cache = decoder.new_cache()
    audio = [features(seed + row, 20 + 7 * row) for row in range(len(pieces))]
    texts = [[(31 * seed + 17 * row + i) % 50_000 for i in range(sum(sizes))] for row, sizes in enumerate(pieces)]
    expected = [MODEL.decoder(torch.tensor([text]), heard[None])[0] for text, heard in zip(texts, audio, strict=True)]
    decoder.open(cache, audio)
    rows = list(range(len(pieces)))  # slot -> row
    read = [0] * len(pieces)
    turn = 0
    while rows:
        sizes = [pieces[row][turn] for row in rows]
        fed = [texts[row][read[row] : read[row] + size] for row, size in zip(rows, sizes, strict=True)]
        hidden = decoder.step(cache, fed)
        for slot, (row, size) in enumerate(zip(rows, sizes, strict=True)):
            logits = decoder.logits(hidden[slot, :size])
            torch.testing.assert_close(logits, expected[row][read[row] : read[row] + size], atol=2e-3, rtol=1e-3)
            read[row] += size
        turn += 1
        for slot in reversed(range(len(rows))):
            if turn == len(pieces[rows[slot]]):
                rows[slot] = rows[cache.release(slot)]
                rows.pop()
    assert cache.lengths == []


@torch.inference_mode()
def test_tokens_can_be_taken_back():
    decoder = Decoder(MODEL.decoder, MODEL.alignment_heads, torch.float32)
    cache = decoder.new_cache()
    decoder.open(cache, [features(1, 50), features(2, 30)])
    decoder.step(cache, [[1, 2, 3], [4, 5]])
    expected = decoder.step(cache, [[6], [7]])
    cache.lengths = [2, 1]
    decoder.step(cache, [[3, 99, 98], [5, 97, 96]])
    cache.lengths = [3, 2]
    torch.testing.assert_close(decoder.step(cache, [[6], [7]]), expected)


def test_buffers_grow_and_stay():
    decoder = Decoder(MODEL.decoder, MODEL.alignment_heads, torch.float32)
    cache = decoder.new_cache()
    cache.open([100])
    assert cache.cross[0].shape == (1, 250, 128)
    cache.open([600, 10, 10])
    held = cache.cross[0]
    assert held.shape == (3, 750, 128)
    cache.open([20])
    assert cache.cross[0] is held
