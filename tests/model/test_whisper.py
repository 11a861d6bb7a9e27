import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from backbones import random_whisper
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close
from whisper.model import AudioEncoder, Whisper

from streamer.errors import CheckpointError, UsageError
from streamer.model.checkpoint import load_model
from streamer.model.head import HeadKind, HeadModule, HeadShape, TaggingHead
from streamer.model.whisper import Model, span_steps

KINDS = ("last_mlp", "mean_mlp", "wa_mlp", "wa_tr_1", "wa_down_tr_32_1", "tl_tr_ori", "tl_tr_low")


def random_head(kind: HeadKind = HeadKind.TL_TR, width: int = 64, layers: int | None = None) -> TaggingHead:
    torch.manual_seed(1)
    return TaggingHead("random_at", HeadModule(HeadShape(kind, width, layers)).eval())


@pytest.fixture(scope="module")
def backbone() -> Whisper:
    return random_whisper()


@pytest.fixture(scope="module")
def model(backbone: Whisper) -> Model:
    return Model(copy.deepcopy(backbone), name="random", head=random_head())


def random_mel(batch: int, frames: int, seed: int = 0, n_mels: int = 80) -> Tensor:
    return torch.randn(batch, n_mels, frames, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def openai_encode(backbone: Whisper, mel: Tensor) -> tuple[Tensor, Tensor]:
    """openai-whisper's own encoder, rebuilt for this number of frames; taps as Whisper-AT's code pools them."""
    dims, frames = backbone.dims, mel.shape[2]
    encoder = AudioEncoder(dims.n_mels, frames // 2, dims.n_audio_state, dims.n_audio_head, dims.n_audio_layer)
    state = backbone.encoder.state_dict()
    state["positional_embedding"] = state["positional_embedding"][: frames // 2]
    encoder.load_state_dict(state)
    outputs: list[Tensor] = []
    for block in encoder.blocks:
        block.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    features = encoder(mel)
    return features, torch.stack([F.avg_pool2d(x, (20, 1), (20, 1)) for x in outputs], dim=1)


@settings(max_examples=15, deadline=None)
@given(frames=st.integers(20, 1500).map(lambda half: 2 * half), batch=st.integers(1, 3))
def test_any_length_equals_openai_whispers_encoder(frames: int, batch: int, model: Model, backbone: Whisper) -> None:
    mel = random_mel(batch, frames, frames)
    features, taps = model.encode(mel)
    assert features.shape == (batch, frames // 2, 64)
    assert taps.shape == (batch, 3, frames // 40, 64)
    expected_features, expected_taps = openai_encode(backbone, mel)
    assert_close(features, expected_features, atol=1e-4, rtol=0)
    assert_close(taps, expected_taps, atol=1e-4, rtol=0)


def test_128_bands(backbone: Whisper) -> None:
    wide = random_whisper(4, n_mels=128, n_vocab=51866)
    mel = random_mel(2, 500, n_mels=128)
    features, taps = Model(copy.deepcopy(wide)).encode(mel)
    expected = openai_encode(wide, mel)
    assert_close(features, expected[0], atol=1e-4, rtol=0)
    assert_close(taps, expected[1], atol=1e-4, rtol=0)


def test_a_batch_equals_its_items_one_by_one(model: Model) -> None:
    mel = random_mel(4, 300)
    features, taps = model.encode(mel)
    logits = model.tag(taps)
    for item in range(4):
        alone = model.encode(mel[item : item + 1])
        assert_close(features[item : item + 1], alone[0], atol=1e-4, rtol=0)
        assert_close(taps[item : item + 1], alone[1], atol=1e-4, rtol=0)
        assert_close(logits[item : item + 1], model.tag(alone[1]), atol=1e-4, rtol=0)


def test_the_counter_counts_items(model: Model) -> None:
    before = model.encoder_passes
    model.encode(random_mel(3, 40))
    model.encode_windows(random_mel(2, 60))
    with pytest.raises(ValueError, match="frames"):
        model.encode(random_mel(2, 39))
    assert model.encoder_passes == before + 5


@settings(max_examples=25, deadline=None)
@given(data=st.data(), half_frames=st.integers(20, 300))
def test_window_taps_end_where_the_real_audio_ends(data: st.DataObject, half_frames: int, model: Model) -> None:
    frames, batch = 2 * half_frames, 3
    real = data.draw(st.lists(st.integers(0, frames), min_size=batch, max_size=batch))
    spans = data.draw(st.lists(st.sampled_from([0.0, 0.4, 2.0, 5.0, 10.0]), min_size=batch, max_size=batch))
    mel = random_mel(batch, frames, half_frames)
    encoded = model.encode_windows(mel, real_frames=real, tag_spans_s=spans)
    assert_close(encoded.features, model.encode(mel)[0], atol=0, rtol=0)
    positions = torch.stack(list(model._encoder.blocks(mel)), dim=1).detach()  # [B, layers, frames/2, d]
    for item in range(batch):
        steps, end = min(span_steps(spans[item]), real[item] // 40), real[item] // 2
        taps = encoded.taps[item]
        if steps == 0:
            assert taps is None
            continue
        assert taps is not None
        expected = positions[item, :, end - 20 * steps : end].unflatten(1, (steps, 20)).mean(2)
        assert_close(taps, expected, atol=1e-5, rtol=0)


def test_window_taps_of_whole_steps_are_those_of_encode(model: Model) -> None:
    mel = random_mel(2, 400)
    encoded = model.encode_windows(mel, tag_spans_s=(4.0, 1.2))
    taps = model.encode(mel)[1]
    assert encoded.taps[0] is not None
    assert encoded.taps[1] is not None
    assert torch.equal(encoded.taps[0], taps[0])
    assert torch.equal(encoded.taps[1], taps[1, :, -3:])


def test_no_tags_due_no_taps(model: Model) -> None:
    assert model.encode_windows(random_mel(2, 100)).taps == (None, None)


@pytest.mark.parametrize(("span", "steps"), [(0.4, 1), (1.0, 2), (1.2, 3), (2.0, 5), (5.0, 12), (10.0, 25), (0.39, 0)])
def test_steps_of_a_span(span: float, steps: int) -> None:
    assert span_steps(span) == steps


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_stays_near_float32(dtype: torch.dtype, backbone: Whisper) -> None:
    low = Model(copy.deepcopy(backbone), head=random_head(), dtype=dtype)
    mel = random_mel(2, 400)
    features, taps = low.encode(mel)
    assert features.dtype == taps.dtype == dtype
    expected = openai_encode(backbone, mel)
    assert_close(features.float(), expected[0], atol=0.1, rtol=0.1)
    assert torch.equal(low.encode(mel.to(dtype))[0], features)
    logits = low.tag(taps)
    assert logits.dtype == torch.float32
    full = Model(copy.deepcopy(backbone), head=random_head())
    assert_close(logits, full.tag(expected[1]), atol=0.05, rtol=0.05)
    assert low.decoder.ln.weight.dtype == torch.float32
    assert low.decoder.token_embedding.weight.dtype == dtype


def test_weights_are_frozen_and_results_carry_no_graph(model: Model) -> None:
    assert not any(parameter.requires_grad for parameter in model.module.parameters())
    assert not model.encode(random_mel(1, 40))[0].requires_grad


def test_openai_whispers_encoder_still_works_on_the_same_module(model: Model) -> None:
    mel = random_mel(1, 3000)
    with torch.no_grad():
        assert_close(model.module.encoder(mel), model.encode(mel)[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("mel", "says"),
    [
        (torch.zeros(80, 100), r"\[80, 100\].*\[batch, 80, frames\]"),
        (torch.zeros(1, 128, 100), r"\[batch, 80, frames\]"),
        (torch.zeros(1, 80, 41), "even number of frames from 40 to 3000"),
        (torch.zeros(1, 80, 38), "38 frames"),
        (torch.zeros(1, 80, 3002), "3002 frames"),
        (torch.zeros(0, 80, 100), "0 items"),
        (torch.zeros(1, 80, 100, dtype=torch.float64), "torch.float64"),
    ],
)
def test_other_mels_are_refused(mel: Tensor, says: str, model: Model) -> None:
    with pytest.raises(UsageError, match=says):
        model.encode(mel)
    with pytest.raises(ValueError, match=says):
        model.encode_windows(mel)


def test_lists_of_another_length_than_the_batch_are_refused(model: Model) -> None:
    with pytest.raises(ValueError, match="2 windows"):
        model.encode_windows(random_mel(2, 100), real_frames=[100])


def test_other_taps_are_refused(model: Model) -> None:
    for shape in ((1, 2, 5, 64), (1, 3, 5, 32), (3, 5, 64), (1, 3, 0, 64)):
        with pytest.raises(ValueError, match="taps"):
            model.tag(torch.zeros(shape))


def test_a_model_without_a_head_says_so(backbone: Whisper) -> None:
    model = Model(copy.deepcopy(backbone), name="bare")
    with pytest.raises(UsageError, match="bare has no tagging head"):
        model.tag(torch.zeros(1, 3, 5, 64))
    with pytest.raises(UsageError, match="no tagging head"):
        model.probabilities(torch.zeros(1, 527))


def test_a_head_of_another_width_is_refused(backbone: Whisper) -> None:
    with pytest.raises(CheckpointError, match="width 128, bare gives 64"):
        Model(copy.deepcopy(backbone), name="bare", head=random_head(width=128))
    with pytest.raises(CheckpointError, match="weighs 4 layers, bare has 3"):
        Model(copy.deepcopy(backbone), name="bare", head=random_head(HeadKind.WA_MLP, layers=4))


def test_what_a_model_says_of_itself(model: Model) -> None:
    assert model.alignment_heads == ((1, 0), (1, 1))
    assert not model.is_multilingual
    assert model.tokenizer().encode(" one two") == [530, 734]
    multilingual = Model(random_whisper(n_vocab=51866), name="m")
    assert multilingual.is_multilingual
    assert multilingual.tokenizer("yue", "translate").language == "yue"


@pytest.mark.shared
@pytest.mark.parametrize("kind", KINDS)
def test_golden_vectors(kind: str, shared_dir: Path) -> None:
    golden = shared_dir / "golden"
    expected = {key: torch.from_numpy(value) for key, value in np.load(golden / "expected.npz").items()}
    model = load_model(golden / "backbone.pt", head=golden / f"{kind}.pth", device="cpu", dtype="float32")
    mel = expected["mel"][None]
    features, taps = model.encode(mel)
    assert_close(features[0], expected["encoder_out"], atol=1e-4, rtol=0)
    assert_close(taps[0], expected["taps"], atol=1e-4, rtol=0)
    for start, frames in ((500, 1000), (500, 300)):
        features, short = model.encode(mel[:, :, start : start + frames])
        assert_close(features[0], expected[f"encoder_out_{start}_{frames}"], atol=1e-4, rtol=0)
        assert_close(short[0], expected[f"taps_{start}_{frames}"], atol=1e-4, rtol=0)
    spans = {key: value for key, value in expected.items() if key.startswith(kind)}
    assert spans
    for logits in spans.values():
        windows = len(logits)
        batch = taps[0].unflatten(1, (windows, 75 // windows)).transpose(0, 1)
        assert_close(model.tag(batch), logits, atol=1e-4, rtol=0)
        for item in range(windows):
            assert_close(model.tag(batch[item : item + 1]), logits[item : item + 1], atol=1e-4, rtol=0)


@pytest.mark.gpu
def test_cuda_in_float16_stays_near_float32(backbone: Whisper) -> None:
    low = Model(copy.deepcopy(backbone), head=random_head(), device="cuda", dtype=torch.float16)
    mel = random_mel(2, 400)
    features, taps = low.encode(mel.cuda())
    expected = openai_encode(backbone, mel)
    assert_close(features.float().cpu(), expected[0], atol=0.1, rtol=0.1)
    full = Model(copy.deepcopy(backbone), head=random_head())
    assert_close(low.tag(taps).cpu(), full.tag(expected[1]), atol=0.05, rtol=0.05)
