from dataclasses import replace

import numpy as np
import pytest
import torch
from random_whisper import noise_frames, random_model, random_whisper
from whisper.decoding import DecodingOptions, decode

from streamer.audio.mel import MelFrames
from streamer.errors import EngineError
from streamer.events.plans import DecodeTask, StepRequest, StepResult
from streamer.model.engine import Engine
from streamer.model.head import HeadKind, HeadModule, HeadShape, TaggingHead
from streamer.model.whisper import Model

SECOND = 16_000
STEP = 6_400  # samples of one tap step
SPANS = (2.0, 5.0, 10.0)
TASK = DecodeTask(language="en", max_new_tokens=20)


def model_with_head(seed: int = 0, *, head: bool = True, variable_context: bool = True, **options) -> Model:
    torch.manual_seed(seed + 1000)
    module = HeadModule(HeadShape(HeadKind.TL_TR, width=64)).eval()
    return Model(
        random_whisper(seed, **options),
        name="random",
        head=TaggingHead("random", module) if head else None,
        variable_context=variable_context,
        min_context_s=2.0 if variable_context else 30.0,
    )


def step(engine: Engine, mel: MelFrames, start_s: float, end_s: float, *, spans=SPANS, task=TASK) -> StepResult:
    request = StepRequest(round(start_s * SECOND), round(end_s * SECOND), spans, task)
    (result,) = engine.step([(mel, request)])
    assert result.request is request
    return result


def as_bytes(result: StepResult) -> bytes:
    scores = b"".join(item.scores.tobytes() for item in result.judgement)
    return repr(result.hypothesis).encode() + scores


def test_windows_of_all_sessions_together_are_as_each_alone():
    engine = Engine(model_with_head(ending=2.0))
    mels = [noise_frames(seed) for seed in range(3)]
    spans_s = [(0.0, 10.0), (0.31, 10.31), (2.0, 3.3), (0.0, 0.5), (5.0, 28.0), (0.0, 10.0), (1.0, 1.02)]
    tasks = [TASK, replace(TASK, prefix=(300, 301)), None, TASK, replace(TASK, language=None), TASK, TASK]
    work = [
        (mels[i % 3], StepRequest(round(start * SECOND), round(end * SECOND), SPANS[: i % 4], task))
        for i, ((start, end), task) in enumerate(zip(spans_s, tasks, strict=True))
    ]
    together = engine.step(work)
    for item, result in zip(work, together, strict=True):
        (alone,) = engine.step([item])
        assert result.request is item[1]
        assert (result.hypothesis is None) == (alone.hypothesis is None)
        if result.hypothesis and alone.hypothesis:
            assert [word.tokens for word in result.hypothesis.words] == [word.tokens for word in alone.hypothesis.words]
            assert result.hypothesis.language == alone.hypothesis.language
            assert result.hypothesis.mean_logprob == pytest.approx(alone.hypothesis.mean_logprob, abs=1e-4)
        for ours, theirs in zip(result.judgement, alone.judgement, strict=True):
            assert (ours.start_sample, ours.end_sample) == (theirs.start_sample, theirs.end_sample)
            np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)


def test_the_same_step_gives_the_same_bytes():
    mel = noise_frames(1)
    engine = Engine(model_with_head())
    first = as_bytes(step(engine, mel, 0, 7.7))
    step(engine, mel, 3, 30)
    assert as_bytes(step(engine, mel, 0, 7.7)) == first
    assert as_bytes(step(Engine(model_with_head()), noise_frames(1), 0, 7.7)) == first


def test_a_window_passes_the_encoder_once_and_the_warm_up_does_not_count():
    model = model_with_head()
    engine = Engine(model)
    engine.warm_up()
    assert model.encoder_passes == 0
    step(engine, noise_frames(0), 0, 9, task=replace(TASK, language=None))
    assert model.encoder_passes == 1
    engine.step([(noise_frames(0), StepRequest(0, SECOND)), (noise_frames(0), StepRequest(0, 2 * SECOND))])
    assert model.encoder_passes == 3


def test_what_is_said_does_not_depend_on_the_head():
    mel = noise_frames(2)
    with_head = step(Engine(model_with_head()), mel, 0, 8)
    without = step(Engine(model_with_head(head=False)), mel, 0, 8)
    untagged = step(Engine(model_with_head()), mel, 0, 8, spans=())
    assert with_head.hypothesis == without.hypothesis == untagged.hypothesis
    assert without.judgement == untagged.judgement == ()


@pytest.mark.parametrize("timestamps", [False, True])
def test_padded_windows_decode_as_in_openai_whisper(timestamps):
    module = random_whisper(3, ending=2.0)
    mel = noise_frames(3)
    engine = Engine(Model(random_whisper(3, ending=2.0)), context="padded")
    result = step(engine, mel, 0, 7, task=replace(TASK, timestamps=timestamps))
    padded = mel.window(0, 7 * SECOND, 3000)
    options = DecodingOptions(fp16=False, language="en", sample_len=20, without_timestamps=not timestamps)
    theirs = decode(module, padded, options)
    assert result.hypothesis.text.split() == theirs.text.split()
    assert result.hypothesis.mean_logprob == pytest.approx(theirs.avg_logprob, abs=1e-3)
    assert result.hypothesis.compression_ratio == pytest.approx(theirs.compression_ratio)
    assert result.hypothesis.no_speech_probability == pytest.approx(theirs.no_speech_prob, abs=1e-5)
    assert all(word.end_sample <= 7 * SECOND for word in result.hypothesis.words)


@pytest.mark.parametrize("context", ["fit", "padded"])
@pytest.mark.parametrize("length_s", [3.2, 7.03, 10.4, 12.99])
def test_spans_end_with_the_audio_and_never_hear_padding(context, length_s):
    model = model_with_head(4)
    mel = noise_frames(4)
    judgement = step(Engine(model, context=context), mel, 0, length_s, spans=(10.0, 2.0, 5.0, 2.1)).judgement
    frames = round(length_s * 100)
    steps = sorted({min(count, frames // 40) for count in (5, 12, 25)})
    assert [(item.end_sample - item.start_sample) // STEP for item in judgement] == steps
    for item, count in zip(judgement, steps, strict=True):
        assert 0 <= length_s * SECOND - item.end_sample < 320
        assert item.scores.dtype == np.float32
        assert item.scores.shape == (527,)
        if context == "fit" and frames % 40 == 0:  # nothing was padded: the taps are those of a plain pass
            _, taps = model.encode(mel.window(0, round(length_s * SECOND))[None])
            expected = torch.sigmoid(model.tag(taps[:, :, -count:]))[0]
            np.testing.assert_allclose(item.scores, expected, atol=1e-5)


@pytest.mark.parametrize("context", ["fit", "padded"])
@pytest.mark.parametrize("samples", [0, 1, 200, 201, 319, 3_000, 6_399, 6_400, 12_345])
def test_short_windows_work(context, samples):
    mel = noise_frames(5, 2.0)
    request = StepRequest(320, 320 + samples, SPANS, TASK)
    (result,) = Engine(model_with_head(5), context=context).step([(mel, request)])
    hypothesis = result.hypothesis
    assert all(320 <= word.start_sample <= word.end_sample <= 320 + samples for word in hypothesis.words)
    assert len(result.judgement) == (1 if samples > 200 else 0)
    for item in result.judgement:
        assert 320 <= item.start_sample < item.end_sample <= 320 + samples
    if samples <= 200:
        assert hypothesis.words == ()


def test_positions_are_absolute():
    samples = np.random.default_rng(6).normal(0, 0.05, 6 * SECOND).astype(np.float32)
    late = MelFrames(80, start_sample=160 * 123_456)
    late.append(samples)
    early = MelFrames(80)
    early.append(samples)
    engine = Engine(model_with_head(6))
    near = step(engine, early, 0, 6)
    (far,) = engine.step([(late, StepRequest(160 * 123_456, 160 * 123_456 + 6 * SECOND, SPANS, TASK))])
    assert len(near.hypothesis.words) > 3
    for ours, theirs in zip(far.hypothesis.words, near.hypothesis.words, strict=True):
        shift = 160 * 123_456
        assert (ours.text, ours.start_sample - shift, ours.end_sample - shift) == (
            theirs.text,
            theirs.start_sample,
            theirs.end_sample,
        )
        assert ours.attended_sample - shift == theirs.attended_sample


def test_prefix_and_draft_through_the_engine():
    engine = Engine(model_with_head(7))
    mel = noise_frames(7)
    whole = step(engine, mel, 0, 9).hypothesis
    tokens = tuple(token for word in whole.words for token in word.tokens)
    drafted = step(engine, mel, 0, 9, task=replace(TASK, draft=tokens)).hypothesis
    assert [(word.tokens, word.start_sample) for word in drafted.words] == [
        (word.tokens, word.start_sample) for word in whole.words
    ]
    assert drafted.mean_logprob == pytest.approx(whole.mean_logprob, abs=1e-4)
    first = whole.words[0]
    task = replace(TASK, prefix=first.tokens, max_new_tokens=20 - len(first.tokens))
    rest = step(engine, mel, 0, 9, task=task).hypothesis
    assert "".join(word.text for word in rest.words) == "".join(word.text for word in whole.words[1:])


def test_windows_that_cannot_be_heard_are_errors_of_one_line():
    engine = Engine(model_with_head(8))
    mel = noise_frames(8, 40.0)
    with pytest.raises(EngineError, match=r"31\.00 s is too long: the model hears 30 s"):
        step(engine, mel, 0, 31)
    mel.discard_before(10 * SECOND)
    with pytest.raises(EngineError, match="not all kept"):
        step(engine, mel, 5, 12)
    with pytest.raises(EngineError, match="multiple of 160"):
        engine.step([(mel, StepRequest(15 * SECOND + 1, 16 * SECOND))])


@pytest.mark.parametrize("part", ["encoder.conv1.bias", "decoder.ln.weight"])
def test_a_damaged_model_refuses_to_serve(part):
    model = model_with_head(9)
    model.module.get_parameter(part).data.fill_(float("nan"))
    with pytest.raises(EngineError, match=r"the warm-up failed: .* not finite"):
        Engine(model).warm_up()


def test_a_model_that_cannot_run_refuses_to_serve_in_one_line():
    model = model_with_head(10)
    engine = Engine(model)
    model.module.decoder.token_embedding = torch.nn.Embedding(1, 1)
    model.head.module.mlp_layer[1].weight.data = torch.zeros(527, 3)
    with pytest.raises(EngineError, match="the warm-up failed: model random failed on 1 windows") as error:
        engine.warm_up()
    assert "\n" not in str(error.value)


def test_no_work_is_no_result():
    assert Engine(random_model(11)).step([]) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_run(dtype):
    engine = Engine(random_model(12, dtype=dtype))
    engine.warm_up()
    result = step(engine, noise_frames(12), 0, 5)
    assert np.isfinite(result.hypothesis.mean_logprob)


@pytest.mark.shared
def test_the_reference_model_hears_the_digits(shared_dir):
    import json

    import av
    import jiwer

    from streamer.model.checkpoint import load_model

    with av.open(str(shared_dir / "scenes" / "speech_clean_1.flac")) as container:
        resampler = av.AudioResampler("flt", "mono", SECOND)
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    samples = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    mel = MelFrames(80)
    mel.append(samples)
    words = json.loads((shared_dir / "scenes" / "speech_clean_1.json").read_text())["words"]
    engine = Engine(load_model(shared_dir / "models" / "nano.pt", dtype="float32"))
    said, heard = [], []
    for start in range(0, 56, 8):
        inside = [word for word in words if start <= (word["start"] + word["end"]) / 2 < start + 8]
        if inside and (inside[0]["start"] < start or inside[-1]["end"] > start + 8):
            continue  # the cut goes through a word
        result = step(engine, mel, start, start + 8)
        said.append(" ".join(word["word"] for word in inside))
        heard.append(result.hypothesis.text)
    assert len(said) >= 3
    assert jiwer.wer(said, heard) < 0.2
