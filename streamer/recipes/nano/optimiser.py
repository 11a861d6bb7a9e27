"""The optimiser of `nano`: Muon for the matrices of the transformer blocks, AdamW for everything else.

Muon (Jordan et al., 2024) makes every step of a matrix orthogonal, so that all its directions are learned equally fast;
in the steps that an hour allows it gets further than AdamW alone.
"""

from typing import Any

import torch
from torch.nn import Parameter

from streamer.recipes.nano.network import Nano
from streamer.recipes.nano.settings import Schedule


class Optimiser:
    """Both of them as one; every parameter belongs to exactly one group."""

    def __init__(self, model: Nano, schedule: Schedule):
        blocks, head, tables, vectors = list[Parameter](), list[Parameter](), list[Parameter](), list[Parameter]()
        for name, value in model.named_parameters():
            if name.startswith("head."):
                head.append(value)
            elif value.dim() <= 1:
                vectors.append(value)
            elif ".blocks." in name:
                blocks.append(value)
            else:
                tables.append(value)
        decay = schedule.weight_decay
        groups = [
            {"params": tables, "weight_decay": decay, "speed": 1.0},
            {"params": vectors, "weight_decay": 0.0, "speed": 1.0},
            {"params": head, "weight_decay": decay, "speed": schedule.head_speed},
        ]
        self._adam = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), fused=True)
        self._muon = torch.optim.Muon(
            [{"params": blocks, "speed": schedule.matrix_speed}], weight_decay=decay, adjust_lr_fn="match_rms_adamw"
        )

    def step(self, rate: float) -> None:
        """One step along the gradients at a learning rate, which every group multiplies by its `speed`."""
        for part in (self._adam, self._muon):
            for group in part.param_groups:
                group["lr"] = rate * group["speed"]
            part.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._adam.zero_grad(set_to_none=True)
        self._muon.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"adam": self._adam.state_dict(), "muon": self._muon.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self._adam.load_state_dict(state["adam"])
        self._muon.load_state_dict(state["muon"])
