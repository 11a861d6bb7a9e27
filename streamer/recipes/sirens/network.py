"""The network of `streamer.sound.patterns.sirens` as it is trained, and how its weights are stored."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamer.sound.patterns import sirens
from streamer.sound.patterns.sirens import AROUND, BANDS, CLASSES, INPUT, STEPS

WIDTHS = (32, 48, 64, 64)
SIZES = (5, 3, 3, 3)  # of the convolutions
STRIDES = ((1, 2), (2, 2), (2, 1), (2, 2))  # in time and pitch
HIDDEN = 96
PLACES = 5 * STEPS // 8  # in time and pitch behind the last convolution


class _Block(nn.Module):
    """A convolution, its norm, a ReLU."""

    def __init__(self, before: int, after: int, size: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(before, after, size, stride=stride, padding=size // 2)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.norm(self.convolution(x)))

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of a convolution that does both, for judging."""
        values = self.state_dict()
        gain = values["norm.weight"] / torch.sqrt(values["norm.running_var"] + self.norm.eps)
        bias = (values["convolution.bias"] - values["norm.running_mean"]) * gain + values["norm.bias"]
        return values["convolution.weight"] * gain[:, None, None, None], bias


class TrainedNet(nn.Module):
    """Levels [b, STEPS, BANDS] in dB to logits [b, 4]."""

    def __init__(self) -> None:
        super().__init__()
        shapes = zip((2, *WIDTHS[:-1]), WIDTHS, SIZES, STRIDES, strict=True)
        self.blocks = nn.Sequential(*(_Block(*shape) for shape in shapes))
        self.hidden = nn.Linear(WIDTHS[-1] * PLACES, HIDDEN)
        self.last = nn.Linear(HIDDEN, len(CLASSES))
        self.dropout = nn.Dropout(0.2)

    def forward(self, levels: Tensor) -> Tensor:
        """Logits of CLASSES at the end of each window."""
        x = self.blocks(_inputs(levels))
        logits: Tensor = self.last(self.dropout(functional.relu(self.hidden(x.flatten(1)))))
        return logits

    @torch.no_grad()
    def save(self, path: Path) -> None:
        """Write what `sirens` reads: ONNX with weights in float16, the norms folded into the convolutions."""
        from onnx import TensorProto, helper

        nodes, weights, outputs = list[Any](), list[Any](), [INPUT]

        def apply(kind: str, *given: Tensor, **options: Any) -> None:
            name = f"{kind}{len(nodes)}"
            for number, value in enumerate(given):
                half, full = f"{name}.{number}.half", f"{name}.{number}"
                raw = value.half().numpy().tobytes()
                weights.append(helper.make_tensor(half, TensorProto.FLOAT16, value.shape, raw, raw=True))
                nodes.append(helper.make_node("Cast", [half], [full], to=TensorProto.FLOAT))
            inputs = [outputs[-1], *(f"{name}.{number}" for number in range(len(given)))]
            nodes.append(helper.make_node(kind, inputs, [name], **options))
            outputs.append(name)

        for block, size, stride in zip(self.blocks, SIZES, STRIDES, strict=True):
            assert isinstance(block, _Block)
            apply("Conv", *block.folded(), strides=list(stride), pads=[size // 2] * 4)
            apply("Relu")
        apply("Flatten")
        apply("Gemm", self.hidden.weight, self.hidden.bias, transB=1)
        apply("Relu")
        apply("Gemm", self.last.weight, self.last.bias, transB=1)
        apply("Softmax")
        graph = helper.make_graph(
            nodes,
            "sirens",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, 2, STEPS, BANDS])],
            [helper.make_tensor_value_info(outputs[-1], TensorProto.FLOAT, [1, len(CLASSES)])],
            weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        path.write_bytes(model.SerializeToString())


def _inputs(levels: Tensor) -> Tensor:
    """The inputs [b, 2, STEPS, BANDS], as in `sirens`."""
    padded = functional.pad(levels, (AROUND, AROUND), mode="replicate")
    mean = functional.avg_pool1d(padded, 2 * AROUND + 1, stride=1)
    contrast = (levels - mean) / sirens.CONTRAST_DB
    loud = torch.quantile(levels.flatten(1)[:, :: sirens.LOUD_EVERY], sirens.LOUD_QUANTILE, dim=1)
    level = (levels - loud[:, None, None]) / sirens.LEVEL_DB
    return torch.stack(
        [
            contrast.clamp(sirens.CONTRAST_LEAST, sirens.CONTRAST_MOST),
            level.clamp(sirens.LEVEL_LEAST, sirens.LEVEL_MOST),
        ],
        dim=1,
    )
