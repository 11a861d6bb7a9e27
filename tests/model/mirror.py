"""Mirrors of the publishers on loopback, for tests of what is fetched."""

import io
import socket

import torch

from streamer.model.catalog import HEADS
from streamer.model.download import Patience, Sources
from streamer.model.head import HeadKind, HeadModule, HeadShape


def mirrored(url: str) -> Sources:
    """Checkpoints and heads from a publisher; nobody answers for the hub, and pip has no index."""
    return Sources(
        f"{url}/models",
        f"{url}/heads",
        hub_url=f"http://127.0.0.1:{closed_port()}",
        pip_options=("--no-index",),
        patience=Patience(timeout_s=5, attempts=2, pause_s=0),
    )


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def released_head(seed: int = 0, prefix: str = "at_model.") -> bytes:
    torch.manual_seed(seed)
    buffer = io.BytesIO()
    state = HeadModule(HeadShape(HeadKind.TL_TR, 64)).state_dict()
    torch.save({prefix + key: tensor for key, tensor in state.items()}, buffer)
    return buffer.getvalue()


def head_path(name: str) -> str:
    return f"heads/{HEADS[name].address.partition('?')[0]}"
