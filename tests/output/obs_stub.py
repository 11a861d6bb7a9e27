"""OBS as its protocol document describes it: Hello, authentication, Identified, SendStreamCaption, close codes."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

SALT, CHALLENGE = "lM1GncleQOaCu9lT1yeUZhFYnqhsLLP1G5lAGo3ixaI=", "+IxH4CnCiqpX1rM9scsNynZzbOe4KhDeYcTNS3PDaeY="


class ObsStub:
    """`captions`: what was sent, with the time; `codes`: of RequestStatus, for the next requests (100 when empty)."""

    def __init__(self, password: str | None) -> None:
        self.password = password
        self.captions: list[tuple[float, str]] = []
        self.identified: list[dict[str, Any]] = []
        self.codes: list[int] = []
        self.connections: list[ServerConnection] = []
        self.url = ""

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.captions]

    def handle(self, connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            self._handle(connection)

    def _handle(self, connection: ServerConnection) -> None:
        assert connection.subprotocol == "obswebsocket.json"
        self.connections.append(connection)
        hello: dict[str, Any] = {"obsWebSocketVersion": "5.5.2", "rpcVersion": 1}
        if self.password is not None:
            hello["authentication"] = {"challenge": CHALLENGE, "salt": SALT}
        connection.send(json.dumps({"op": 0, "d": hello}))
        identify = json.loads(connection.recv(5))
        if identify["op"] != 1:
            return connection.close(4007, "not identified")
        if self.password is not None:
            first = base64.b64encode(hashlib.sha256(f"{self.password}{SALT}".encode()).digest())
            right = base64.b64encode(hashlib.sha256(first + CHALLENGE.encode()).digest()).decode()
            if identify["d"].get("authentication") != right:
                return connection.close(4009, "Authentication failed.")
        if identify["d"]["rpcVersion"] != 1:
            return connection.close(4010, "rpc version")
        self.identified.append(identify["d"])
        connection.send(json.dumps({"op": 2, "d": {"negotiatedRpcVersion": 1}}))
        for message in connection:
            request = json.loads(message)
            if request["op"] != 6:
                return connection.close(4006, "unknown op code")
            self._answer(connection, request["d"])

    def _answer(self, connection: ServerConnection, request: dict[str, Any]) -> None:
        code = self.codes.pop(0) if self.codes else 100
        if request["requestType"] != "SendStreamCaption":
            code = 204
        elif not isinstance(request["requestData"]["captionText"], str):
            code = 401
        elif code == 100:
            self.captions.append((time.monotonic(), request["requestData"]["captionText"]))
        connection.send(json.dumps({"op": 5, "d": {"eventType": "Noise", "eventIntent": 1}}))  # is to be ignored
        status = {"result": code == 100, "code": code}
        same = {name: request[name] for name in ("requestType", "requestId")}
        connection.send(json.dumps({"op": 7, "d": same | {"requestStatus": status}}))


@contextmanager
def obs(password: str | None = None, port: int = 0) -> Iterator[ObsStub]:
    stub = ObsStub(password)
    with serve(stub.handle, "127.0.0.1", port, subprotocols=[Subprotocol("obswebsocket.json")]) as server:
        stub.url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield stub
        finally:
            for connection in stub.connections:
                connection.close()
            server.shutdown()
            thread.join()
