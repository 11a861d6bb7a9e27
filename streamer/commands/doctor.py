"""What this machine has and lacks for Streamer, and the command that mends each thing.

The heavy packages are tried in processes of their own: one that is broken can fail or hang without taking us along.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path

from streamer.audio.portaudio import PortAudio
from streamer.errors import DeviceLost, InputError
from streamer.model.download import cache_root

MIN_PYTHON = (3, 11)
MIN_FREE_GB = 2.0  # enough for openai-whisper's `small` and room to spare
PROBE_TIMEOUT_S = 120.0
_DATA = Path(__file__).parents[1] / "data"
_PACKAGES = {
    "av": "av",
    "soxr": "soxr",
    "pydantic": "pydantic",
    "yaml": "pyyaml",
    "websockets": "websockets",
    "safetensors": "safetensors",
    "huggingface_hub": "huggingface_hub",
    "onnxruntime": "onnxruntime",
    "silero_vad": "silero-vad",
}

_PROBE_TORCH = """
import json, torch
print(json.dumps({"version": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability(),
    "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else ""}))
"""
_PROBE_WHISPER = """
import json, whisper, whisper.tokenizer
print(json.dumps({"version": whisper.__version__}))
"""
_PROBE_VAD = """
import json, webrtcvad
webrtcvad.Vad(2).is_speech(bytes(640), 16000)
print(json.dumps({}))
"""


class Verdict(Enum):
    """How a check came out. `WARN`: Streamer runs, but not with everything."""

    OK = "ok"
    WARN = "warn"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: what, what was found, and the command (or advice) that mends it, empty when ok."""

    verdict: Verdict
    what: str
    detail: str
    mend: str = ""


def checks() -> list[Check]:
    """Look at everything, in the order in which a person would mend it. Never raises."""
    looks: list[Callable[[], Check]] = [
        _python,
        _packages,
        _torch,
        _whisper,
        _webrtcvad,
        _portaudio,
        _microphone,
        _nano,
        _disk,
    ]
    with ThreadPoolExecutor(max_workers=4) as pool:
        return list(pool.map(lambda look: look(), looks))


def _python() -> Check:
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] < MIN_PYTHON:
        wanted = ".".join(str(part) for part in MIN_PYTHON)
        return Check(Verdict.MISSING, "Python", f"{found} is too old", f"install Python {wanted} or newer")
    return Check(Verdict.OK, "Python", found)


def _packages() -> Check:
    missing = [package for module, package in _PACKAGES.items() if find_spec(module) is None]
    if missing:
        return Check(Verdict.MISSING, "packages", f"without {', '.join(missing)}", _pip(*missing))
    return Check(Verdict.OK, "packages", ", ".join(_PACKAGES.values()))


def _torch() -> Check:
    found = _probe(_PROBE_TORCH)
    if isinstance(found, str):
        return Check(Verdict.MISSING, "torch", found, _pip("torch"))
    detail = f"{found['version']}, CPU {found['cpu']}{_bfloat16()}"
    if found["cuda"]:
        return Check(Verdict.OK, "torch", f"{detail}, CUDA on {found['cuda']}")
    if shutil.which("nvidia-smi"):
        mend = "install a CUDA build of torch and a matching driver: https://pytorch.org/get-started/locally"
        return Check(Verdict.WARN, "torch", f"{detail}, but it cannot use this machine's NVIDIA GPU", mend)
    return Check(Verdict.OK, "torch", f"{detail}, no CUDA GPU")


def _whisper() -> Check:
    return _works("openai-whisper", "openai-whisper", _PROBE_WHISPER)


def _webrtcvad() -> Check:
    return _works("webrtcvad", "webrtcvad-wheels", _PROBE_VAD)


def _works(what: str, package: str, probe: str) -> Check:
    found = _probe(probe)
    if isinstance(found, str):
        return Check(Verdict.MISSING, what, found, _pip(package))
    return Check(Verdict.OK, what, found.get("version", "works"))


def _portaudio() -> Check:
    try:
        PortAudio()
    except InputError as error:
        mend = "brew install portaudio" if sys.platform == "darwin" else "sudo apt-get install libportaudio2"
        if find_spec("sounddevice") is None:
            mend = _pip("sounddevice")
        return Check(Verdict.MISSING, "PortAudio", str(error).removeprefix("--device: ").split(";")[0], mend)
    return Check(Verdict.OK, "PortAudio", "works")


def _microphone() -> Check:
    try:
        audio = PortAudio()
        devices = audio.devices()
        for device in sorted(devices, key=lambda device: not device.default):
            rate, channels = audio.native_format(device)
            return Check(Verdict.OK, "microphone", f"{len(devices)}, {device.name!r} at {rate} Hz x {channels}")
    except InputError:
        return Check(Verdict.WARN, "microphone", "cannot look without PortAudio", "mend PortAudio first")
    except DeviceLost as error:
        return Check(Verdict.WARN, "microphone", str(error), "choose another with --device, see --list-devices")
    mend = "plug one in or start the sound server (`systemctl --user start pipewire-pulse`), or use --input FILE"
    return Check(Verdict.WARN, "microphone", "this machine shows none", mend)


def _nano() -> Check:
    path = _DATA / "nano.pt"
    if not path.is_file():
        mend = "install Streamer again, or give a checkpoint with --model"
        return Check(Verdict.MISSING, "model nano", f"{path} is missing", mend)
    if not (_DATA / "nano_at.pth").is_file():
        mend = "install Streamer again, or give a head with --head"
        return Check(Verdict.WARN, "model nano", "its tagging head nano_at.pth is missing: captions only", mend)
    return Check(Verdict.OK, "model nano", str(path))


def _disk() -> Check:
    cache = cache_root()
    there = next(path for path in (cache, *cache.parents) if path.exists())
    try:
        free_gb = shutil.disk_usage(there).free / 1e9
    except OSError as error:
        return Check(Verdict.WARN, "cache", f"{cache}: {error.strerror}", "set XDG_CACHE_HOME to a directory you own")
    if not os.access(there, os.W_OK):
        return Check(Verdict.WARN, "cache", f"{there} may not be written", "set XDG_CACHE_HOME to a directory you own")
    if free_gb < MIN_FREE_GB:
        mend = "free some space, or set XDG_CACHE_HOME to a larger disk"
        return Check(Verdict.WARN, "cache", f"{cache}: only {free_gb:.1f} GB free", mend)
    return Check(Verdict.OK, "cache", f"{cache}: {free_gb:.0f} GB free")


def _probe(code: str) -> dict[str, str] | str:
    """What the code printed as JSON in a process of its own, or one line that says why it failed."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"did not load within {PROBE_TIMEOUT_S:.0f} s"
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"loading it ended with status {done.returncode}"
    found: dict[str, str] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _bfloat16() -> str:
    """What the CPU's flags say of bfloat16, where the system shows them."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return ""
    return next((f" with {flag}" for flag in ("amx_bf16", "avx512_bf16") if flag in flags), "")


def _pip(*packages: str) -> str:
    return " ".join([sys.executable, "-m", "pip", "install", *packages])
