from dataclasses import replace

import pytest
import torch
from random_whisper import ENGLISH, MULTILINGUAL, WITH_CANTONESE, random_model, random_whisper
from whisper.decoding import DecodingOptions, decode
from whisper.model import Whisper

from streamer.errors import EngineError
from streamer.events.plans import DecodeTask
from streamer.model.decoding.filters import log_mass
from streamer.model.decoding.search import AudioWindow, Decoded, GreedySearch
from streamer.model.whisper import Model

BUDGET = 40
KINDS = [(0, MULTILINGUAL, 80), (1, ENGLISH, 80), (2, WITH_CANTONESE, 128), (3, MULTILINGUAL, 80)]


def window(seed: int, frames: int = 1500) -> AudioWindow:
    features = torch.randn(frames, 64, generator=torch.Generator().manual_seed(seed))
    return AudioWindow(features, frames)


def reference(module: Whisper, heard: AudioWindow, **options):
    options = {"language": "en", "without_timestamps": True, "sample_len": BUDGET} | options
    return decode(module, heard.features, DecodingOptions(fp16=False, **options))


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize(("seed", "vocabulary", "n_mels"), KINDS)
def test_tokens_are_those_of_openai_whisper(seed, vocabulary, n_mels, timestamps):
    module = random_whisper(seed, vocabulary=vocabulary, n_mels=n_mels, ending=2.0)
    search = GreedySearch(Model(module))
    found = []
    for number in range(4):
        heard = window(10 * seed + number)
        task = DecodeTask(language="en", max_new_tokens=BUDGET, timestamps=timestamps)
        (ours,) = search.decode([heard], [task])
        theirs = reference(module, heard, without_timestamps=not timestamps)
        assert list(ours.tokens) == theirs.tokens
        assert ours.mean_logprob == pytest.approx(theirs.avg_logprob, abs=1e-4)
        assert ours.no_speech_probability == pytest.approx(theirs.no_speech_prob, abs=1e-6)
        found += theirs.tokens
    assert len(set(found)) > 20  # the comparison means nothing on a model that repeats one token


@pytest.mark.parametrize("length", [1, 30, 223, 300])
def test_a_prompt_is_cut_as_openai_whisper_cuts_it(length):
    module = random_whisper(5)
    prompt = [(37 * i) % 50_000 for i in range(length)]
    task = DecodeTask(language="de", prompt=tuple(prompt), max_new_tokens=10)
    (ours,) = GreedySearch(Model(module)).decode([window(1)], [task])
    theirs = reference(module, window(1), language="de", prompt=prompt, sample_len=10)
    assert list(ours.tokens) == theirs.tokens
    assert ours.no_speech_probability == pytest.approx(theirs.no_speech_prob, abs=1e-6)


def test_the_context_of_448_tokens_ends_the_text_as_in_openai_whisper():
    module = random_whisper(6, ending=0.0)
    prompt = list(range(1000, 1223))
    task = DecodeTask(language="en", prompt=tuple(prompt))
    (ours,) = GreedySearch(Model(module)).decode([window(2)], [task])
    theirs = reference(module, window(2), prompt=prompt, sample_len=None)
    assert list(ours.tokens) == theirs.tokens
    assert not ours.complete
    assert len(ours.attention[0]) == len(ours.forced) + len(ours.tokens) - 1


def test_translate_and_language_tokens_stand_where_they_belong():
    module = random_whisper(7)
    (ours,) = GreedySearch(Model(module)).decode(
        [window(3)], [DecodeTask(language="ja", task="translate", max_new_tokens=BUDGET)]
    )
    theirs = reference(module, window(3), language="ja", task="translate")
    assert list(ours.tokens) == theirs.tokens


def test_the_language_is_detected_on_the_same_features():
    module = random_whisper(8)
    search = GreedySearch(Model(module))
    for number in range(3):
        (ours,) = search.decode([window(number)], [DecodeTask(max_new_tokens=BUDGET)])
        _, probabilities = module.detect_language(window(number).features)
        best = max(probabilities, key=probabilities.get)
        assert ours.language == best
        assert ours.language_probability == pytest.approx(probabilities[best], abs=1e-5)
        assert list(ours.tokens) == reference(module, window(number), language=None).tokens


def test_english_models_are_never_asked_for_a_language():
    search = GreedySearch(random_model(9, vocabulary=ENGLISH))
    (ours,) = search.decode([window(0)], [DecodeTask(max_new_tokens=3)])
    assert (ours.language, ours.language_probability) == ("en", 1.0)


def tasks_and_windows() -> tuple[list[AudioWindow], list[DecodeTask]]:
    windows = [window(20, 100), window(21, 750), window(22, 333), window(23, 100), window(24, 1500)]
    tasks = [
        DecodeTask(language="en", max_new_tokens=BUDGET),
        DecodeTask(language="fr", prefix=tuple(range(500, 517)), max_new_tokens=7),
        DecodeTask(max_new_tokens=BUDGET, timestamps=True),
        DecodeTask(language="en", prompt=tuple(range(900, 960)), prefix=(440, 441), max_new_tokens=BUDGET),
        DecodeTask(language="zh", max_new_tokens=1),
    ]
    return windows, tasks


def same(left: Decoded, right: Decoded) -> None:
    assert left.tokens == right.tokens
    assert (left.language, left.complete, left.forced) == (right.language, right.complete, right.forced)
    assert left.probabilities == pytest.approx(right.probabilities, abs=1e-4)
    assert left.logprobs == pytest.approx(right.logprobs, abs=1e-4)
    assert left.sum_logprob == pytest.approx(right.sum_logprob, abs=1e-3)
    assert left.no_speech_probability == pytest.approx(right.no_speech_probability, abs=1e-6)
    torch.testing.assert_close(left.attention, right.attention, atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_ragged_batch_decodes_as_each_window_alone(seed):
    search = GreedySearch(random_model(seed, ending=2.0))
    windows, tasks = tasks_and_windows()
    together = search.decode(windows, tasks)
    for item, heard, task in zip(together, windows, tasks, strict=True):
        (alone,) = search.decode([heard], [task])
        same(item, alone)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_draft_never_changes_the_text(seed):
    search = GreedySearch(random_model(seed, ending=2.0))
    windows, tasks = tasks_and_windows()
    plain = search.decode(windows, tasks)
    for wrong_at in (None, 0, 3):
        drafted = []
        for task, item in zip(tasks, plain, strict=True):
            draft = [*item.tokens, 11, 12, 13]
            if wrong_at is not None:
                draft[min(wrong_at, len(draft) - 1)] = 1234
            drafted.append(replace(task, draft=tuple(draft)))
        for left, right in zip(search.decode(windows, drafted), plain, strict=True):
            same(left, right)


def test_a_right_draft_costs_one_step():
    search = GreedySearch(random_model(4, ending=2.0))
    task = DecodeTask(language="en", max_new_tokens=BUDGET)
    (plain,) = search.decode([window(30)], [task])
    assert (search.windows, search.accepted) == (1, 0)
    assert search.passes == plain.steps
    (drafted,) = search.decode([window(30)], [replace(task, draft=plain.tokens)])
    assert (search.windows, search.passes, search.accepted) == (2, plain.steps + 1, drafted.accepted)
    assert (drafted.steps, drafted.accepted) == (1, len(plain.tokens) - (0 if plain.complete else 1))


def test_a_prefix_that_says_it_all_may_be_followed_by_the_end():
    module = random_whisper(10, ending=3.0)
    search = GreedySearch(Model(module))
    (whole,) = search.decode([window(40)], [DecodeTask(language="en")])
    assert whole.complete
    assert whole.tokens
    (rest,) = search.decode([window(40)], [DecodeTask(language="en", prefix=whole.tokens)])
    assert (rest.tokens, rest.complete) == ((), True)


@pytest.mark.parametrize("cut", [1, 5, 17])
def test_a_forced_prefix_is_continued_as_if_it_had_been_written(cut):
    search = GreedySearch(random_model(11))
    task = DecodeTask(language="en", max_new_tokens=BUDGET)
    (whole,) = search.decode([window(41)], [task])
    rest_task = replace(task, prefix=whole.tokens[:cut], max_new_tokens=BUDGET - cut)
    (rest,) = search.decode([window(41)], [rest_task])
    assert rest.tokens == whole.tokens[cut:]
    assert rest.forced[-cut:] == whole.tokens[:cut]
    torch.testing.assert_close(rest.attention, whole.attention, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("prompt", "prefix", "budget"), [(400, 430, 5), (0, 600, 5), (223, 300, 224), (9, 3, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_does_not_fit_into_the_context_is_cut_without_failing(prompt, prefix, budget, dtype):
    search = GreedySearch(random_model(12, dtype=dtype))
    task = DecodeTask(
        language="en", prompt=tuple(range(prompt)), prefix=tuple(range(1000, 1000 + prefix)), max_new_tokens=budget
    )
    (ours,) = search.decode([window(42)], [task])
    assert len(ours.tokens) <= budget
    assert len(ours.forced) + len(ours.tokens) <= 449


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_write_nearly_what_float32_writes(dtype):
    windows = [window(50, 300), window(51, 200)]
    tasks = [DecodeTask(language="en", max_new_tokens=12)] * 2
    wide = GreedySearch(random_model(13)).decode(windows, tasks)
    search = GreedySearch(random_model(13, dtype=dtype))
    narrow = search.decode(windows, [replace(task, prefix=item.tokens) for task, item in zip(tasks, wide, strict=True)])
    drafted = search.decode(windows, [replace(task, draft=item.tokens) for task, item in zip(tasks, wide, strict=True)])
    for item, rest, left in zip(wide, narrow, drafted, strict=True):
        assert rest.attention.shape[1] >= item.attention.shape[1]
        assert (rest.attention[:, : item.attention.shape[1]] - item.attention).abs().mean() < 0.01
        assert left.probabilities[0] == pytest.approx(item.probabilities[0], abs=0.1)


def test_a_broken_model_is_an_error_and_leaves_nothing_behind():
    search = GreedySearch(random_model(14))
    task = DecodeTask(language="en", max_new_tokens=4)
    (before,) = search.decode([window(60)], [task])
    broken = AudioWindow(torch.full((1500, 64), float("nan")), 1500)
    with pytest.raises(EngineError, match="not finite"):
        search.decode([window(60), broken], [task, task])
    (after, other) = search.decode([window(60), window(61, 40)], [task, task])
    assert after.tokens == before.tokens
    assert all(p == p for p in other.probabilities)


def test_an_unknown_language_is_named():
    search = GreedySearch(random_model(15))
    with pytest.raises(EngineError, match="klingon"):
        search.decode([window(0)], [DecodeTask(language="klingon")])


def test_nothing_to_decode_is_nothing():
    assert GreedySearch(random_model(16)).decode([], []) == []


def test_the_mass_is_that_of_logsumexp_and_what_is_not_finite_stays_so():
    logits = torch.randn(3, 1000) * torch.tensor([[0.01], [10.0], [300.0]])
    logits[:, ::7] = float("-inf")
    torch.testing.assert_close(log_mass(logits), logits.logsumexp(dim=-1))
    assert not log_mass(torch.full((1, 5), float("-inf"))).isfinite().any()
    assert not log_mass(torch.tensor([[1.0, float("nan")]])).isfinite().any()
