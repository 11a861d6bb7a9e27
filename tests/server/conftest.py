from collections.abc import Iterator

import pytest

from streamer.server.actions import Actions
from streamer.server.websocket import ServerThread
from streamer.settings.server import ServerSettings


@pytest.fixture
def serve() -> Iterator:
    running: list[ServerThread] = []

    def start(actions: Actions | None = None, **options) -> ServerThread:
        server = ServerThread(ServerSettings(**{"port": 0, **options}), actions)
        server.start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.stop()
