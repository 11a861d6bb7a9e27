"""The pages: what a browser gets for a GET, read once from the package, and the headers of every answer.

Two pages (`/`, `/overlay`) need the token where there is one; scripts, styles and pictures under `/static/` hold no
secret and do not.
"""

import http
from dataclasses import dataclass
from importlib.resources import files

from websockets.datastructures import Headers
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response

from streamer.server.access import Access, Request

_PAGES = {"/": "viewer.html", "/overlay": "overlay.html"}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Page:
    """One answer to a GET. `open`: an asset without anything secret in it, which needs no token."""

    body: bytes
    content_type: str
    open: bool = False


class Pages:
    """Answers GETs, for whom `access` lets in."""

    def __init__(self, access: Access, *, realtime: bool = False) -> None:
        """`realtime`: OpenAI's websocket is served."""
        self._access, self._pages = access, load_pages()
        self._sockets = ("/ws", "/ingest", "/v1/realtime") if realtime else ("/ws", "/ingest")

    def answer(self, request: HttpRequest) -> Response | None:
        """What a browser gets; None for a websocket, which is refused after the handshake: there it can read why."""
        path = request.path.partition("?")[0]
        if path in self._sockets:
            return None
        asked = asked_by(request)
        if not self._access.host_allowed(asked):
            unknown = "This server is not known by that name; see the setting server.hosts.\n"
            return _text(403, unknown, "localhost")
        host = asked.hosts[0]
        if path == "/healthz":
            return _response(200, b'{"status":"ok"}\n', "application/json", host)
        page = self._pages.get(path)
        if page is None:
            return _text(404, "There is nothing here. The pages are / and /overlay.\n", host)
        if not page.open and not self._access.token_given(asked):
            return _text(401, "A token is needed: add ?token=... to the address.\n", host)
        return _response(200, page.body, page.content_type, host)


def asked_by(request: HttpRequest) -> Request:
    """The parts of a request's head that decide whether it is let in."""
    given, query = request.headers, request.path.partition("?")[2]
    return Request(given.get_all("Host"), given.get_all("Origin"), given.get_all("Authorization"), query)


def load_pages() -> dict[str, Page]:
    """Path on the server -> page, from the installed package."""
    pages = {}
    for file in (files("streamer") / "web").iterdir():
        suffix = file.name[file.name.rfind(".") :]
        if suffix in _TYPES and suffix != ".html":
            pages[f"/static/{file.name}"] = Page(file.read_bytes(), _TYPES[suffix], open=True)
    for path, name in _PAGES.items():
        pages[path] = Page((files("streamer") / "web" / name).read_bytes(), _TYPES[".html"])
    return pages


def _text(status: int, text: str, host: str) -> Response:
    return _response(status, text.encode(), "text/plain; charset=utf-8", host)


def _response(status: int, body: bytes, content_type: str, host: str) -> Response:
    """An answer. `host` is the request's Host, already found to be ours; the page may open websockets to it.

    Nothing may be loaded from elsewhere, nothing inline runs, and the address with its token is told to nobody.
    """
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        f"connect-src 'self' ws://{host} wss://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )
    headers = {
        "Content-Type": content_type,
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "Connection": "close",
        "Content-Security-Policy": policy,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "SAMEORIGIN",
    }
    return Response(status, http.HTTPStatus(status).phrase, Headers(headers), body)
