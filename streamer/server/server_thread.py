"""The server in a thread of its own, for programs whose main thread does something else.

The thread runs one event loop and owns it, the server's sockets and their tasks. Everything else here may be called
from any thread.
"""

import asyncio
import logging
import threading
from collections.abc import Callable

from streamer.errors import ConfigError
from streamer.server.hub import HubLimits
from streamer.server.listening import Actions, ServerOptions
from streamer.server.websocket import DONE, Server

START_S = 10.0  # seconds until the server must listen
STOP_S = 2.0  # seconds until `stop` returns

_log = logging.getLogger(__name__)


class ServerThread:
    """A `Server` that runs beside the caller. `on_failure` is told, in the server's thread, when its loop breaks.

    `open_session`, `describe`, `close_session`, `publish` and `show_marks` are the server's own. Raises ConfigError, as
    `Server` does, from the constructor and from `start`.
    """

    def __init__(
        self,
        options: ServerOptions,
        actions: Actions | None = None,
        limits: HubLimits | None = None,
        on_failure: Callable[[Exception], None] | None = None,
    ) -> None:
        self._server = server = Server(options, actions, limits)
        self.open_session, self.describe, self.close_session = (
            server.open_session,
            server.describe,
            server.close_session,
        )
        self.publish, self.show_marks = server.publish, server.show_marks
        self._host = options.host
        self._on_failure = on_failure
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None
        self._how: tuple[int, str] = (DONE, "done")
        self._listening = threading.Event()
        self._refused: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="streamer-server", daemon=True)
        self.port = 0
        self.url = ""

    def start(self) -> None:
        """Start the thread and return once the server listens; `port` and `url` are known then."""
        self._thread.start()
        if not self._listening.wait(START_S):
            raise ConfigError(f"--host: {self._host!r} gives no answer; try 127.0.0.1")
        if self._refused is not None:
            self._thread.join()
            raise self._refused

    def stop(self, code: int = DONE, reason: str = "done", *, timeout_s: float = STOP_S) -> None:
        """Send what is left, close all clients with `code`, end the thread; within `timeout_s`. Any number of times."""
        loop, ending = self._loop, self._ending
        if loop is None or ending is None or not self._thread.is_alive():
            return
        self._how = (code, reason)
        try:
            loop.call_soon_threadsafe(ending.set)
        except RuntimeError:  # the loop ended by itself just now
            return
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as exc:  # noqa: BLE001 - the top of the thread
            if not self._listening.is_set():
                self._refused = exc
            else:
                _log.exception("the server broke down")
                if self._on_failure is not None:
                    self._on_failure(exc)
        finally:
            self._listening.set()

    async def _serve(self) -> None:
        await self._server.start()
        self.port, self.url = self._server.port, self._server.url
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        self._listening.set()
        await self._ending.wait()
        await self._server.stop(*self._how)
