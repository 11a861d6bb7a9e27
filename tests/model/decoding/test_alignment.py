from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from random_whisper import ENGLISH, MULTILINGUAL, random_model, random_whisper
from whisper.model import disable_sdpa
from whisper.timing import dtw_cpu, find_alignment, median_filter, merge_punctuations

from streamer.events.plans import DecodeTask, HypothesisWord
from streamer.model.decoding.alignment import (
    APPENDED,
    PREPENDED,
    follow,
    hypothesis_words,
    median_of_seven,
    token_frames,
    warp,
)
from streamer.model.decoding.search import AudioWindow, Decoded, GreedySearch
from streamer.model.whisper import Model

FRAME = 320  # samples


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch):
    """openai-whisper's dynamic time warping as plain Python: its compiled form takes seconds to make."""
    monkeypatch.setattr("whisper.timing.dtw_cpu", dtw_cpu.py_func)


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model(0)


def test_the_median_of_seven_is_right_for_every_order():
    values = torch.tensor(list(product([0.0, 1.0], repeat=7)))  # 0/1 inputs decide a network of exchanges (Knuth)
    assert torch.equal(median_of_seven(values)[:, 3], values.median(dim=-1).values)


@pytest.mark.parametrize("frames", [1, 3, 4, 7, 200])
def test_the_median_filter_is_openai_whispers(frames):
    x = torch.randn(3, 5, frames)
    assert torch.equal(median_of_seven(x), median_filter(x, 7))


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 12), columns=st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_the_warp_is_openai_whispers(seed, rows, columns):
    cost = np.random.default_rng(seed).normal(size=(rows, columns))
    text, time = dtw_cpu.py_func(cost)
    first = np.pad(np.diff(text), (1, 0), constant_values=1).astype(bool)
    assert warp(cost) == time[first].tolist()


def best_total(cost: np.ndarray) -> float:
    totals = np.full((cost.shape[0] + 1, cost.shape[1] + 1), np.inf)
    totals[0, 0] = 0
    for i, j in np.ndindex(*cost.shape):
        totals[i + 1, j + 1] = cost[i, j] + min(totals[i, j], totals[i, j + 1], totals[i + 1, j])
    return float(totals[-1, -1])


@given(cost=arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 8)), elements=st.integers(-3, 3)))
@settings(max_examples=100, deadline=None)
def test_the_warp_is_cheapest_even_with_ties(cost):
    starts = warp(cost)
    assert starts[0] == 0
    assert all(left <= right for left, right in pairwise(starts))
    total = cost[-1, starts[-1] :].sum()
    for row, (start, following) in enumerate(pairwise(starts)):  # a path leaves a row downwards or by both
        down = cost[row, start : following + 1].sum()
        total += min(down, cost[row, start:following].sum()) if following > start else down
    assert total == pytest.approx(best_total(cost))


def decoded_and_reference(module, mel, task: DecodeTask, real_frames: int = 1500):
    model = Model(module)
    tokenizer = model.tokenizer(task.language)
    features = module.encoder(mel[None])[0]
    search = GreedySearch(model)
    (decoded,) = search.decode([AudioWindow(features, real_frames)], [task])
    tokens = [token for token in (*task.prefix, *decoded.tokens) if token < tokenizer.eot]
    theirs = find_alignment(module, tokenizer, tokens, mel, 2 * real_frames)
    return decoded, tokenizer, theirs


@pytest.mark.shared
@pytest.mark.parametrize(("second", "cut"), [(0, 0), (10, 3), (20, 0), (30, 5)])
def test_words_and_times_are_find_alignments(shared_dir, second, cut):
    import av
    import whisper

    module = whisper.load_model(str(shared_dir / "models" / "nano.pt"), "cpu")
    with av.open(str(shared_dir / "scenes" / "speech_clean_0.flac")) as container:
        samples = np.concatenate([frame.to_ndarray().mean(axis=0) for frame in container.decode(audio=0)])
    samples = samples[second * 16_000 : (second + 8) * 16_000].astype(np.float32)
    samples /= 32768.0 if np.abs(samples).max() > 1 else 1.0
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(samples))
    (whole, *_) = decoded_and_reference(module, mel, DecodeTask(), 400)
    task = DecodeTask(prefix=whole.tokens[:cut])
    decoded, tokenizer, theirs = decoded_and_reference(module, mel, task, 400)
    start = second * 16_000
    ours = hypothesis_words(decoded, tokenizer, start, start + 8 * 16_000)
    assert len(ours) >= 3
    compare(ours, theirs[cut:], start, slack=1)


@pytest.mark.parametrize("seed", range(8))
def test_random_models_align_by_openai_whispers_recipe(seed):
    """Attention that follows nothing moves with every row, so here the reference leaves out the row of end-of-text."""
    module = random_whisper(seed, vocabulary=(ENGLISH, MULTILINGUAL)[seed % 2], ending=3.0)
    mel = torch.randn(80, 3000, generator=torch.Generator().manual_seed(seed))
    task = DecodeTask(language="en", max_new_tokens=60)
    decoded, tokenizer, theirs = decoded_and_reference(module, mel, task, 600)
    merge_punctuations(theirs, PREPENDED, APPENDED)
    ours = hypothesis_words(decoded, tokenizer, 0, 600 * FRAME)
    assert [word.text for word in ours] == [word.word for word in theirs if word.word.strip()][: len(ours)]
    weights = decoded.attention
    std, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    matrix = median_filter((weights - mean) / std, 7).mean(axis=0)
    text = [place for place, token in enumerate((*decoded.forced, *decoded.tokens)) if token < tokenizer.eot]
    wanted = [place - 1 for place in text] + (text[-1:] if text[-1] < len(matrix) else [])
    rows, time = dtw_cpu.py_func(-matrix[wanted].double().numpy())
    frames = time[np.pad(np.diff(rows), (1, 0), constant_values=1).astype(bool)].tolist()
    # openai-whisper sums in float32, so two paths that are nearly as cheap may change places
    np.testing.assert_allclose(token_frames(follow(weights), text)[: len(frames)], frames, atol=1)


@pytest.mark.parametrize("seed", range(6))
def test_attention_rows_are_the_models_own(seed):
    module = random_whisper(seed)
    model = Model(module)
    features = torch.randn(1500, 64, generator=torch.Generator().manual_seed(seed))
    prefix = (600, 700, 800)
    task = DecodeTask(language="en", prompt=(5, 6, 7), prefix=prefix, max_new_tokens=12)
    (decoded,) = GreedySearch(model).decode([AudioWindow(features, 500)], [task])
    seen = []
    hooks = [
        block.cross_attn.register_forward_hook(lambda _, __, outs: seen.append(outs[-1][0]))
        for block in module.decoder.blocks
    ]
    with torch.no_grad(), disable_sdpa():
        read = [model.tokenizer().sot_prev, 5, 6, 7, *decoded.forced, *decoded.tokens]
        module.decoder(torch.tensor([read]), features[None])
    for hook in hooks:
        hook.remove()
    heads = torch.stack([seen[layer][head] for layer, head in model.alignment_heads])
    expected = heads[:, 4 : 4 + decoded.attention.shape[1], :500].softmax(dim=-1)
    torch.testing.assert_close(decoded.attention, expected, atol=1e-4, rtol=0)


def compare(ours: tuple[HypothesisWord, ...], theirs: list, start: int, slack: int) -> None:
    assert [word.text for word in ours] == [word.word for word in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.tokens == tuple(other.tokens)
        assert abs(mine.start_sample - start - round(other.start * 16_000)) <= slack * FRAME
        assert abs(mine.end_sample - start - round(other.end * 16_000)) <= slack * FRAME
        assert mine.probability == pytest.approx(other.probability, abs=1e-3)


def made_up(tokens: tuple[int, ...], frames: list[int], *, prefix: tuple[int, ...] = (), real: int = 100) -> Decoded:
    """A decode whose token i attends `frames[i]` (the prefix frame 0) and whose end attends the last frame."""
    forced = (50258, 50259, 50359, 50363, *prefix)
    attended = [*[0] * (len(forced) - 1), *frames, real - 1]
    distance = torch.arange(real) - torch.tensor(attended)[:, None]
    noise = torch.randn(len(attended), real, generator=torch.Generator().manual_seed(0))
    attention = (noise + 8 * torch.exp(-((distance / 3) ** 2))).softmax(dim=-1)[None]
    return Decoded(
        forced=forced,
        tokens=tokens,
        logprobs=(0.0,) * len(tokens),
        probabilities=tuple(0.1 * (i + 1) for i in range(len(tokens))),
        sum_logprob=0.0,
        no_speech_probability=0.0,
        language="en",
        language_probability=1.0,
        attention=attention,
        complete=True,
        steps=1,
        accepted=0,
    )


def test_punctuation_joins_its_word_and_sub_words_join(model):
    tokenizer = model.tokenizer("en")
    tokens = tuple(tokenizer.encode(' hello, "streamers" again.'))
    words = hypothesis_words(made_up(tokens, [10 * i for i in range(len(tokens))]), tokenizer, 3200, 3200 + 100 * FRAME)
    assert [word.text for word in words] == [" hello,", ' "streamers"', " again."]
    assert [(word.mark, word.mark_tokens, word.is_mark) for word in words] == [(m, 1, False) for m in (",", '"', ".")]
    for word in words:
        bare, mark = word.parted()
        assert (bare.text + mark.text, bare.tokens + mark.tokens) == (word.text, word.tokens)
        assert (bare.mark, mark.is_mark) == ("", True)
    assert tuple(token for word in words for token in word.tokens) == tokens
    assert words[0].probability == pytest.approx(0.1)
    assert words[0].attended_sample == pytest.approx(3200 + 160, abs=3 * FRAME)  # of "hello", not of its comma


def test_languages_without_spaces_split_by_character_and_never_inside_one(model):
    tokenizer = model.tokenizer("ja")
    tokens = tuple(tokenizer.encode("東京の鰻"))
    assert len(tokens) > len("東京の鰻") - 1
    for cut in range(1, len(tokens) + 1):
        words = hypothesis_words(made_up(tokens[:cut], [5 * i for i in range(cut)]), tokenizer, 0, 100 * FRAME)
        text = "".join(word.text for word in words)
        assert "東京の鰻".startswith(text)
    assert [word.text for word in words][-1] == "鰻"


def test_words_start_where_the_prefix_ends(model):
    tokenizer = model.tokenizer("en")
    prefix, new = tuple(tokenizer.encode(" one two")), tuple(tokenizer.encode(" three four"))
    decoded = made_up(new, [60, 80], prefix=prefix)
    words = hypothesis_words(decoded, tokenizer, 0, 100 * FRAME)
    assert [word.text for word in words] == [" three", " four"]
    assert words[0].start_sample > 0
    assert words[0].start_sample <= 60 * FRAME < words[1].start_sample <= 80 * FRAME


@given(seed=st.integers(0, 10**6), count=st.integers(1, 40), real=st.integers(1, 120), prefix=st.integers(0, 10))
@example(seed=102, count=25, real=1, prefix=0)  # what follows the half character is no word
@settings(max_examples=60, deadline=None)
def test_times_are_ordered_and_inside_the_window_whatever_was_attended(model, seed, count, real, prefix):
    generator = np.random.default_rng(seed)
    tokens = tuple(int(token) for token in generator.integers(0, 51_865, count))
    decoded = made_up(tokens, [0] * count, prefix=tuple(range(1000, 1000 + prefix)))
    rows = decoded.attention.shape[1] - int(generator.integers(0, 2))
    attention = torch.from_numpy(generator.dirichlet(np.full(real, 0.1), (2, rows)).astype(np.float32))
    start, end = 16_000, 16_000 + max(real * FRAME - int(generator.integers(0, FRAME)), count + 1)
    for language in ("en", "ja"):
        words = hypothesis_words(replace(decoded, attention=attention), model.tokenizer(language), start, end)
        assert all(start <= word.start_sample <= word.end_sample <= end for word in words)
        assert all(a.start_sample < b.start_sample and a.end_sample <= b.start_sample for a, b in pairwise(words))
        assert all(start <= word.attended_sample < end for word in words)
        assert all(word.text.strip() and word.probability >= 0 for word in words)
        broken = words and words[-1].text.endswith("\N{REPLACEMENT CHARACTER}")
        assert not broken or words[-1].tokens != tokens[-len(words[-1].tokens) :]  # in the middle of nonsense it may be
