"""A stub of YouTube's and Zoom's caption endpoints: it counts posts as they do, and fails where it is told to."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class CaptionReceiver:
    """`taken`: seq and text of each caption; a seq that was there before is a retry and not shown again.

    `next`: what to do with the next posts: a status (nothing is taken), "lose" (taken, answered with 500), "hang"
    (taken, no answer for `hang_s`). `shift_s`: how far its clock is off.
    """

    def __init__(self) -> None:
        self.taken: list[tuple[int, str]] = []
        self.tried: list[int] = []
        self.queries: list[dict[str, str]] = []
        self.types: list[str] = []
        self.next: list[int | str] = []
        self.hang_s = 1.0
        self.shift_s = 0.0
        self.asked = 0
        self.url = ""

    @property
    def seqs(self) -> list[int]:
        return [seq for seq, _ in self.taken]

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.taken)

    def post(self, seq: int, text: str) -> int:
        self.tried.append(seq)
        what = self.next.pop(0) if self.next else 200
        if isinstance(what, int) and what != 200:
            return what
        if seq not in self.seqs:
            assert not self.taken or seq > self.seqs[-1], "seq went back"
            self.taken.append((seq, text))
        if what == "hang":
            time.sleep(self.hang_s)
        return 500 if what == "lose" else 200


@contextmanager
def caption_receiver(path: str = "/closedcaption?id=42&ns=GZHkEA==&signature=topsecret") -> Iterator[CaptionReceiver]:
    state = CaptionReceiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            body = self.rfile.read(int(self.headers["Content-Length"])).decode("utf-8")
            state.queries.append(query)
            state.types.append(self.headers["Content-Type"])
            if not {"seq", *parse_qs(urlsplit(path).query)} <= set(query):
                return self.answer(403, "")
            now = datetime.fromtimestamp(time.time() + state.shift_s, UTC)
            self.answer(state.post(int(query["seq"]), body), now.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3])

        def do_GET(self) -> None:
            state.asked += 1
            if urlsplit(self.path).path != urlsplit(path).path + "/seq":
                return self.answer(404, "")
            self.answer(200, str(max(state.seqs, default=0)))

        def answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that does not wait for the answer is no error here."""

    server = Server(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}{path}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
