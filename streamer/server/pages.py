"""The pages: what a browser gets for a GET, read once from the package, and the headers of every answer.

The pages (`/`, `/overlay`, `/overlay-setup`, `/mic`, `/fitting`), the transcripts (`/transcript`) and the audiogram in
use (`/fitting.json`) need the token where there is one; scripts, styles and pictures under `/static/`, and the service
worker, hold no secret and do not, nor does the certificate that was made here (`/certificate`, for iPhones). A page
that was asked for with a token or a link's code gives the browser a cookie, which is all that it needs from then on (a
new one comes with a page once it is a day old); a code is taken out of the address at once.
"""

import asyncio
import gzip
import http
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from urllib.parse import parse_qsl, urlencode

from websockets.datastructures import Headers
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response
from websockets.typing import Subprotocol

from streamer.server.access import Access, Credentials, Request, asker
from streamer.server.keys import COOKIE_S, Code
from streamer.server.metrics import CONTENT_TYPE
from streamer.server.tls import Tls
from streamer.server.transcripts import TYPES as TRANSCRIPT_TYPES

PHONE_PAGE = "/mic"  # a phone, or any browser, as the microphone: the one page that may use it
CERTIFICATE = "/certificate"
FITTING = "/fitting.json"  # what `/fitting` shows of the hearing aid
_PAGES = {
    "/": "viewer.html",
    "/overlay": "overlay.html",
    "/overlay-setup": "overlay_setup.html",
    PHONE_PAGE: "mic.html",
    "/fitting": "fitting.html",
}
_WORKER = "service_worker.js"  # beside the pages: a browser lets it serve only what lies below its own address
_WORTH_PACKING = 16_384  # bytes
PACKED_AT_ONCE = 2  # transcripts, of at most 16 MB each; others wait
_STYLES = "style-src 'self'"
# What else a page may do. OBS puts its "Custom CSS" into the overlay as a style element.
_MORE = {"/overlay": "style-src 'self' 'unsafe-inline'", "/overlay-setup": f"{_STYLES}; frame-src 'self'"}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
_NO_TOKEN = (
    "This page needs the server's token or a link that works once, which Streamer prints where it runs.\n"
    "With the token: add ?token=... to the address.\n"
)
_UNKNOWN_HOST = "This server is not known by that name; see the setting server.hosts.\n"
_SPENT = "This link was used already or is too old. Streamer prints a new one where it runs.\n"
SUBPROTOCOLS = ("token", "bearer")  # of a websocket that brings the token in this way


@dataclass(frozen=True, slots=True)
class Page:
    """One answer to a GET. `open`: an asset without anything secret in it, which needs no token.

    `policy`: what its Content-Security-Policy says of styles and frames.
    """

    body: bytes
    content_type: str
    open: bool = False
    policy: str = _STYLES


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """What the server says of itself: troubles by session (none: ready), all metrics as text.

    `refused`: a request was not let in, with a word for why; `spent`: somebody came with a link of ours that is
    used or too old, to this path (with its query). `transcript`: of a session, in a format, in pieces; KeyError where
    there is none. `fitting`: of the hearing aid, None: there is none.
    """

    troubles: Callable[[], Mapping[str, str]]
    metrics: Callable[[], Awaitable[str]]
    refused: Callable[[str], None]
    spent: Callable[[str], None]
    transcript: Callable[[str | None, str], Awaitable[list[str]]]
    fitting: Mapping[str, object] | None


class Pages:
    """Answers GET and HEAD, for whom `access` lets in. `tls`: browsers come by it."""

    def __init__(
        self, access: Access, reports: Reports, tls: Tls | None = None, *, sockets: Sequence[str] = ("/ws", "/ingest")
    ) -> None:
        """`sockets`: the paths of the websockets that are served."""
        self._access, self._reports, self._secure, self._pages = access, reports, tls is not None, load_pages()
        if tls and tls.certificate:
            self._pages[CERTIFICATE] = Page(tls.certificate.encode(), "application/x-x509-ca-cert", open=True)
        self._sockets = frozenset(sockets)
        self._packing = asyncio.Semaphore(PACKED_AT_ONCE)

    async def answer(self, request: HttpRequest, asked: Request, *, head: bool = False) -> Response | None:
        """What a browser gets; None for a websocket, which is refused after the handshake: there it can read why."""
        path = request.path.partition("?")[0]
        if path in self._sockets:
            return _text(426, "Connect with a websocket.\n", "localhost", Upgrade="websocket") if head else None
        prefetched = head or "prefetch" in request.headers.get("Sec-Purpose", "")
        packed = "gzip" in request.headers.get("Accept-Encoding", "")
        if path == "/transcript":
            response = await self._transcript(asked, packed=packed)
        elif path == "/metrics":
            response = await self._metrics(asked)
        else:
            response = self._page(path, asked, prefetched=prefetched)
        if head:
            response.body = b""  # with the headers of what a GET gets, RFC 9110
        return response

    def _page(self, path: str, asked: Request, *, prefetched: bool) -> Response:
        if not self._access.host_allowed(asked):
            return _text(403, _UNKNOWN_HOST, "localhost")
        host = asked.hosts[0]
        if path == "/healthz":
            return json_answer(200, {"status": "ok"}, host)
        if path == "/readyz":
            troubles = self._reports.troubles()
            return json_answer(503 if troubles else 200, {"ready": not troubles, "troubles": dict(troubles)}, host)
        let_in = self._access.token_given(asked)
        if path == FITTING:
            return self._fitting(host, let_in=let_in)
        page = self._pages.get(path)
        if page is None:
            *pages, last = _PAGES
            return _text(404, f"There is nothing here. The pages are {', '.join(pages)} and {last}.\n", host)
        if page.open:
            return _response(200, page.body, page.content_type, host)
        code = asked.asked_for("code")
        if self._access.keys is not None and code is not None and not prefetched:
            return self._redeem(path, asked, code, let_in=let_in)
        if not let_in:
            self._reports.refused("token")
            return _text(401, _NO_TOKEN, host, **{"WWW-Authenticate": "Bearer"})
        more = self._cookie() if self._access.wants_cookie(asked) else {}
        if path == PHONE_PAGE:
            more |= {"Permissions-Policy": "camera=(), geolocation=(), microphone=(self)"}
        return _response(200, page.body, page.content_type, host, page.policy, **more)

    def _fitting(self, host: str, *, let_in: bool) -> Response:
        """What the hearing aid does with sound, for those who may read what is said here."""
        if not let_in:
            self._reports.refused("token")
            return _text(401, _NO_TOKEN, host, **{"WWW-Authenticate": "Bearer"})
        return json_answer(200, {"hearing_aid": self._reports.fitting}, host)

    async def _metrics(self, asked: Request) -> Response:
        """All that there is to measure, for programs of this machine and who brings the token."""
        if not self._access.host_allowed(asked):
            return _text(403, _UNKNOWN_HOST, "localhost")
        if asked.local or self._access.credentials(asked) in (Credentials.TOKEN, Credentials.COOKIE):
            return _response(200, (await self._reports.metrics()).encode(), CONTENT_TYPE, asked.hosts[0])
        return _text(401, "Metrics are for this machine and for those who send the token.\n", asked.hosts[0])

    async def _transcript(self, asked: Request, *, packed: bool) -> Response:
        """A session's transcript, to be saved. It is packed where it is large: an answer is cut off after 3 s.

        That is done in a thread: 16 MB would hold up everybody's captions.
        """
        if not self._access.host_allowed(asked):
            return _text(403, _UNKNOWN_HOST, "localhost")
        host = asked.hosts[0]
        if not self._access.token_given(asked):
            self._reports.refused("token")
            return _text(401, _NO_TOKEN, host, **{"WWW-Authenticate": "Bearer"})
        name, session = asked.asked_for("format") or "txt", asked.asked_for("session")
        if name not in TRANSCRIPT_TYPES:
            return _text(400, f"format: must be one of {', '.join(TRANSCRIPT_TYPES)}\n", host)
        try:
            pieces = await self._reports.transcript(session, name)
        except KeyError as error:
            return _text(404, f"{error.args[0]}\n", host)
        async with self._packing:
            body, is_packed = await asyncio.to_thread(_body, pieces, packed=packed)
        file = re.sub(r"[^A-Za-z0-9._-]+", "_", session or "") or "transcript"
        headers = {"Content-Disposition": f'attachment; filename="{file}.{name}"', "Vary": "Accept-Encoding"}
        if is_packed:
            headers["Content-Encoding"] = "gzip"
        return _response(200, body, TRANSCRIPT_TYPES[name], host, **headers)

    def _redeem(self, path: str, asked: Request, code: str, *, let_in: bool) -> Response:
        """Exchange a link's code for a cookie and go on to the address without it.

        The new address is relative, so that it holds behind a proxy that puts the pages below a prefix.
        """
        assert self._access.keys is not None
        result = self._access.keys.use(code)
        rest = [(name, value) for name, value in parse_qsl(asked.query, max_num_fields=20) if name != "code"]
        query = f"?{urlencode(rest)}" if rest else ""
        if result is not Code.GOOD and not let_in:
            self._reports.refused("link")
            if result is Code.SPENT:
                self._reports.spent(path + query)
            return _text(401, _SPENT if result is Code.SPENT else _NO_TOKEN, asked.hosts[0])
        where = (path[1:] or "./") + query
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
        [*given.get_all("Authorization"), *_by_subprotocol(given.get_all("Sec-WebSocket-Protocol"))],
        query,
        given.get_all("Cookie"),
        address,
        local,
    )


def _by_subprotocol(offered: Sequence[str]) -> list[str]:
    """`token, KEY` as an Authorization value: browsers send a websocket no other headers (Deepgram's clients do so)."""
    scheme, comma, key = ",".join(offered).partition(",")
    return [f"{scheme.strip()} {key.strip()}"] if comma and scheme.strip() in SUBPROTOCOLS else []


def chosen_subprotocol(connection: object, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """The first that we know of those that a client offers: a browser gives up where it offered some and gets none."""
    return next((name for name in offered if name in SUBPROTOCOLS), None)


def load_pages() -> dict[str, Page]:
    """Path on the server -> page, from the installed package."""
    pages = {}
    for file in (files("streamer") / "web").iterdir():
        suffix = file.name[file.name.rfind(".") :]
        if suffix in _TYPES and suffix != ".html":
            pages[f"/static/{file.name}"] = Page(file.read_bytes(), _TYPES[suffix], open=True)
    for path, name in _PAGES.items():
        body, more = (files("streamer") / "web" / name).read_bytes(), _MORE.get(path, _STYLES)
        pages[path] = Page(body, _TYPES[".html"], policy=more)
    pages[f"/{_WORKER}"] = pages.pop(f"/static/{_WORKER}")
    return pages


def _body(pieces: Sequence[str], *, packed: bool) -> tuple[bytes, bool]:
    """Pieces of text as the body of an answer; `packed`: with gzip where that is worth it, and whether it was."""
    body = "".join(pieces).encode("utf-8", "replace")
    if packed and len(body) >= _WORTH_PACKING:
        return gzip.compress(body, compresslevel=1), True
    return body, False


def _text(status: int, text: str, host: str, **more: str) -> Response:
    return _response(status, text.encode(), "text/plain; charset=utf-8", host, **more)


def json_answer(status: int, content: Mapping[str, object], host: str) -> Response:
    """An answer of JSON. `host`: as in `_response`."""
    body = json.dumps(content, separators=(",", ":")) + "\n"
    return _response(status, body.encode(), "application/json", host)


def _response(status: int, body: bytes, content_type: str, host: str, policy: str = _STYLES, **more: str) -> Response:
    """An answer. `host` is the request's Host, already found to be ours; the page may open websockets to it.

    Nothing may be loaded from elsewhere, nothing inline runs, and the address with its token is told to nobody. `more`:
    further headers.
    """
    whole = (
        f"default-src 'none'; script-src 'self'; {policy}; img-src 'self' data:; "
        f"connect-src 'self' ws://{host} wss://{host}; manifest-src 'self'; worker-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )
    headers = {
        "Content-Type": content_type,
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "Connection": "close",
        "Content-Security-Policy": whole,
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
