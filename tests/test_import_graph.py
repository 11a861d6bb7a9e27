"""Who may import what: pure rooms see no torch, threads or sockets, and rooms import only from rooms above."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "streamer"
ROOMS = ["audio", "vad", "model", "decoding", "policy", "sound", "runtime", "sinks", "bench", "training"]
# runtime puts the sinks together; quality, training and bench run streams.
ABOVE = {room: set(ROOMS[: index + 1]) for index, room in enumerate(ROOMS)}
ABOVE["runtime"].add("sinks")
ABOVE["sinks"].discard("runtime")
TORCH_FREE = ["vad", "policy", "sound", "sinks"]
ONLY_IN = {
    "sounddevice": {"audio/portaudio.py"},
    "websockets": {"sinks/websocket.py", "sinks/network_source.py"},
    "webrtcvad": {"vad/webrtc.py"},
    "apprise": {"sinks/notify.py"},
    "paho": {"sinks/mqtt.py"},
    "av": {"audio/track.py"},
    "soxr": {"audio/resample.py"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def files(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py"))


def first_names(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("room", TORCH_FREE)
def test_pure_rooms_never_see_torch(room):
    for path in files(room):
        assert not first_names(path) & {"torch", "whisper"}, path


@pytest.mark.parametrize("room", ["vad", "policy", "sound"])
def test_pure_rooms_have_no_threads_sockets_or_clocks(room):
    for path in files(room):
        assert not first_names(path) & {"threading", "socket", "asyncio", "time", "datetime", "queue"}, path


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_from_rooms_above(room):
    for path in files(room):
        used = {name.split(".")[1] for name in imports(path) if name.startswith("streamer.")}
        assert not (used & set(ROOMS)) - ABOVE[room], path


def test_each_device_library_has_one_home():
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parts[len(PACKAGE.parts)] in ("bench", "training"):
            continue  # they read and write recordings of their own
        for library, homes in ONLY_IN.items():
            if library in first_names(path):
                assert path.relative_to(PACKAGE).as_posix() in homes, f"{path} imports {library}"


def test_importing_the_package_does_no_work():
    """`import streamer` and the records must not pull in torch."""
    import subprocess
    import sys

    code = "import streamer.config, streamer.policy.session, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
