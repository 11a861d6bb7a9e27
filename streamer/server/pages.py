"""The pages: what a browser gets for a GET, read once from the package, and the headers of every answer.

Two pages (`/`, `/overlay`) need the token where there is one; scripts, styles and pictures under `/static/` hold no
secret and do not. A page that was asked for with a token or a link's code gives the browser a cookie, which is all that
it needs from then on; a code is taken out of the address at once.
"""

import http
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from urllib.parse import parse_qsl, urlencode

from websockets.datastructures import Headers
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response

from streamer.server.access import Access, Credentials, Request, asker
from streamer.server.keys import COOKIE_S, Code
from streamer.server.metrics import CONTENT_TYPE

_PAGES = {"/": "viewer.html", "/overlay": "overlay.html", "/fitting": "fitting.html"}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_NO_TOKEN = (
    "This page needs the server's token or a link that works once, which Streamer prints where it runs.\n"
    "With the token: add ?token=... to the address.\n"
)
_SPENT = "This link was used already or is too old. Streamer prints a new one where it runs.\n"


@dataclass(frozen=True, slots=True)
class Page:
    """One answer to a GET. `open`: an asset without anything secret in it, which needs no token."""

    body: bytes
    content_type: str
    open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """What the server says of itself: troubles by session (none: ready), all metrics as text.

    `refused`: a request was not let in, with a word for why; `spent`: somebody came with a link of ours that is used or
    too old, to this path.
    """

    troubles: Callable[[], Mapping[str, str]]
    metrics: Callable[[], str]
    refused: Callable[[str], None]
    spent: Callable[[str], None]


class Pages:
    """Answers GET and HEAD, for whom `access` lets in. `secure`: browsers come by TLS."""

    def __init__(self, access: Access, reports: Reports, *, secure: bool = False, realtime: bool = False) -> None:
        """`realtime`: OpenAI's websocket is served."""
        self._access, self._reports, self._secure, self._pages = access, reports, secure, load_pages()
        self._sockets = ("/ws", "/ingest", "/v1/realtime") if realtime else ("/ws", "/ingest")

    def answer(self, request: HttpRequest, asked: Request, *, head: bool = False) -> Response | None:
        """What a browser gets; None for a websocket, which is refused after the handshake: there it can read why."""
        path = request.path.partition("?")[0]
        if path in self._sockets:
            return _text(426, "Connect with a websocket.\n", "localhost", Upgrade="websocket") if head else None
        response = self._page(path, asked, prefetched=head or "prefetch" in request.headers.get("Sec-Purpose", ""))
        if head:
            response.body = b""  # with the headers of what a GET gets, RFC 9110
        return response

    def _page(self, path: str, asked: Request, *, prefetched: bool) -> Response:
        if not self._access.host_allowed(asked):
            unknown = "This server is not known by that name; see the setting server.hosts.\n"
            return _text(403, unknown, "localhost")
        host = asked.hosts[0]
        if path == "/healthz":
            return _json(200, {"status": "ok"}, host)
        if path == "/readyz":
            troubles = self._reports.troubles()
            return _json(503 if troubles else 200, {"ready": not troubles, "troubles": dict(troubles)}, host)
        let_in = self._access.token_given(asked)
        if path == "/metrics":
            if asked.local or self._access.credentials(asked) in (Credentials.TOKEN, Credentials.COOKIE):
                return _response(200, self._reports.metrics().encode(), CONTENT_TYPE, host)
            return _text(401, "Metrics are for this machine and for those who send the token.\n", host)
        page = self._pages.get(path)
        if page is None:
            return _text(404, "There is nothing here. The pages are / and /overlay.\n", host)
        if page.open:
            return _response(200, page.body, page.content_type, host)
        code = asked.asked_for("code")
        if self._access.keys is not None and code is not None and not prefetched:
            return self._redeem(path, asked, code, let_in=let_in)
        if not let_in:
            self._reports.refused("token")
            return _text(401, _NO_TOKEN, host, **{"WWW-Authenticate": "Bearer"})
        cookie = self._cookie() if asked.asked_for("token") is not None else {}
        return _response(200, page.body, page.content_type, host, **cookie)

    def _redeem(self, path: str, asked: Request, code: str, *, let_in: bool) -> Response:
        """Exchange a link's code for a cookie and go on to the address without it.

        The new address is relative, so that it holds behind a proxy that puts the pages below a prefix.
        """
        assert self._access.keys is not None
        result = self._access.keys.use(code)
        if result is not Code.GOOD and not let_in:
            self._reports.refused("link")
            if result is Code.SPENT:
                self._reports.spent(path)
            return _text(401, _SPENT if result is Code.SPENT else _NO_TOKEN, asked.hosts[0])
        rest = [(name, value) for name, value in parse_qsl(asked.query, max_num_fields=20) if name != "code"]
        where = (path[1:] or "./") + (f"?{urlencode(rest)}" if rest else "")
        cookie = self._cookie() if result is Code.GOOD else {}
        return _text(303, "", asked.hosts[0], Location=where, **cookie)

    def _cookie(self) -> dict[str, str]:
        """The header that gives a cookie; {} where there is no token, so that none is needed.

        Without a path it holds where it was given and below, whatever prefix a proxy puts before it.
        """
        if self._access.keys is None:
            return {}
        value = f"{self._access.cookie_name}={self._access.keys.cookie()}; Max-Age={COOKIE_S}; HttpOnly; SameSite=Lax"
        return {"Set-Cookie": value + ("; Secure" if self._secure else "")}


def asked_by(request: HttpRequest, peer: str = "", proxies: frozenset[str] = frozenset()) -> Request:
    """The parts of a request's head that decide whether it is let in. `peer`: the address that it came from."""
    given, query = request.headers, request.path.partition("?")[2]
    address, local = asker(peer, given.get_all("X-Forwarded-For") or given.get_all("Forwarded"), proxies)
    return Request(
        given.get_all("Host"),
        given.get_all("Origin"),
        given.get_all("Authorization"),
        query,
        given.get_all("Cookie"),
        address,
        local,
    )


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


def _text(status: int, text: str, host: str, **more: str) -> Response:
    return _response(status, text.encode(), "text/plain; charset=utf-8", host, **more)


def _json(status: int, content: Mapping[str, object], host: str) -> Response:
    body = json.dumps(content, separators=(",", ":")) + "\n"
    return _response(status, body.encode(), "application/json", host)


def _response(status: int, body: bytes, content_type: str, host: str, **more: str) -> Response:
    """An answer. `host` is the request's Host, already found to be ours; the page may open websockets to it.

    Nothing may be loaded from elsewhere, nothing inline runs, and the address with its token is told to nobody. `more`:
    further headers.
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
        **more,
    }
    return Response(status, http.HTTPStatus(status).phrase, Headers(headers), body)


def too_many_tries(wait_s: float) -> Response:
    """The answer to an address that gave too many wrong tokens."""
    seconds = str(max(1, round(wait_s)))
    return _text(429, f"Too many wrong tokens; try in {seconds} s.\n", "localhost", **{"Retry-After": seconds})
