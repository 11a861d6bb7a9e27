import copy
import time

import pytest
import torch
from random_whisper import random_model
from whisper.model import ModelDimensions, Whisper

from streamer.events.plans import DecodeTask
from streamer.model import linear
from streamer.model.decoding.search import AudioWindow, GreedySearch
from streamer.model.linear import FEW_ROWS, Affine, Projection, Vocabulary
from streamer.model.whisper import Model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(3, 64), (2, 5, 64), (1, 1, 64)])
def test_a_layer_is_the_plain_product_in_every_type(dtype, shape):
    weight, bias, x = torch.randn(96, 64), torch.randn(96), torch.randn(shape)
    for offset in (None, bias.to(dtype)):
        y = Affine(weight.to(dtype), offset)(x.to(dtype))
        assert y.dtype == dtype
        expected = x @ weight.T + (0 if offset is None else bias)
        torch.testing.assert_close(y.float(), expected, atol=0.2 if dtype != torch.float32 else 1e-4, rtol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_few_rows_give_what_many_give(dtype):
    layer = Projection(0.15 * torch.randn(512, 384).to(dtype), torch.randn(512).to(dtype))
    x, residual = torch.randn(3 * FEW_ROWS, 384).to(dtype), torch.randn(3 * FEW_ROWS, 512).to(dtype)
    parts = list(zip(x.split(FEW_ROWS), residual.split(FEW_ROWS), strict=True))
    for whole, pieces in (
        (layer(x), [layer(rows) for rows, _ in parts]),
        (layer.gelu(x), [layer.gelu(rows) for rows, _ in parts]),
        (layer.added(x, residual), [layer.added(rows, more) for rows, more in parts]),
    ):
        tight = dtype == torch.float32
        torch.testing.assert_close(torch.cat(pieces), whole, atol=1e-5 if tight else 0.25, rtol=1e-5 if tight else 0.02)
    assert torch.equal(residual, torch.cat([more for _, more in parts]))  # read, never written


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_layer_keeps_what_is_not_finite(dtype, value):
    layer = Projection(torch.randn(512, 384).to(dtype), torch.randn(512).to(dtype))
    x = torch.ones(1, 384, dtype=dtype)
    x[0, 5] = value
    assert not layer(x).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logits_are_near_the_truth_whatever_the_size_of_a_row(dtype):
    embedding = torch.randn(1000, 64).to(dtype)
    x = (torch.randn(4, 64) * torch.tensor([[1e-3], [1.0], [50.0], [0.0]])).to(dtype)
    vocabulary = Vocabulary(embedding)
    y = vocabulary(x)
    expected = x.float() @ embedding.float().T
    spread = expected.std(dim=1, keepdim=True) + 1e-6
    assert y.dtype == torch.float32
    assert ((y - expected).abs() / spread).max() < (1e-3 if vocabulary.exact else 0.1)
    alone = torch.cat([vocabulary(row[None]) for row in x])
    torch.testing.assert_close(y, alone, atol=1e-2, rtol=1e-2)  # a row's logits do not depend on its neighbours


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_not_finite(value):
    x = torch.ones(1, 64)
    x[0, 3] = value
    for dtype in (torch.float32, torch.bfloat16):
        assert not Vocabulary(torch.randn(100, 64).to(dtype))(x.to(dtype)).isfinite().all()


@pytest.mark.parametrize("seed", range(4))
def test_eight_bits_write_what_sixteen_write(seed):
    model = random_model(seed, dtype=torch.bfloat16, ending=2.0)
    search, plain = GreedySearch(model), GreedySearch(model)
    plain.decoder.vocabulary = lambda x: x.float() @ plain.decoder.embedding.float().T  # every logit exact
    plain.decoder.vocabulary.exact = True
    windows = [AudioWindow(torch.randn(200, 64, generator=torch.Generator().manual_seed(i)), 200) for i in range(3)]
    tasks = [DecodeTask(language="en", max_new_tokens=25)] * 3
    for ours, theirs in zip(search.decode(windows, tasks), plain.decode(windows, tasks), strict=True):
        assert ours.tokens == theirs.tokens
        assert ours.mean_logprob == pytest.approx(theirs.mean_logprob, abs=0.02)
        assert ours.no_speech_probability == pytest.approx(theirs.no_speech_probability, rel=0.2, abs=1e-9)


def test_eight_bits_that_some_processor_multiplies_far_slower_are_not_used(monkeypatch):
    product = linear.product

    def without_a_kernel(*operands):
        time.sleep(0.05)
        return product(*operands)

    embedding, x = torch.randn(1000, 64).bfloat16(), torch.randn(2, 64).bfloat16()
    monkeypatch.setattr(linear, "product", without_a_kernel)
    linear.eight_bits_work.cache_clear()
    try:
        vocabulary = Vocabulary(embedding)
    finally:
        linear.eight_bits_work.cache_clear()
    assert vocabulary.weight_bytes == 2 * embedding.numel()
    torch.testing.assert_close(vocabulary(x), x.float() @ embedding.float().T, atol=0.2, rtol=0.02)


needs_vnni = pytest.mark.skipif(not linear.eight_bits_work(), reason="this CPU multiplies no 8-bit integers fast")


@needs_vnni
def test_products_of_eight_bits_are_near_and_a_row_does_not_depend_on_its_neighbours():
    weight, bias = torch.randn(512, 384), torch.randn(512)
    x = torch.randn(2, 5, 384) * torch.tensor([1e-3, 1.0, 50.0, 0.0, 1.0])[:, None]
    layer, plain = Affine(weight, bias, eight_bits=True), Affine(weight, bias)
    for found, expected in (
        (layer(x), plain(x)),
        (layer.gelu(x), plain.gelu(x)),
        (layer.added(x, torch.ones(2, 5, 512)), plain.added(x, torch.ones(2, 5, 512))),
    ):
        assert (found - expected).norm(dim=-1).le(0.02 * (expected.norm(dim=-1) + 1)).all()
    assert torch.equal(layer(x)[1, 2], layer(x[1, 2][None])[0])
    assert layer.weight_bytes == weight.numel()
    x[0, 0, 3] = float("nan")
    assert not layer(x)[0, 0].isfinite().any()
    assert layer(x)[0, 1].isfinite().all()


@needs_vnni
def test_a_model_in_eight_bits_hears_much_the_same():
    torch.manual_seed(0)
    module = Whisper(ModelDimensions(80, 1500, 384, 6, 2, 51864, 448, 384, 6, 2))
    with torch.no_grad():
        module.decoder.positional_embedding.normal_(0.0, 0.01)
    plain, rounded = (Model(copy.deepcopy(module), dtype=dtype) for dtype in (torch.float32, torch.int8))
    assert (rounded.precision, rounded.dtype) == ("int8", torch.float32)
    mel = torch.randn(1, 80, 400)
    expected, _ = plain.encode(mel)
    found, _ = rounded.encode(mel)
    assert 0 < float((found - expected).norm() / expected.norm()) < 0.05
    assert GreedySearch(rounded).decoder.layers[0].mlp_in.weight.dtype == torch.float32
