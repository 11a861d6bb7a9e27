"""The device that a bench runs on: its name, and waiting for what is queued there."""

import torch


def name(device: torch.device) -> str | None:
    """The name of a GPU with its memory; None for the processor, which `machine.facts` names."""
    if device.type != "cuda":
        return None
    found = torch.cuda.get_device_properties(device)
    return f"{found.name} ({found.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda})"


def wait(device: torch.device) -> None:
    """Return when all that was queued is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
