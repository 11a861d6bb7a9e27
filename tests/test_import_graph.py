"""Who may import what: rooms import only from rooms above; what is pure sees no torch, threads or sockets."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "docs"))
import rooms
from rooms import room_of

# From top to bottom: a module imports from its own room and from those before it. `streamer` is the public names.
ROOMS = [
    "errors",
    "events",
    "settings",
    "audio",
    "vad",
    "model",
    "policy",
    "sound",
    "monitor",
    "output",
    "client",
    "server",
    "alerts",
    "runtime",
    "cluster",
    "measure",
    "training",
    "bench",
    "recipes",
    "commands",
    "streamer",
]
STRANGERS = [("training", "bench"), ("bench", "recipes"), ("training", "recipes")]  # neither imports the other
PURE = ["events", "vad", "policy", "sound"]
TORCH_FREE = [*PURE, "errors", "settings", "monitor", "output", "client", "server", "alerts"]
CLOCKS = {"threading", "socket", "asyncio", "time", "datetime", "queue"}
ONLY_IN = {
    "sounddevice": {"streamer.audio.portaudio"},
    "websockets": {
        *(f"streamer.server.{name}" for name in ("websocket", "sockets", "readers", "senders", "pages")),
        *(f"streamer.client.{name}" for name in ("connection", "ingest")),
        "streamer.output.obs",
    },
    "aiohttp": {"streamer.server.openai_http"},
    "cryptography": {"streamer.server.self_signed"},
    "webrtcvad": {"streamer.vad.voice"},
    "apprise": {"streamer.alerts.targets"},
    "paho": {"streamer.alerts.mqtt"},
    "av": {f"streamer.audio.{name}" for name in ("link", "track", "packets")},
    "soxr": {"streamer.audio.resample"},
    "ray": {"streamer.cluster.connect", "streamer.cluster.replica"},
}
THEIR_OWN = ("bench", "training", "recipes")  # they read and write recordings, and speak to servers, of their own
FILES = rooms.files()


@cache
def imports(module: str) -> frozenset[str]:
    """Modules of ours and first names of others' that are imported, anywhere in the file."""
    return rooms.imports(FILES[module], FILES)


@cache
def when_loaded(module: str) -> frozenset[str]:
    """The same, of what is imported when the module itself is."""
    return rooms.imports(FILES[module], FILES, when_loaded=True)


def reached(module: str) -> set[str]:
    """All that is imported when `module` is, through our own modules too."""
    found, waiting = set(), [module]
    while waiting:
        for name in when_loaded(waiting.pop()):
            if name not in found:
                found.add(name)
                waiting += [name] if name in FILES else []
    return found


def of_room(name: str) -> list[str]:
    return [module for module in FILES if room_of(module) == name]


def test_every_room_is_known_and_there():
    assert {room_of(module) for module in FILES} == set(ROOMS)


@pytest.mark.parametrize("name", ROOMS)
def test_rooms_import_only_from_rooms_above(name):
    for module in of_room(name):
        used = {room_of(other) for other in imports(module) if other in FILES and other != "streamer"}
        assert used <= set(ROOMS[: ROOMS.index(name) + 1]), module


@pytest.mark.parametrize(("one", "other"), STRANGERS)
def test_what_judges_does_not_come_from_what_teaches(one, other):
    for here, there in ((one, other), (other, one)):
        for module in of_room(here):
            assert there not in {room_of(name) for name in imports(module)}, module


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


def test_the_hearing_aid_s_process_starts_with_little():
    """Within a second, and with nothing that computes beside the sound."""
    found = reached("streamer.monitor.process")
    rooms_of_ours = {room_of(module) for module in found if module in FILES}
    assert rooms_of_ours <= {"cpu_threads", "errors", "events", "settings", "audio", "monitor", "streamer"}
    assert not found & {"torch", "scipy", "onnxruntime", "websockets", "aiohttp", "av"}


def test_each_device_library_has_one_home():
    for module in FILES:
        if room_of(module) in THEIR_OWN:
            continue
        for library, homes in ONLY_IN.items():
            if library in imports(module):
                assert module in homes, f"{module} imports {library}"


def test_importing_the_package_does_no_work():
    """`import streamer` and the records must not pull in torch."""
    code = "import streamer.config, streamer.policy.text_session, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
