"""Who may import what: rooms import only from rooms above; what is pure sees no torch, threads or sockets."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "streamer"
# From top to bottom: a module imports from its own room and from those before it. `streamer` is the public names.
ROOMS = [
    *("cpu_threads", "errors", "events", "settings", "config", "audio", "plans", "vad", "model", "policy", "sound"),
    *("output", "server", "alerts", "runtime", "measure", "training", "bench", "recipes", "commands", "streamer"),
]
STRANGERS = [("training", "bench"), ("bench", "recipes"), ("training", "recipes")]  # neither imports the other
PURE = ["vad", "policy", "sound"]
TORCH_FREE = [*PURE, "settings", "output", "server", "alerts"]
CLOCKS = {"threading", "socket", "asyncio", "time", "datetime", "queue"}
ONLY_IN = {
    "sounddevice": {"audio/portaudio.py"},
    "websockets": {"server/websocket.py"},
    "webrtcvad": {"vad/voice.py"},
    "apprise": {"alerts/notify.py"},
    "paho": {"alerts/mqtt.py"},
    "av": {"audio/link.py", "audio/track.py"},
    "soxr": {"audio/resample.py"},
}
THEIR_OWN = ("bench", "training", "recipes")  # they read and write recordings, and speak to servers, of their own
FILES = {
    ".".join(("streamer", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


@cache
def imports(module: str) -> frozenset[str]:
    """Modules of ours and first names of others' that are imported, anywhere in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in inside}
    return frozenset(name if name in FILES else name.split(".")[0] for name in found)


def at_import(module: str) -> frozenset[str]:
    """As `imports`, of what is imported when the module itself is."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    later = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and node.lineno not in later:
            names = {alias.name for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                names = {str(node.module), *(f"{node.module}.{name}" for name in names)}
            found |= names
    return frozenset(found)


def reached(module: str) -> set[str]:
    """All that is imported when `module` is, through our own modules too."""
    found, waiting = set(), [module]
    while waiting:
        for name in at_import(waiting.pop()):
            if name not in found:
                found.add(name)
                waiting += [name] if name in FILES else []
    return found


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def of_room(name: str) -> list[str]:
    return [module for module in FILES if room(module) == name]


def test_every_room_is_known_and_there():
    assert {room(module) for module in FILES} == set(ROOMS)


@pytest.mark.parametrize("name", ROOMS)
def test_rooms_import_only_from_rooms_above(name):
    for module in of_room(name):
        used = {room(other) for other in imports(module) if other in FILES and other != "streamer"}
        assert used <= set(ROOMS[: ROOMS.index(name) + 1]), module


@pytest.mark.parametrize(("one", "other"), STRANGERS)
def test_what_judges_does_not_come_from_what_teaches(one, other):
    for here, there in ((one, other), (other, one)):
        for module in of_room(here):
            assert there not in {room(name) for name in imports(module)}, module


@pytest.mark.parametrize("name", TORCH_FREE)
def test_these_rooms_never_see_torch(name):
    for module in of_room(name):
        assert not reached(module) & {"torch", "whisper"}, module
        assert not imports(module) & {"torch", "whisper"}, module


def test_policies_see_no_detector():
    for module in of_room("policy"):
        assert not reached(module) & {"webrtcvad", "onnxruntime"}, module


@pytest.mark.parametrize("name", PURE)
def test_pure_rooms_have_no_threads_sockets_or_clocks(name):
    for module in of_room(name):
        assert not {found.split(".")[0] for found in imports(module)} & CLOCKS, module


def test_each_device_library_has_one_home():
    for module, path in FILES.items():
        if room(module) in THEIR_OWN:
            continue
        for library, homes in ONLY_IN.items():
            if library in imports(module):
                assert path.relative_to(PACKAGE).as_posix() in homes, f"{path} imports {library}"


def test_importing_the_package_does_no_work():
    """`import streamer` and the records must not pull in torch."""
    code = "import streamer.config, streamer.policy.text_session, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
