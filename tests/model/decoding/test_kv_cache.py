from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_whisper import random_model

from streamer.model.decoding import kv_cache
from streamer.model.decoding.decoder import Decoder
from streamer.model.decoding.kv_cache import audio_end, text_end
from streamer.model.graphs import BATCH_BUCKETS
from streamer.model.whisper import Model


@cache
def model() -> Model:
    return random_model(0)


def features(seed: int, frames: int) -> torch.Tensor:
    return torch.randn(frames, 64, generator=torch.Generator().manual_seed(seed))


@given(
    pieces=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), min_size=1, max_size=4),
    seed=st.integers(0, 999),
    block=st.sampled_from([1, 8]),
)
@settings(max_examples=25, deadline=None)
@torch.inference_mode()
def test_tokens_read_in_ragged_pieces_give_what_the_module_gives_for_the_whole(pieces, seed, block):
    """Rows of different length, in different pieces, over audio of different length; rows leave when they are done."""
    decoder = Decoder(model().decoder, model().alignment_heads, torch.float32)
    decoder._block = block  # as with packed weights
    held = decoder.new_cache()
    audio = [features(seed + row, 20 + 7 * row) for row in range(len(pieces))]
    texts = [[(31 * seed + 17 * row + i) % 50_000 for i in range(sum(sizes))] for row, sizes in enumerate(pieces)]
    expected = [model().decoder(torch.tensor([text]), heard[None])[0] for text, heard in zip(texts, audio, strict=True)]
    decoder.open(held, audio, [len(heard) for heard in audio])
    rows = list(range(len(pieces)))  # slot -> row
    read = [0] * len(pieces)
    turn = 0
    while rows:
        sizes = [pieces[row][turn] for row in rows]
        fed = [texts[row][read[row] : read[row] + size] for row, size in zip(rows, sizes, strict=True)]
        hidden = decoder.step(held, fed)
        for slot, (row, size) in enumerate(zip(rows, sizes, strict=True)):
            logits = decoder.logits(hidden[slot, :size])
            torch.testing.assert_close(logits, expected[row][read[row] : read[row] + size], atol=2e-3, rtol=1e-3)
            read[row] += size
        turn += 1
        for slot in reversed(range(len(rows))):
            if turn == len(pieces[rows[slot]]):
                rows[slot] = rows[held.release(slot)]
                rows.pop()
    assert held.lengths == []


@torch.inference_mode()
def test_tokens_can_be_taken_back():
    decoder = Decoder(model().decoder, model().alignment_heads, torch.float32)
    held = decoder.new_cache()
    decoder.open(held, [features(1, 50), features(2, 30)], [50, 20])
    decoder.step(held, [[1, 2, 3], [4, 5]])
    expected = decoder.step(held, [[6], [7]])
    held.lengths = [2, 1]
    decoder.step(held, [[3, 99, 98], [5, 97, 96]])
    held.lengths = [3, 2]
    torch.testing.assert_close(decoder.step(held, [[6], [7]]), expected)


@given(
    rows=st.lists(st.lists(st.integers(1, 12), min_size=2, max_size=2), min_size=1, max_size=3),
    block=st.sampled_from([1, 8]),
    data=st.data(),
)
@settings(max_examples=25, deadline=None)
@torch.inference_mode()
def test_wanted_states_are_those_of_the_whole_step(rows, block, data):
    decoder = Decoder(model().decoder, model().alignment_heads, torch.float32)
    decoder._block = block
    one, other = decoder.new_cache(), decoder.new_cache()
    audio = [features(row, 30 + row) for row in range(len(rows))]
    for held in (one, other):
        decoder.open(held, audio, [len(heard) for heard in audio])
    for turn in range(2):
        fed = [[7 * turn + place for place in range(sizes[turn])] for sizes in rows]
        places = [(slot, place) for slot, tokens in enumerate(fed) for place in range(len(tokens))]
        wanted = data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=12))
        whole = decoder.step(one, fed)
        expected = torch.stack([whole[slot, place] for slot, place in wanted])
        torch.testing.assert_close(decoder.step(other, fed, wanted), expected, atol=1e-4, rtol=1e-4)
    for slot in range(len(rows)):
        left, right = (decoder.attention(held, slot, 0, 20) for held in (one, other))
        torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-4)


def test_recorded_steps_look_at_few_lengths_all_of_which_are_kept():
    texts, audio = {text_end(length, 448) for length in range(1, 449)}, {audio_end(frames) for frames in range(1, 1501)}
    assert all(text_end(length, 448) >= length for length in range(1, 449))
    assert all(audio_end(frames) >= frames for frames in range(1, 3000))
    assert not any(end % 8 for end in texts | audio)
    assert 2 * len(texts) * len(audio) * len(BATCH_BUCKETS) <= kv_cache.RECORDED_STEPS


def test_buffers_that_do_not_fit_leave_nothing_behind():
    decoder = Decoder(model().decoder, model().alignment_heads, torch.float32)
    held = decoder.new_cache()
    held.open([100], 100)
    zeros = held._zeros

    def full(*size: int) -> torch.Tensor:
        if len(held.own) and size[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return zeros(*size)

    held._zeros = full
    with pytest.raises(torch.OutOfMemoryError):
        held.open([100] * 4, 100)
    held.open([100] * 2, 300)  # the next smaller ones are allocated, not taken for granted
    assert held.cross[0].shape == (2, 2, 4, 512, 16)
    assert held.own[0].shape[0] == held.queries.shape[0] == 2


def test_buffers_grow_and_stay():
    decoder = Decoder(model().decoder, model().alignment_heads, torch.float32)
    held = decoder.new_cache()
    held.open([100], 100)
    assert held.cross[0].shape == (1, 2, 4, 256, 16)
    held.open([600, 10, 10], 620)
    buffer = held.cross[0]
    assert buffer.shape == (3, 2, 4, 1024, 16)
    held.open([20], 40)
    assert held.cross[0] is buffer
