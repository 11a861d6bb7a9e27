"""The language that is spoken, asked for beside the one that is given: on random multilingual weights."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from random_whisper import ENGLISH, noise_frames, random_model

from streamer.errors import EngineError
from streamer.events.plans import DecodeTask, StepRequest
from streamer.model.decoding.kv_cache import KVCache
from streamer.model.decoding.search import AudioWindow, GreedySearch
from streamer.model.engine import Engine


def window(seed: int) -> AudioWindow:
    features = torch.randn(1500, 64, generator=torch.Generator().manual_seed(seed))
    return AudioWindow(features, 1500)


def counted(search: GreedySearch) -> list[int]:
    """The decoder's steps from now on, with the number of windows in each."""
    steps: list[int] = []
    step = search.decoder.step

    def counting(cache: KVCache, feed: Sequence[Sequence[int]], *rest: Any) -> torch.Tensor:
        steps.append(len(feed))
        return step(cache, feed, *rest)

    search.decoder.step = counting  # type: ignore[method-assign]
    return steps


def test_the_language_that_is_given_is_kept_and_one_decoder_step_says_which_is_spoken():
    search = GreedySearch(random_model(4))
    windows = [window(number) for number in range(4)]
    plain = [DecodeTask("de", max_new_tokens=6)] * 4
    asked = [DecodeTask("de", max_new_tokens=6, detect=number % 2 == 0) for number in range(4)]
    detected = search.decode(windows, [DecodeTask(max_new_tokens=6)] * 4)
    steps = counted(search)
    told = search.decode(windows, plain)
    alone = len(steps)
    found = search.decode(windows, asked)
    assert len(steps) - alone == alone + 1
    assert steps[alone] == 2  # nobody pays for a question of others
    for number, (one, other, free) in enumerate(zip(found, told, detected, strict=True)):
        assert (one.tokens, one.language, one.language_probability) == (other.tokens, "de", 1.0)
        assert other.spoken_language is None
        if number % 2:
            assert one.spoken_language is None
        else:
            assert one.spoken_language is not None
            assert one.spoken_language[0] == free.language
            assert abs(one.spoken_language[1] - free.language_probability) < 1e-5


def test_windows_of_several_lengths_are_heard_as_alone():
    search = GreedySearch(random_model(4))
    windows = [AudioWindow(window(number).features[: 1500 - 300 * number], 1500 - 300 * number) for number in range(4)]
    tasks = [
        DecodeTask(language, max_new_tokens=6, detect=number > 1) for number, language in enumerate(("de", "en", "fr"))
    ]
    tasks.append(DecodeTask(max_new_tokens=6))
    together = search.decode(windows, tasks)
    for one, task, found in zip(windows, tasks, together, strict=True):
        (alone,) = search.decode([one], [task])
        assert (found.tokens, found.language) == (alone.tokens, alone.language)
        assert abs(found.language_probability - alone.language_probability) < 1e-5
        assert (found.spoken_language and found.spoken_language[0]) == (
            alone.spoken_language and alone.spoken_language[0]
        )


def test_english_models_are_not_asked():
    search = GreedySearch(random_model(9, vocabulary=ENGLISH))
    steps = counted(search)
    (one,) = search.decode([window(0)], [DecodeTask("en", max_new_tokens=1, detect=True)])
    assert (one.spoken_language, len(steps)) == (None, 1)


def test_asking_costs_no_encoder_pass():
    model = random_model(3)
    engine, mel = Engine(model), noise_frames(5, 4.0)
    tasks = [DecodeTask("fr", max_new_tokens=4, detect=detect) for detect in (False, True)]
    results = [engine.step([(mel, StepRequest(0, 64_000, (), task))])[0].hypothesis for task in tasks]
    assert model.encoder_passes == 2
    assert all(result is not None for result in results)
    plain, asked = results
    assert plain is not None
    assert asked is not None
    assert (plain.words, plain.language, plain.spoken_language) == (asked.words, asked.language, None)
    assert asked.spoken_language is not None


def test_the_most_probable_of_the_languages_that_come_into_question():
    search, windows = GreedySearch(random_model(4)), [window(number) for number in range(3)]
    (free,) = search.decode(windows[:1], [DecodeTask(max_new_tokens=2)])
    few, others = (free.language, "de", "fr"), tuple({"en", "es", "it"} - {free.language})
    tasks = [
        DecodeTask(max_new_tokens=2, languages=few),
        DecodeTask("en", max_new_tokens=2, languages=others, detect=True),
        DecodeTask(max_new_tokens=2),
    ]
    found = search.decode([windows[0], windows[0], windows[2]], tasks)
    alone = search.decode(windows[2:], tasks[2:])[0]
    assert found[0].language == free.language
    assert free.language_probability < found[0].language_probability <= 1
    assert found[1].spoken_language is not None
    assert found[1].spoken_language[0] in others
    assert 1 / len(others) - 1e-6 <= found[1].spoken_language[1] <= 1
    assert (found[2].language, found[2].tokens) == (alone.language, alone.tokens)  # nobody else is restricted
    assert abs(found[2].language_probability - alone.language_probability) < 1e-5
    (only,) = search.decode(windows[:1], [DecodeTask(max_new_tokens=2, languages=("it",))])
    assert (only.language, only.language_probability) == ("it", 1.0)


def test_languages_that_the_model_does_not_know_are_named():
    search = GreedySearch(random_model(4))
    with pytest.raises(EngineError, match="languages xx, yy: the model knows none of them"):
        search.decode([window(0)], [DecodeTask(languages=("xx", "yy"))])
