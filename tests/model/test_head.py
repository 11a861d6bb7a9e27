import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from streamer.errors import CheckpointError
from streamer.model.head import CLASSES, HeadKind, HeadModule, HeadShape, load_head, read_shape, strip_prefixes

WIDTH, LAYERS, STEPS = 48, 3, 7
SHAPES = [
    HeadShape(HeadKind.LAST_MLP, WIDTH),
    HeadShape(HeadKind.MEAN_MLP, WIDTH),
    HeadShape(HeadKind.WA_MLP, WIDTH, LAYERS),
    HeadShape(HeadKind.WA_TR, WIDTH, LAYERS),
    HeadShape(HeadKind.WA_TR, WIDTH, LAYERS, low_width=16),
    HeadShape(HeadKind.TL_TR, WIDTH),
    HeadShape(HeadKind.TL_TR, WIDTH, low_width=16),
]
NAMES = [f"{shape.kind}{'_low' if shape.low_width else ''}" for shape in SHAPES]


def random_module(shape: HeadShape) -> HeadModule:
    torch.manual_seed(2)
    module = HeadModule(shape)
    for parameter in module.parameters():
        parameter.data = 0.3 + 0.2 * torch.randn(parameter.shape)
    return module.eval()


def attention_block(block: nn.Module, x: Tensor, heads: int) -> Tensor:
    """Whisper's residual attention block, written out."""
    attn, normed = block.attn, F.layer_norm(x, x.shape[-1:], block.attn_ln.weight, block.attn_ln.bias)
    parts = [part(normed).unflatten(-1, (heads, -1)).transpose(1, 2) for part in (attn.query, attn.key, attn.value)]
    scores = parts[0] @ parts[1].mT / parts[0].shape[-1] ** 0.5
    x = x + attn.out((scores.softmax(-1) @ parts[2]).transpose(1, 2).flatten(2))
    return x + block.mlp(F.layer_norm(x, x.shape[-1:], block.mlp_ln.weight, block.mlp_ln.bias))


def written_out(module: HeadModule, taps: Tensor) -> Tensor:
    """Each head as the paper's text has it, one item and one layer at a time."""
    shape = module.shape
    down = getattr(module, "down_layer", nn.Identity())
    rows = []
    for item in taps:
        if shape.kind is HeadKind.LAST_MLP:
            vector = item[-1].mean(0)
        elif shape.kind is HeadKind.MEAN_MLP:
            vector = torch.stack([layer.mean(0) for layer in item]).mean(0)
        elif shape.kind is HeadKind.TL_TR:
            layers = [attention_block(module.time_tr, down(layer)[None], 1)[0].mean(0) for layer in item]
            vector = attention_block(module.layer_tr, torch.stack(layers)[None], 8)[0].mean(0)
        else:
            total = module.layer_weight.sum()
            average = sum(weight / total * layer for weight, layer in zip(module.layer_weight, item, strict=True))
            if shape.kind is HeadKind.WA_TR:
                average = attention_block(module.time_tr, down(average)[None], 1)[0]
            vector = average.mean(0)
        rows.append(module.mlp_layer(vector[None])[0])
    return torch.stack(rows)


@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
@torch.no_grad()
def test_a_head_computes_what_the_paper_says(shape: HeadShape) -> None:
    module = random_module(shape)
    taps = torch.randn(3, LAYERS, STEPS, WIDTH)
    assert_close(module(taps), written_out(module, taps), atol=1e-4, rtol=1e-5)
    assert_close(module(taps[:, :, :1]), written_out(module, taps[:, :, :1]), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("prefix", ["", "at_model.", "module.", "module.at_model."])
@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
@torch.no_grad()
def test_kind_and_sizes_are_read_off_the_tensors(shape: HeadShape, prefix: str, tmp_path: Path) -> None:
    module = random_module(shape)
    path = tmp_path / f"{shape.kind}.pth"  # its name tells Mean-MLP from Last-MLP
    torch.save({prefix + key: tensor for key, tensor in module.state_dict().items()}, path)
    head = load_head(path)
    assert head.module.shape == shape
    assert head.name == shape.kind
    taps = torch.randn(2, LAYERS, STEPS, WIDTH)
    assert torch.equal(head.module(taps), module(taps))


def test_the_description_settles_what_tensors_cannot(tmp_path: Path) -> None:
    path = tmp_path / "x_at.pth"
    torch.save(HeadModule(SHAPES[1]).state_dict(), path)
    assert load_head(path).module.shape.kind is HeadKind.LAST_MLP
    path.with_suffix(".json").write_text('{"kind": "mean_mlp"}')
    assert load_head(path).module.shape.kind is HeadKind.MEAN_MLP
    path.with_suffix(".json").write_text('{"kind": "tl_tr"}')
    with pytest.raises(CheckpointError, match="says kind `tl_tr`, its tensors are those of `last_mlp`"):
        load_head(path)


def test_calibrated_scores(tmp_path: Path) -> None:
    path = tmp_path / "x_at.pth"
    torch.save(HeadModule(SHAPES[0]).state_dict(), path)
    logits = torch.linspace(-5, 5, 2 * CLASSES).view(2, CLASSES)
    assert_close(load_head(path).probabilities(logits), torch.sigmoid(logits))
    scale, offset = [1.0] * CLASSES, [0.0] * CLASSES
    scale[3], offset[3] = 2.0, -1.0
    told = {"calibration": {"scale": scale, "offset": offset}, "thresholds": [0.5] * CLASSES}
    path.with_suffix(".json").write_text(json.dumps(told))
    scores = load_head(path).probabilities(logits)
    assert scores.dtype == torch.float32
    assert_close(scores[:, 3], torch.sigmoid(2 * logits[:, 3] - 1))
    assert_close(scores[:, 4], torch.sigmoid(logits[:, 4]))


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"calibration": {"scale": [1.0], "offset": [0.0]}}, "x_at.json: calibration.scale"),
        ({"calibration": {"scale": [1.0] * CLASSES}}, "x_at.json: calibration.offset"),
        ({"thresholds": [0.5]}, "x_at.json: thresholds"),
        ({"kind": "ast"}, "x_at.json: kind"),
    ],
)
def test_odd_descriptions_are_refused(told: dict[str, object], says: str, tmp_path: Path) -> None:
    path = tmp_path / "x_at.pth"
    torch.save(HeadModule(SHAPES[0]).state_dict(), path)
    path.with_suffix(".json").write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match=says) as caught:
        load_head(path)
    assert "\n" not in str(caught.value)


def test_other_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x_at.pth"
    good = HeadModule(SHAPES[6]).state_dict()
    cases = [
        ({"a": torch.zeros(2)}, "not a Whisper-AT head"),
        ({**good, "mlp_layer.1.weight": torch.zeros(527)}, "not a Whisper-AT head"),
        ({**good, "down_layer.1.weight": torch.zeros(16)}, "a matrix is needed"),
        ({**good, "extra": torch.zeros(1)}, "has the unknown `extra`"),
        ({key: good[key] for key in good if key != "time_tr.attn.key.weight"}, "lacks `time_tr.attn.key.weight`"),
        ({**good, "time_tr.attn.key.weight": torch.zeros(8, 8)}, r"has shape \[8, 8\] where \[16, 16\] belongs"),
        ({**good, "time_tr.attn.key.weight": torch.full((16, 16), torch.inf)}, "not finite"),
        (HeadModule(HeadShape(HeadKind.LAST_MLP, WIDTH, classes=50)).state_dict(), "judges 50 classes"),
        ([good], "holds no tensors by name"),
    ]
    for tensors, says in cases:
        torch.save(tensors, path)
        with pytest.raises(CheckpointError, match=says) as caught:
            load_head(path)
        assert "\n" not in str(caught.value)


def test_a_width_that_the_layer_heads_do_not_divide_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x_at.pth"
    odd = HeadModule(HeadShape(HeadKind.TL_TR, 12, layer_heads=4))
    torch.save(odd.state_dict(), path)
    with pytest.raises(CheckpointError, match="width 12 does not divide into 8"):
        load_head(path)


def test_prefixes_in_any_order() -> None:
    tensor = torch.zeros(1)
    assert strip_prefixes({"module.at_model.a.b": tensor, "module.c": tensor}) == {"a.b": tensor, "c": tensor}


def test_weighted_kinds_need_their_layers() -> None:
    with pytest.raises(ValueError, match="number of layers"):
        HeadModule(HeadShape(HeadKind.WA_MLP, 8))


def test_fresh_layer_weights_are_an_average() -> None:
    module = HeadModule(HeadShape(HeadKind.WA_MLP, WIDTH, 4))
    assert_close(module.layer_weight.data, torch.full((4,), 0.25))
    assert read_shape(module.state_dict(), "fresh").layers == 4
