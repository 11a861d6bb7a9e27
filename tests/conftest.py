import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("streamer", deadline=None)  # a busy machine is no defect
settings.load_profile("streamer")
ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def pytest_configure():
    """Remember nothing that is measured on a machine which runs tests: whoever runs them uses the program there too."""
    from streamer.model import machine_facts

    machine_facts.remembered = lambda: machine_facts.MachineFacts(Path(os.devnull) / "machine.json")


def pytest_collection_modifyitems(items):
    """Skip what needs a GPU or the development data on machines that have none; nothing else is skipped here."""
    import torch

    from streamer.model.cpu_threads import one_blas_thread

    one_blas_thread()  # numpy may have come before us
    torch.set_num_threads(1)  # as `model.threads: 1`: several threads on a busy machine wait for one another
    for item in items:
        if item.get_closest_marker("shared") and not (SHARED / "scenes").is_dir():
            item.add_marker(pytest.mark.skip(reason="needs the development data in ../shared"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _no_home(monkeypatch, tmp_path):
    """Tests write no alerts into the home of whoever runs them, and do not read the settings there."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    return SHARED


@pytest.fixture
def first_session() -> str | None:
    """The session that each server of `serve` begins with; None: none. Modules that want one have a fixture of this
    name.
    """
    return None


@pytest.fixture
def serve(first_session: str | None) -> Iterator:
    """Starts the real server on a free port: `serve(actions, limits, session=…, **settings)`; any number of them."""
    from streamer.server.messages import SessionInfo
    from streamer.server.websocket import ServerThread
    from streamer.settings.server import ServerSettings

    running: list[ServerThread] = []

    def start(actions=None, limits=None, session: str | None = first_session, **options) -> ServerThread:
        server = ServerThread(ServerSettings(**{"port": 0, **options}), actions, limits)
        server.start()
        running.append(server)
        if session is not None:
            server.open_session(SessionInfo(session, "nano", "nano_at", 16_000))
        return server

    yield start
    for server in running:
        server.stop()
