"""What crosses to an engine: every window gives there what it gives here, whatever the padding and the precision."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from random_whisper import random_model

from streamer.audio.fine_spectrum import BANDS
from streamer.audio.mel import MelFrames
from streamer.cluster.wire import Refused, SentMel, SentWindow, SpectrumWanted
from streamer.errors import DeviceFailed, EngineError
from streamer.events.plans import DecodeTask, StepRequest
from streamer.model.engine import Engine, Padding
from streamer.model.own_sounds import Background, OwnLayer, OwnSound
from streamer.model.whisper import STOCK_MARGIN_FRAMES, Model

SECOND = 16_000
TASK = DecodeTask(language="en", max_new_tokens=6)


def stream(seconds: float = 12.0, start: int = 0) -> MelFrames:
    mel = MelFrames(80, start)
    mel.append(np.random.default_rng(3).normal(0.0, 0.05, round(seconds * SECOND)).astype(np.float32))
    return mel


def sent(model: Model, context, mel: MelFrames, request: StepRequest) -> SentWindow:
    """The window as it arrives, through the pickle of its records."""
    window = SentWindow.of(mel, request, Padding.of(model.outline(), context), model.dtype)
    return pickle.loads(pickle.dumps(window))


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return {
        "variable": random_model(1),
        "stock": random_model(1, variable_context=False),
        "half": random_model(1, dtype=torch.bfloat16),
    }


@pytest.mark.parametrize("kind", ["variable", "stock", "half"])
@pytest.mark.parametrize("context", ["fit", "padded"])
@pytest.mark.parametrize(("start", "end"), [(0, SECOND), (160, 4 * SECOND + 37), (3200, 11 * SECOND), (0, 8_320)])
def test_an_engine_finds_in_a_window_that_was_sent_what_it_finds_in_the_stream(models, kind, context, start, end):
    model, mel = models[kind], stream()
    engine = Engine(model, context=context)
    request = StepRequest(start, end, (), TASK)
    window = sent(model, context, mel, request)
    (here,) = engine.step([(mel, request)])
    (there,) = engine.step([(SentMel(window), window.request)])
    assert here == there
    assert here.hypothesis is not None
    assert here.hypothesis.words or here.hypothesis.complete


@hypothesis_settings(max_examples=40)
@given(
    first=st.integers(0, 300), samples=st.integers(201, 30_000), margin=st.sampled_from([0, 128, STOCK_MARGIN_FRAMES])
)
def test_the_mel_is_the_same_to_the_bit(first, samples, margin):
    mel = stream(6.0)
    request = StepRequest(160 * first, 160 * first + samples)
    padding = Padding(fits=True, longest=3000, shortest=40, margin=margin, variable=False)
    frames = padding.frames(request)
    exact = frames.total == frames.real
    window = SentWindow.of(mel, request, padding, torch.float32)
    wanted = mel.window(request.start_sample, request.end_sample, None if exact else frames.total)
    assert torch.equal(window.mel(), wanted)
    assert window.values.shape[1] <= frames.real + 5  # not the silence behind it


def test_half_precision_sends_half_as_much_and_loses_nothing_that_the_model_would_see(models):
    mel, request = stream(), StepRequest(0, 10 * SECOND)
    full, half = (sent(models[kind], "fit", mel, request) for kind in ("variable", "half"))
    assert full.values.nbytes == 2 * half.values.nbytes == 10 * 32_000
    assert torch.equal(half.mel().to(torch.bfloat16), full.mel().to(torch.bfloat16))


def test_a_window_that_is_too_short_crosses_without_mel(models):
    window = sent(models["variable"], "fit", stream(), StepRequest(0, 200, (), TASK))
    assert window.values.nbytes == 0
    (found,) = Engine(models["variable"]).step([(SentMel(window), window.request)])
    assert found.hypothesis is not None
    assert not found.hypothesis.words


def test_sounds_of_ones_own_are_judged_there_as_here(models):
    model, mel = models["variable"], stream()
    width, random = model.dims.n_audio_layer * model.dims.n_audio_state, np.random.default_rng(5)
    projection = random.normal(size=(width, 8)).astype(np.float32)
    none = np.zeros((0, 0, 0), np.int8)
    background = Background("e", "m", np.zeros(width, np.float32), projection, none, none)
    weight = random.normal(size=8 + BANDS).astype(np.float32)
    bell = OwnSound("bell", "info", "e", "m", 3, weight, 0.0, 0.0, 1, 0, 1.0, 1.0)
    engine = Engine(model, own=OwnLayer(background, (bell,)))
    for end in (8_320, 4 * SECOND + 37, 11 * SECOND):
        request = StepRequest(0, end, (1.0,))
        window = sent(model, "fit", mel, request)
        (here,), (there,) = engine.step([(mel, request)]), engine.step([(SentMel(window), window.request)])
        assert here.own == there.own
        assert len(here.own) == 1
    assert sent(model, "fit", mel, StepRequest(0, SECOND, (), TASK)).spectrum is None
    plain = SentWindow.of(mel, request, Padding.of(model.outline(), "fit"), model.dtype, own_sounds=False)
    assert plain.spectrum is None
    with pytest.raises(SpectrumWanted):
        engine.step([(SentMel(plain), plain.request)])


def test_windows_that_cannot_be_are_refused_before_they_are_sent(models):
    padding = Padding.of(models["variable"].outline(), "fit")
    with pytest.raises(EngineError, match="too long: the model hears 30 s"):
        SentWindow.of(stream(31), StepRequest(0, 31 * SECOND), padding, torch.float32)
    mel = stream()
    mel.discard_before(SECOND)
    with pytest.raises(EngineError, match="not all kept"):
        SentWindow.of(mel, StepRequest(0, 2 * SECOND), padding, torch.float32)
    window = SentWindow.of(mel, StepRequest(SECOND, 2 * SECOND), padding, torch.float32)
    with pytest.raises(ValueError, match="were not sent"):
        SentMel(window).window(0, SECOND)


def test_an_outline_speaks_for_its_model(models):
    model = random_model(2, vocabulary=51866)
    outline = pickle.loads(pickle.dumps(model.outline()))
    for name in (
        "name",
        "dims",
        "is_multilingual",
        "previous_text",
        "context_s",
        "margin_frames",
        "precision",
        "dtype",
    ):
        assert getattr(outline, name) == getattr(model, name), name
    text = " Try again. Fail again."
    assert outline.tokenizer("de").encode(text) == model.tokenizer("de").encode(text)
    assert outline.tokenizer("yue").sot_sequence == model.tokenizer("yue").sot_sequence
    assert Padding.of(outline, "fit") == Padding.of(model, "fit")


def test_a_refusal_is_raised_as_an_engine_raises_it():
    assert isinstance(Refused("gone", device=True).error(), DeviceFailed)
    assert type(Refused("bad").error()) is EngineError
