"""Greedy decoding with its steps recorded: the text is that of eager decoding, and each step reads the device once."""

import logging
import warnings
from dataclasses import replace
from functools import cache

import pytest
import torch
from graph_tape import HostReads, TapeRecorder
from hypothesis import given, settings
from hypothesis import strategies as st
from random_whisper import random_whisper

from streamer.events.plans import DecodeTask
from streamer.model.decoding import decoder, filters, kv_cache
from streamer.model.decoding.search import AudioWindow, Decoded, GreedySearch
from streamer.model.graphs import recorder_for
from streamer.model.memory import send
from streamer.model.whisper import Model


def searches(seed: int, recorder, *, mends: bool = False, ending: float = 2.0, **options):
    """One that never records, and one that does. `mends`: as where logits are only near the truth."""
    pair = [
        GreedySearch(Model(random_whisper(seed, ending=ending), recorder=either, **options))
        for either in (lambda device: None, recorder)
    ]
    if mends:
        for item in pair:
            item.decoder.vocabulary.exact = False
    return pair


def window(seed: int, frames: int) -> AudioWindow:
    features = torch.randn(frames, 64, generator=torch.Generator().manual_seed(seed))
    heard = max(frames - seed % 7, 1)
    return AudioWindow(features, heard, heard)


def same(left: Decoded, right: Decoded, *, atol: float = 1e-4) -> None:
    assert left.tokens == right.tokens
    assert (left.language, left.complete, left.forced) == (right.language, right.complete, right.forced)
    assert (left.steps, left.accepted) == (right.steps, right.accepted)
    assert left.probabilities == pytest.approx(right.probabilities, abs=atol)
    assert left.logprobs == pytest.approx(right.logprobs, abs=atol)
    assert left.no_speech_probability == pytest.approx(right.no_speech_probability, abs=1e-6)
    torch.testing.assert_close(left.attention, right.attention, atol=atol, rtol=0)


def ragged(seed: int = 0) -> tuple[list[AudioWindow], list[DecodeTask]]:
    """Windows of many lengths whose texts end one after the other, so that rows move to other slots."""
    windows = [window(seed + place, frames) for place, frames in enumerate((100, 410, 333, 20, 251))]
    tasks = [
        DecodeTask(language="en", max_new_tokens=9),
        DecodeTask(language="fr", prefix=tuple(range(500, 517)), max_new_tokens=30),
        DecodeTask(max_new_tokens=25, timestamps=True),
        DecodeTask(language="en", prompt=tuple(range(900, 960)), prefix=(440, 441), max_new_tokens=14),
        DecodeTask(language="zh", max_new_tokens=3, timestamps=True),
    ]
    return windows, tasks


@pytest.mark.parametrize(("seed", "mends"), [(0, False), (1, True), (2, True)])
def test_a_ragged_batch_is_decoded_as_eagerly(seed, mends):
    tape = TapeRecorder()
    eager, recorded = searches(seed, tape, mends=mends)
    windows, tasks = ragged(10 * seed)
    plain = eager.decode(windows, tasks)
    for turn in range(2):
        for left, right in zip(recorded.decode(windows, tasks), plain, strict=True):
            same(left, right)
        if not turn:
            tried = tape.tried
    assert tape.tried == tried  # the second time, all is recorded
    assert tape.replays > 2 * 20
    assert len({token for item in plain for token in item.tokens}) > 20


@pytest.mark.parametrize("timestamps", [False, True])
def test_drafts_and_single_windows_are_decoded_as_eagerly(timestamps):
    eager, recorded = searches(4, TapeRecorder())
    windows, tasks = ragged(40)
    tasks = [replace(task, timestamps=timestamps) for task in tasks]
    plain = eager.decode(windows, tasks)
    for wrong_at in (None, 0, 3):
        drafts = [[*item.tokens[:6], 11, 12] for item in plain]
        for draft in drafts:
            draft[-1 if wrong_at is None else min(wrong_at, len(draft) - 1)] = 1234
        drafted = [replace(task, draft=tuple(draft)) for task, draft in zip(tasks, drafts, strict=True)]
        for left, right in zip(recorded.decode(windows, drafted), eager.decode(windows, drafted), strict=True):
            same(left, right)
    for heard, task, item in zip(windows, tasks, plain, strict=True):
        (alone,) = recorded.decode([heard], [task])
        assert alone.tokens == item.tokens


@cache
def kept_searches():
    return searches(5, TapeRecorder(), mends=True)


@given(
    rows=st.lists(
        st.tuples(st.integers(1, 300), st.integers(0, 90), st.integers(0, 12), st.booleans()), min_size=1, max_size=5
    ),
    seed=st.integers(0, 99),
)
@settings(max_examples=10, deadline=None)
def test_any_windows_and_tasks_are_decoded_as_eagerly(rows, seed):
    """One pair of searches for all examples: buffers grow in between, and what is recorded meets other lengths."""
    eager, recorded = kept_searches()
    windows = [window(seed + place, frames) for place, (frames, *_) in enumerate(rows)]
    tasks = [
        DecodeTask(language="en", prefix=tuple(range(700, 700 + prefix)), max_new_tokens=budget, timestamps=marked)
        for _, prefix, budget, marked in rows
    ]
    for left, right in zip(recorded.decode(windows, tasks), eager.decode(windows, tasks), strict=True):
        same(left, right)


def test_recordings_are_dropped_when_the_buffers_grow():
    tape = TapeRecorder()
    eager, recorded = searches(6, tape, ending=0.0)
    task = DecodeTask(language="en", max_new_tokens=5)
    counts = []
    for frames, batch in ((100, 1), (600, 1), (600, 3), (100, 1), (600, 4)):
        windows = [window(place, frames) for place in range(batch)]
        for left, right in zip(
            recorded.decode(windows, [task] * batch), eager.decode(windows, [task] * batch), strict=True
        ):
            same(left, right)
        counts.append(len(recorded._cache.graphs))
    assert counts == [1, 1, 1, 2, 2]  # dropped twice; four windows have the slots of three
    assert recorded._cache.own[0].shape[0] == 4


def test_more_kinds_of_steps_than_are_kept(monkeypatch):
    monkeypatch.setattr(kv_cache, "RECORDED_STEPS", 2)
    eager, recorded = searches(7, TapeRecorder(), ending=0.0)
    windows, tasks = ragged(70)
    for left, right in zip(recorded.decode(windows, tasks), eager.decode(windows, tasks), strict=True):
        same(left, right)
    assert len(recorded._cache.graphs) == 2


def test_a_text_that_fills_the_context_is_decoded_as_eagerly():
    eager, recorded = searches(8, TapeRecorder(), ending=0.0)
    task = DecodeTask(language="en", prompt=tuple(range(1000, 1223)), prefix=tuple(range(300, 490)))
    (left,), (right,) = recorded.decode([window(1, 90)], [task]), eager.decode([window(1, 90)], [task])
    same(left, right)
    assert not left.complete
    assert len(left.forced) + len(left.tokens) + 224 == 449


def test_a_step_that_cannot_be_recorded_is_right_all_the_same(caplog):
    eager, recorded = searches(9, TapeRecorder(refuse=1))
    windows, tasks = ragged(90)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            for left, right in zip(recorded.decode(windows, tasks), eager.decode(windows, tasks), strict=True):
                same(left, right)
    assert len(caplog.records) == 1


def test_what_is_prepared_is_not_recorded_again():
    tape = TapeRecorder()
    eager, recorded = searches(10, tape, ending=0.0)
    recorded.record(260, 16)
    prepared = tape.tried
    assert prepared == 5 * 5
    for batch in (1, 3, 16):
        windows = [window(place, 263 + place % 9) for place in range(batch)]
        tasks = [
            DecodeTask(language="en", prefix=tuple(range(300, 300 + 8 * place)), max_new_tokens=4)
            for place in range(batch)
        ]
        for left, right in zip(recorded.decode(windows, tasks), eager.decode(windows, tasks), strict=True):
            same(left, right)
    assert tape.tried == prepared
    eager.record(260, 16)
    assert len(eager._cache.graphs) == 0


class Coarse:
    """A vocabulary whose logits are rounded to whole numbers, so that only mended ones are true."""

    exact, coarse = False, True

    def __init__(self, true):
        self._true = true

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        return self._true(states).round()


@pytest.mark.parametrize("recorder", [lambda device: None, TapeRecorder()])
def test_what_the_filters_leave_in_front_is_mended_too(recorder):
    eager, coarse = searches(17, recorder)
    coarse.decoder.vocabulary = Coarse(coarse.decoder.vocabulary)
    windows, tasks = ragged(130)
    tasks = [replace(task, timestamps=True, max_new_tokens=12) for task in tasks]
    found, plain = coarse.decode(windows, tasks), eager.decode(windows, tasks)
    assert [item.tokens for item in found] == [item.tokens for item in plain]
    for left, right in zip(found, plain, strict=True):
        assert left.logprobs == pytest.approx(right.logprobs, abs=0.05)


@pytest.mark.parametrize("mends", [False, True])
@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("recorder", [lambda device: None, TapeRecorder()])
def test_each_step_reads_the_device_once_and_sends_what_it_brings(recorder, timestamps, mends, monkeypatch):
    _, chosen = searches(11, recorder, mends=mends)
    windows, tasks = ragged(110)
    tasks = [replace(task, timestamps=timestamps) for task in tasks]
    chosen.decode(windows, tasks)  # records
    counter = HostReads()
    for module in (decoder, filters, kv_cache):
        monkeypatch.setattr(module, "send", counter.sending(send), raising=False)
    second = []  # readings behind which a likelier token was mended
    step = chosen._step

    def watched(active):
        before = len(counter.reads)
        step(active)
        second.append(len(counter.reads) - before - 1)

    monkeypatch.setattr(chosen, "_step", watched)
    passes = chosen.passes
    with counter:
        chosen.decode(windows, tasks)
    steps = chosen.passes - passes
    assert len(second) == steps > 20
    assert len(counter.reads) == 1 + steps + sum(second)  # and one for the language
    assert set(second) <= ({0, 1} if mends and timestamps else {0})
    assert counter.brought == (0 if not chosen._cache.graphs.records else steps - 1)  # the recorded steps' one tensor


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_cuda_graphs_decode_as_eager_steps_and_wait_once_a_step(dtype):
    eager, recorded = searches(12, recorder_for, device="cuda", dtype=dtype)
    windows, tasks = ragged(120)
    windows = [replace(heard, features=heard.features.to("cuda", dtype)) for heard in windows]
    tasks = [replace(task, language="en") for task in tasks]
    plain, first = eager.decode(windows, tasks), recorded.decode(windows, tasks)
    kept = len(recorded._cache.graphs)
    passes = recorded.passes
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            again = recorded.decode(windows, tasks)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(recorded._cache.graphs) == kept > 2
    steps = recorded.passes - passes
    assert steps <= len([wait for wait in waits if "synchronizing" in str(wait.message)]) <= 2 * steps
    for left, right in zip(again, first, strict=True):
        assert left.tokens == right.tokens
    if dtype == torch.float32:
        for left, right in zip(again, plain, strict=True):
            same(left, right, atol=1e-3)
