"""Who may use the server (pure decisions on hosts, origins and tokens), how much one client may say, and the pages.

Any web page can open `ws://localhost` (so the Origin is checked) or point a name of its own at 127.0.0.1 (DNS
rebinding, so the Host is checked); on other interfaces than loopback a token is demanded. Pages are read once from the
package.
"""

import hmac
import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from urllib.parse import parse_qs, urlsplit

from streamer.errors import ConfigError

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_WILDCARDS = frozenset({"", "0.0.0.0", "::"})
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")  # RFC 9110, without what nobody uses
_DEFAULT_PORT = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_PAGES = {"/": "viewer.html", "/overlay": "overlay.html"}
_SCRIPTS = (
    *("dom.js", "feed.js", "marks.js", "learn.js", "alerts.js"),
    *("condition.js", "timeline.js", "viewer.js", "overlay.js"),
)
_ASSETS = (*_SCRIPTS, "viewer.css", "overlay.css", "icon.svg")


@dataclass(frozen=True, slots=True)
class Request:
    """The parts of a request's head that decide: every Host, Origin and Authorization value, and the query string."""

    hosts: Sequence[str]
    origins: Sequence[str]
    authorizations: Sequence[str]
    query: str


class Access:
    """The rules of one server.

    `host` is what it binds to; `names` are further host names it is known by (behind a proxy, in the local network);
    `origins` are web origins (`https://example.org`) besides its own that may connect.
    """

    def __init__(
        self, host: str, token: str | None = None, names: Sequence[str] = (), origins: Sequence[str] = ()
    ) -> None:
        if token is not None and not token:
            raise ConfigError("--token: must not be empty; leave it out or give a long random word")
        if not is_loopback(host) and token is None:
            shown = host or "(all interfaces)"
            raise ConfigError(
                f"--token: --host {shown} can be reached from the network and needs a token; give --token"
            )
        self._token = None if token is None else token.encode()
        self._names = _LOOPBACK_NAMES | {_bare(name) for name in names} | ({_bare(host)} - _WILDCARDS)
        self._any_address = not is_loopback(host)
        self._origins = {_origin(origin) for origin in origins}

    def host_allowed(self, request: Request) -> bool:
        """Whether the Host names this server. Rebinding needs a name: an address is fine once a token guards it."""
        match = _HOST.fullmatch(request.hosts[0]) if len(request.hosts) == 1 else None
        if match is None:
            return False
        name = _bare(match[1])
        return name in self._names or (self._any_address and _is_address(name))

    def origin_allowed(self, request: Request) -> bool:
        """Whether the page that connects, if it is one, came from here or is on the list."""
        if not request.origins:
            return True
        if len(request.origins) != 1 or len(request.hosts) != 1:
            return False
        origin = _origin(request.origins[0])
        if origin is None:
            return False
        return origin in self._origins or origin == _origin(f"{origin[0]}://{request.hosts[0]}")

    def token_given(self, request: Request) -> bool:
        """Whether the token came as `?token=` or `Authorization: Bearer`; compared in constant time."""
        if self._token is None:
            return True
        try:
            given = parse_qs(request.query, max_num_fields=20).get("token", [])[:1]
        except ValueError:  # more fields than anybody needs
            given = []
        for value in request.authorizations[:1]:
            scheme, _, credentials = value.partition(" ")
            if scheme.lower() == "bearer":
                given.append(credentials.strip())
        matches = [hmac.compare_digest(item.encode("utf-8", "replace"), self._token) for item in given]
        return any(matches)

    def refusal(self, request: Request) -> str | None:
        """Why a websocket is refused, in words that fit a close frame; None: it is welcome."""
        if not self.host_allowed(request):
            return "Host not allowed"
        if not self.origin_allowed(request):
            return "Origin not allowed"
        if not self.token_given(request):
            return "token missing or wrong"
        return None


class Allowance:
    """A token bucket: `burst` at once, `per_second` in the long run. `now` gives seconds that never go back."""

    def __init__(self, burst: float, per_second: float, now: Callable[[], float]) -> None:
        self._burst, self._per_second, self._now = burst, per_second, now
        self._left, self._at = burst, now()

    def spend(self) -> bool:
        """Use one up; False when none is left."""
        now = self._now()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(frozen=True, slots=True)
class Page:
    """One answer to a GET. `open`: an asset without anything secret in it, which needs no token."""

    body: bytes
    content_type: str
    open: bool = False


def load_pages() -> dict[str, Page]:
    """Path on the server -> page, from the installed package."""
    folder = files("streamer") / "web"
    named = {path: (name, False) for path, name in _PAGES.items()}
    named |= {f"/static/{name}": (name, True) for name in _ASSETS}
    return {
        path: Page((folder / name).read_bytes(), _TYPES[name[name.rindex(".") :]], is_open)
        for path, (name, is_open) in named.items()
    }


def headers(content_type: str, length: int, host: str) -> dict[str, str]:
    """Headers of every answer. `host` is the request's Host, already found to be ours; it may open websockets to it.

    Nothing may be loaded from elsewhere, nothing inline runs, and the address with its token is told to nobody.
    """
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        f"connect-src 'self' ws://{host} wss://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )
    return {
        "Content-Type": content_type,
        "Content-Length": str(length),
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


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that binds to `host`."""
    name = _bare(host)
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _bare(name: str) -> str:
    return name.strip().strip("[]").rstrip(".").lower()


def _origin(text: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of an origin; None for `null` and everything else that is none."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port or _DEFAULT_PORT.get(parts.scheme)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or port is None:
        return None
    return parts.scheme, _bare(parts.hostname), port
