"""What was measured on this machine: once, then remembered in the user's cache, so that a start measures nothing again.

One JSON file for all: under what was measured, on which processor and with which torch, its value and when that was.
And what this machine is, for those who publish what they measured (`machine_facts`).
"""

import logging
import os
import platform
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from streamer.model.download import cache_root, read_json, write_json

log = logging.getLogger(__name__)

PACKAGES = ("streamer", "torch", "openai-whisper", "faster-whisper", "ctranslate2", "numpy")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
FRESH_S = 7 * 86_400.0  # what is not good is measured again after so long: the machine may have been busy all the while


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """Numbers that were measured, kept in `path`; a file that cannot be read or written is done without."""

    path: Path
    now: Callable[[], float] = time.time

    def known(self, what: str, good: Callable[[float], bool]) -> float | None:
        """What was measured; None where nothing was, or where it is not good and old."""
        fact = self._read().get(_key(what))
        if fact is None or not (good(fact["value"]) or self.now() - fact["at"] < FRESH_S):
            return None
        return fact["value"]

    def value(self, what: str, measure: Callable[[], float], good: Callable[[float], bool]) -> float:
        """What is known, else what `measure` gives, which is remembered from now on."""
        known = self.known(what, good)
        if known is not None:
            return known
        value = round(float(measure()), 4)
        log.debug("measured here: %s: %g", what, value)
        try:
            write_json(self.path, self._read() | {_key(what): {"value": value, "at": round(self.now())}})
        except OSError as error:
            log.debug("%s cannot be written: %s", self.path, error)
        return value

    def _read(self) -> dict[str, dict[str, float]]:
        try:
            content = read_json(self.path)
            return {key: {"value": float(one["value"]), "at": float(one["at"])} for key, one in content.items()}
        except (ValueError, TypeError, KeyError):
            return {}


def remembered() -> MachineFacts:
    """What was measured on the machines that share this home, each under its own key.

    `STREAMER_MACHINE_FACTS` names another file. Without a home nothing is remembered.
    """
    if named := os.environ.get("STREAMER_MACHINE_FACTS"):
        return MachineFacts(Path(named))
    try:
        return MachineFacts(cache_root() / "machine.json")
    except RuntimeError:
        return MachineFacts(Path(os.devnull) / "machine.json")


def kernel_works(what: str, probe: Callable[[], bool]) -> bool:
    """Whether a kernel is right and fast here, as `probe` once found."""
    return bool(remembered().value(what, probe, bool))


def _key(what: str) -> str:
    """Everything that a kernel and the time that it takes depend on."""
    return f"{what}, {_processor()} {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


def _processor() -> str:
    """Its name, and a checksum of what it can do: a virtual machine may hide some of that."""
    flags = cpuinfo().get("flags") or cpuinfo().get("Features", "")
    return f"{processor()} {zlib.crc32(flags.encode()):08x}" if flags else processor()


def processor() -> str:
    """The processor's name as the system gives it."""
    return cpuinfo().get("model name") or platform.processor() or platform.machine()


@cache
def cpuinfo() -> Mapping[str, str]:
    """What Linux says of the first processor; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}


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
