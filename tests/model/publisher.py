"""A publisher on loopback that behaves as badly as a test wants: what it serves and how are plain attributes."""

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Publisher:
    """`files` by path. `cut_after`: end after so many bytes, once each. `statuses`: answer these first."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    stall_after: int | None = None
    ranges: bool = True
    etags: bool = True
    lengths: bool = True
    commit: str | None = None  # as the Hugging Face hub says it
    asked: list[str | None] = field(default_factory=list)  # the Range of every request
    released: threading.Event = field(default_factory=threading.Event)

    def publish(self, path: str, content: bytes) -> str:
        self.files[path] = content
        return f"{self.url}/{path}"


def handler_of(publisher: Publisher) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            publisher.asked.append(self.headers.get("Range"))
            content = publisher.files.get(self.path.lstrip("/").partition("?")[0])
            if publisher.statuses:
                return self.send_error(publisher.statuses.pop(0))
            if content is None:
                return self.send_error(404)
            etag = f'"{hashlib.md5(content).hexdigest()}"'
            begin = self._begin(content)
            if begin is None:
                return self.send_error(416)
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            if publisher.lengths:
                self.send_header("Content-Length", str(len(content) - begin))
            if publisher.etags:
                self.send_header("ETag", etag)
            self.end_headers()
            self._send(content[begin:])

        def do_HEAD(self) -> None:
            content = publisher.files.get(self.path.lstrip("/").partition("?")[0])
            self.send_response(404 if content is None else 200)
            if content is not None:
                self.send_header("Content-Length", str(len(content)))
                self.send_header("ETag", f'"{hashlib.md5(content).hexdigest()}"')
            if publisher.commit is not None:
                self.send_header("X-Repo-Commit", publisher.commit)
            self.end_headers()

        def _begin(self, content: bytes) -> int | None:
            wanted = self.headers.get("Range")
            if not publisher.ranges or wanted is None:
                return 0
            begin = int(wanted.removeprefix("bytes=").rstrip("-"))
            return begin if begin < len(content) else None

        def _send(self, content: bytes) -> None:
            with contextlib.suppress(ConnectionError):
                if publisher.stall_after is not None:
                    self.wfile.write(content[: publisher.stall_after])
                    publisher.released.wait(20)
                    return
                self.wfile.write(content[: publisher.cut_after.pop(0)] if publisher.cut_after else content)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler


@contextlib.contextmanager
def open_publisher() -> Iterator[Publisher]:
    publisher = Publisher()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(publisher))
    server.daemon_threads = True
    publisher.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield publisher
    finally:
        publisher.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
