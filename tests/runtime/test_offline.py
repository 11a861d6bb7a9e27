"""Whole recordings on a small random model: openai-whisper's own `transcribe` is the judge of text and times."""

import functools

import numpy as np
import pytest
import torch
import whisper
from protocol import check_session
from random_whisper import random_whisper
from whisper.audio import HOP_LENGTH

from streamer.audio.block import AudioBlock
from streamer.events import Transcript
from streamer.model.head import HeadKind, HeadModule, HeadShape, TaggingHead
from streamer.model.whisper import Model
from streamer.policy.seeking import must_try_again
from streamer.runtime import offline
from streamer.runtime.offline import OfflineEngine
from streamer.runtime.recording import Recording
from streamer.settings.config import Settings, validate

RATE = 16_000
ENGLISH = 51864


@functools.cache
def model(seed: int = 6, head: bool = False, vocabulary: int = ENGLISH) -> Model:
    torch.manual_seed(1)
    random_head = TaggingHead("random", HeadModule(HeadShape(HeadKind.TL_TR, layers=2, width=64, classes=527)))
    for parameter in random_head.module.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.3)
    module = random_whisper(seed, vocabulary=vocabulary, ending=2.0)
    return Model(module, name="random", head=random_head if head else None, dtype=torch.float32)


@functools.cache
def sound(seed: int, seconds: float) -> np.ndarray:
    generator = np.random.default_rng(seed)
    samples = generator.normal(0, 0.05, round(seconds * RATE)).astype(np.float32)
    return samples * np.repeat(generator.uniform(0, 1, len(samples) // 8000 + 1), 8000)[: len(samples)].astype(
        np.float32
    )


def recording(of: Model, samples: np.ndarray, config: Settings | None = None, *, hears: bool = False) -> Recording:
    blocks = [AudioBlock(samples[first : first + 800]) for first in range(0, len(samples), 800)]
    return Recording(of, config or Settings(), blocks, hears=hears)


def results_of(one: Recording, engine: OfflineEngine, most: int = 100):
    results, events = [], []
    while (request := one.request()) and len(results) < most:
        [result] = engine.step([request])
        results.append(result)
        events += one.take(result)
    return results, events


def said(events) -> list[str]:
    return [event.text for event in events if isinstance(event, Transcript)]


@pytest.fixture(autouse=True)
def _one_thread():
    """Models this small gain nothing from more, and wait for them on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def greedy(monkeypatch):
    """No fallbacks: openai-whisper draws with a generator of its own."""
    monkeypatch.setattr(offline, "TEMPERATURES", (0.0,))


@pytest.mark.parametrize(("seed", "seconds", "carry"), [(5, 65.3, "on"), (6, 42.0, "off"), (6, 7.1, "auto")])
def test_text_and_seeking_are_openai_whispers(greedy, seed, seconds, carry):
    samples, backbone = sound(seed, seconds), random_whisper(seed, vocabulary=ENGLISH, ending=2.0)
    theirs = whisper.transcribe(
        backbone, samples, temperature=(0.0,), condition_on_previous_text=carry != "off", initial_prompt="Mark Twain"
    )
    config = validate({"speech": {"carry_prompt": carry, "prompt": "Mark Twain"}})
    results, events = results_of(recording(model(seed), samples, config), OfflineEngine(model(seed)))
    right = [segment for segment in theirs["segments"] if segment["text"]]
    assert right
    assert said(events) == [one["text"].strip() for one in right]
    assert len({one["seek"] for one in theirs["segments"]}) <= len(results)
    for result in results:
        close = [one for one in right if abs(one["avg_logprob"] - result.text.mean_logprob) < 1e-3]
        assert close or result.text.no_speech_probability > 0.6


def test_a_window_that_is_tried_again_is_encoded_once_and_draws_the_same_every_time():
    engine, samples = OfflineEngine(model()), sound(4, 40.0)
    before = model().encoder_passes
    first, events = results_of(recording(model(), samples), engine)
    assert model().encoder_passes - before == len(first)
    assert any(result.text.temperature > 0 for result in first)
    assert all(result.text.temperature == 1.0 for result in first if must_try_again(result.text))
    second, again = results_of(recording(model(), samples), engine)
    assert (first, events) == (second, again)


def test_recordings_that_go_through_together_come_out_as_alone(greedy):
    engine, lengths = OfflineEngine(model()), (33.0, 5.0, 61.0)
    alone = [results_of(recording(model(), sound(7, length)), engine)[1] for length in lengths]
    together = [recording(model(), sound(7, length)) for length in lengths]
    events = [[] for _ in lengths]
    while due := [(place, one) for place, each in enumerate(together) if (one := each.request())]:
        for (place, _), result in zip(due, engine.step([one for _, one in due]), strict=True):
            events[place] += together[place].take(result)
    for one, other in zip(alone, events, strict=True):
        assert said(one) == said(other)
    assert any(map(said, alone))


def test_every_second_is_judged_once_from_the_same_passes_and_the_session_keeps_its_promises(greedy):
    with_head = model(head=True)
    samples, engine = sound(2, 47.4), OfflineEngine(with_head)
    one = recording(with_head, samples, hears=True)
    before = with_head.encoder_passes
    results, events = results_of(one, engine)
    assert with_head.encoder_passes - before == len(results)
    events += one.finish()
    plain = [event.to_dict() for event in events]
    check_session(plain, ahead=True)
    tags = [event for event in plain if event["type"] == "tags"]
    assert [event["end"] for event in tags] == list(range(1, 48))
    assert all(event["audio_t"] >= event["end"] for event in plain if "end" in event and event["end"] is not None)
    without = results_of(recording(model(), samples), OfflineEngine(model()))[1]
    assert said(events) == said(without) != []


def test_spans_of_a_window_are_those_of_its_taps(greedy):
    with_head = model(head=True)
    samples = sound(2, 20.0)
    one = recording(with_head, samples, hears=True)
    request = one.request()
    [result] = OfflineEngine(with_head).step([request])
    mel = request.mel.window(0, request.window.end)
    _, taps = with_head.encode(mel[None])  # steps of 0.4 s from the start: those that end with even seconds
    for second in (2, 8, 14):
        spans = result.judgements[second - 1]
        assert [span.end_sample for span in spans] == [second * RATE] * len(spans)
        for span in spans:
            steps = (span.end_sample - span.start_sample) // 6400
            end = second * 5 // 2
            right = with_head.probabilities(with_head.tag(taps[:, :, end - steps : end]))[0]
            torch.testing.assert_close(torch.from_numpy(span.scores), right, atol=1e-4, rtol=0)


def test_an_earlier_runs_results_lead_to_the_same_events(greedy):
    with_head = model(head=True)
    samples, engine = sound(6, 62.0), OfflineEngine(with_head)
    whole = recording(with_head, samples, hears=True)
    results, events = results_of(whole, engine)
    events += whole.finish()
    for cut in {1, len(results) - 1}:
        one = recording(with_head, samples, hears=True)
        found = one.replay(results[:cut], engine)
        rest, more = results_of(one, engine)
        assert [result.text for result in rest] == [result.text for result in results[cut:]]
        for mine, right in zip(rest, results[cut:], strict=True):
            for spans, others in zip(mine.judgements, right.judgements, strict=True):
                np.testing.assert_allclose([a.scores for a in spans], [b.scores for b in others], atol=1e-4)
        assert [e.to_dict()["type"] for e in found + more + one.finish()] == [e.to_dict()["type"] for e in events]


def test_the_language_is_found_in_the_first_window_and_stays(greedy):
    many, samples = model(9, vocabulary=51865), sound(9, 31.0)
    mel = whisper.log_mel_spectrogram(samples, 80)[:, :3000]
    _, probabilities = random_whisper(9, ending=2.0).detect_language(mel)
    results, _ = results_of(recording(many, samples), OfflineEngine(many))
    assert len(results) > 1
    assert {result.language for result in results} == {max(probabilities, key=probabilities.get)}


def test_a_doubtful_language_of_a_short_recording_is_asked_for_as_openai_whisper_does(greedy, monkeypatch):
    monkeypatch.setattr(offline, "SURE_OF_LANGUAGE", 1.1)
    many, samples = model(20, vocabulary=51865), sound(20, 3.0)
    mel = whisper.log_mel_spectrogram(samples, 80, padding=480_000)[:, :3000]
    _, probabilities = random_whisper(20, ending=2.0).detect_language(mel)
    before = many.encoder_passes
    results, _ = results_of(recording(many, samples), OfflineEngine(many))
    assert results[0].language == max(probabilities, key=probabilities.get)
    assert many.encoder_passes - before == 2


@pytest.mark.parametrize("seconds", [0.0, 0.005, 0.02])
def test_next_to_nothing_is_no_error(seconds):
    one = recording(model(), sound(1, seconds), hears=True)
    results, events = results_of(one, OfflineEngine(model()))
    assert len(results) == (1 if seconds * RATE >= HOP_LENGTH else 0)
    check_session([event.to_dict() for event in events + one.finish()])
