"""OBS's stream captions through obs-websocket 5 (github.com/obsproject/obs-websocket, docs/generated/protocol.md).

    OBS  ── Hello (0): authentication? ─────────────►
         ◄── Identify (1): rpcVersion, authentication ──
         ── Identified (2) ─────────────────────────►
         ◄── Request (6): SendStreamCaption ────────────
         ── RequestResponse (7): requestStatus ─────►

OBS puts each caption into the stream as CEA-608, whole: it takes the place of the one before. So that people read two
lines that roll up, each caption is the line before and the new one. CEA-608 carries two bytes a frame at 30 frames a
second; a caption that comes before the one before it is through tears that one, so the rest after each is what it
takes on the line. When a paragraph comes at once, both lines of a caption are new: 64 columns in 1.5 s.
"""

import base64
import hashlib
import json
import logging
import socket
import time
from contextlib import ExitStack
from typing import Any, NoReturn
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from streamer.output.caption_sender import CaptionService, Lines, NotTakenError, NotWantedError
from streamer.output.posting import failure

HELLO, IDENTIFY, IDENTIFIED, REQUEST, RESPONSE = 0, 1, 2, 6, 7  # WebSocketOpCode
RPC_VERSION = 1
AUTHENTICATION_FAILED = 4009  # WebSocketCloseCode
OUTPUT_NOT_RUNNING = 501  # RequestStatus: OBS does not stream
PORT = 4455  # OBS's own
COLUMNS, ROWS = 32, 2  # of CEA-608's fifteen rows we use two
BYTES_PER_S = 60.0  # CEA-608: 2 bytes a frame, 29.97 frames a second
CONTROL_BYTES = 20  # of one caption with two rows: its mode, the rows' places, and that it is complete, each sent twice
CLEAR_S = 8.0  # nothing new for so long: the last caption goes away
TIMEOUT_S = 5.0
# CEA-608 knows Western European letters, and these not.
_PLAINER = str.maketrans({"…": "...", "–": "-", "„": '"', "‚": "'", "‹": "'", "›": "'", "\u00a0": " ", "\u2011": "-"})

_wire_log = logging.getLogger(f"{__name__}.wire")


def authentication(password: str, salt: str, challenge: str) -> str:
    """What OBS wants to see instead of the password."""
    secret = base64.b64encode(hashlib.sha256((password + salt).encode()).digest()).decode()
    return base64.b64encode(hashlib.sha256((secret + challenge).encode()).digest()).decode()


class ObsCaptions(CaptionService):
    """OBS at `url`. `password`: a secret; `path`: where the settings stand; `bytes_per_s`: what CEA-608 carries."""

    name, cells, at_once, late_s = "OBS", COLUMNS, ROWS, 10.0

    def __init__(self, url: str, password: str | None, *, path: str, bytes_per_s: float = BYTES_PER_S) -> None:
        self._url, self._password, self._path, self._bytes_per_s = url, password, path, bytes_per_s
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or PORT)
        self._connection: ClientConnection | None = None
        self._leave = ExitStack()  # closes the connection
        self._number = 0
        self._shown: tuple[str, ...] = ()
        self._clear_at_s = 0.0
        _wire_log.setLevel(logging.WARNING)  # the answer to the challenge is nobody's business, with --debug neither

    def send(self, lines: Lines) -> float:
        """See `CaptionService`."""
        shown = (*self._shown, *(line.text.translate(_PLAINER) for line in lines))[-ROWS:]
        text = "\n".join(shown)
        self._show(text)
        self._shown, self._clear_at_s = shown, time.monotonic() + CLEAR_S
        return (len(text) + CONTROL_BYTES) / self._bytes_per_s

    def idle(self) -> bool:
        """Connect, also again; take away what has stood for long enough."""
        if self._shown and time.monotonic() >= self._clear_at_s:
            self._shown = ()
            try:
                self._show("")
            except NotWantedError:  # the stream ended, and its captions with it
                return True
        elif self._connection is not None:
            self._listen(self._connection)
        if self._connection is None:
            self._connection = self._connect()
        return True

    def close(self) -> None:
        """Leave OBS."""
        self._connection = None
        self._leave.close()

    def _show(self, text: str) -> None:
        if self._connection is None:
            self._connection = self._connect()
        self._number += 1
        request = {
            "requestType": "SendStreamCaption",
            "requestId": str(self._number),
            "requestData": {"captionText": text},
        }
        try:
            self._connection.send(json.dumps({"op": REQUEST, "d": request}))
            answer = _read(self._connection, RESPONSE)
            while answer.get("requestId") != str(self._number):
                answer = _read(self._connection, RESPONSE)
        except (ConnectionClosed, OSError, ValueError) as error:
            self._drop(_why(error))
        status = answer.get("requestStatus") or {}
        if status.get("code") == OUTPUT_NOT_RUNNING:
            self._shown = ()
            raise NotWantedError("it is reached and does not stream: captions begin with the stream")
        if status.get("result") is not True:
            raise NotTakenError(f"OBS answered {status.get('code')}")

    def _listen(self, connection: ClientConnection) -> None:
        """Notice that OBS ended."""
        try:
            connection.recv(timeout=0)
        except TimeoutError:
            pass
        except ConnectionClosed as error:
            self._drop(_why(error))

    def _drop(self, why: str) -> NoReturn:
        self.close()
        raise NotTakenError(why)

    def _connect(self) -> ClientConnection:
        """A connection on which we are identified. Raises NotTakenError."""
        self._leave.close()
        try:
            sock = socket.create_connection(self._address, TIMEOUT_S)  # our own: a proxy for the web is not meant
            connection = self._leave.enter_context(
                connect(
                    self._url,
                    sock=sock,
                    subprotocols=[Subprotocol("obswebsocket.json")],
                    open_timeout=TIMEOUT_S,
                    close_timeout=1.0,
                    logger=_wire_log,
                )
            )
        except (OSError, InvalidHandshake, InvalidMessage) as error:
            raise NotTakenError(f"{_why(error)} at {self._address[0]}:{self._address[1]}") from None
        try:
            self._identify(connection)
        except ConnectionClosed as error:
            refused = error.rcvd is not None and error.rcvd.code == AUTHENTICATION_FAILED
            self._drop(f"the password is wrong; see {self._path}.password" if refused else _why(error))
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._drop(_why(error))
        return connection

    def _identify(self, connection: ClientConnection) -> None:
        hello = _read(connection, HELLO)
        wish: dict[str, Any] = {"rpcVersion": RPC_VERSION, "eventSubscriptions": 0}
        if (asked := hello.get("authentication")) is not None:
            if self._password is None:
                self._drop(f"OBS wants its password; see {self._path}.password")
            wish["authentication"] = authentication(self._password, str(asked["salt"]), str(asked["challenge"]))
        connection.send(json.dumps({"op": IDENTIFY, "d": wish}))
        _read(connection, IDENTIFIED)


def _read(connection: ClientConnection, op: int) -> dict[str, Any]:
    """The next message of this kind. Raises TimeoutError; ValueError for what obs-websocket 5 does not say."""
    until_s = time.monotonic() + TIMEOUT_S
    while True:
        try:
            message = json.loads(connection.recv(timeout=max(0.0, until_s - time.monotonic())))
            if message["op"] == op:
                return dict(message["d"])
        except (KeyError, TypeError):
            raise ValueError("no obs-websocket 5") from None


def _why(error: Exception) -> str:
    """Why there is no connection, for people."""
    if isinstance(error, ConnectionRefusedError):
        return "OBS does not listen (Tools, WebSocket Server Settings)"
    if isinstance(error, ConnectionClosed):
        return "OBS closed the connection"
    if isinstance(error, OSError):
        return failure(error)
    return "what answers does not speak obs-websocket 5"
