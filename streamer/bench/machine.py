"""What a bench ran on: a result without that says nothing."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from streamer.model.machine_facts import cpuinfo, processor

PACKAGES = ("streamer", "torch", "openai-whisper", "faster-whisper", "ctranslate2", "numpy")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def machine_facts(threads: int | None, device: Any = None) -> dict[str, Any]:
    """What a bench ran on, as plain values: date (UTC), processor, cores, threads in use, load average, versions.

    `threads` None: what is measured chooses them itself. `device`: the torch.device that computes; a GPU is named.
    """
    have = set(cpuinfo().get("flags", "").split())
    gpu = {}
    if device is not None and device.type == "cuda":
        known = torch.cuda.get_device_properties(device)
        gpu = {"device": f"{known.name} ({known.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda})"}
    return {
        **gpu,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": processor(),
        "flags": [flag for flag in FLAGS if flag in have],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "load_1_5_15_min": [round(value, 2) for value in load()],
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def load() -> tuple[float, float, float]:
    """Load averages over 1, 5 and 15 minutes; zeros where the system has none."""
    return os.getloadavg() if hasattr(os, "getloadavg") else (0.0, 0.0, 0.0)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
