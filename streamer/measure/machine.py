"""What a benchmark ran on: the machine, its load, the versions of what matters; and processes that are in the way."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("streamer", "torch", "openai-whisper", "faster-whisper", "ctranslate2", "numpy")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def facts(threads: int | None, device: str | None = None) -> dict[str, Any]:
    """The machine as plain values: date (UTC), processor, cores, threads in use, load average, versions.

    `threads` None: what is measured chooses them itself. `device`: the name of what computes where that is not the
    processor.
    """
    from streamer.model.machine_facts import cpuinfo, processor  # with torch, which a report alone does not need

    have = set(cpuinfo().get("flags", "").split())
    return {
        **({"device": device} if device else {}),
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


def resident_mib() -> float:
    """Memory of this process in MiB (resident); 0 where /proc does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_mib() -> float:
    """The most memory this process has held so far in MiB (resident); 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0.0
    per_mib = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mib


@contextmanager
def spinning(processes: int) -> Iterator[None]:
    """That many processes that do nothing, busily."""
    children = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()


def sentence(machine: Mapping[str, Any]) -> str:
    """The machine in one line of a document, with a word on its load."""
    one, five, _ = machine["load_1_5_15_min"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    busy = "a quiet machine" if one < 0.6 else "a LOADED machine: other programs had a share of its cores"
    threads = "" if machine["threads"] is None else f"{machine['threads']} threads in use; "
    device = f"{machine['device']}; " if machine.get("device") else ""
    return (
        f"{machine['date']}; {device}{machine['processor']} ({', '.join(machine['flags'])}), {machine['cores']} cores, "
        f"{threads}load average before the run {one} (1 min), {five} (5 min): "
        f"{busy}; {versions}."
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
