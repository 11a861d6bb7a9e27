"""Where the server listens and who may use it (hosts, origins, tokens), and how much one client may say.

Any web page can open `ws://localhost` (so the Origin is checked) or point a name of its own at 127.0.0.1 (DNS
rebinding, so the Host is checked); on other interfaces than loopback a token is demanded.
"""

import errno
import hmac
import ipaddress
import re
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import parse_qs, urlsplit

from streamer.errors import ConfigError
from streamer.server.keys import Keys

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_WILDCARDS = frozenset({"", "0.0.0.0", "::"})
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")  # RFC 9110, without what nobody uses
_DEFAULT_PORT = {"http": 80, "ws": 80, "https": 443, "wss": 443}


@dataclass(frozen=True, slots=True)
class Request:
    """The parts of a request's head that decide: every Host, Origin, Authorization and Cookie value, the query string.

    `address`: who asks, as `asker` says; `local`: a program of this machine does, and nobody behind it.
    """

    hosts: Sequence[str]
    origins: Sequence[str]
    authorizations: Sequence[str]
    query: str
    cookies: Sequence[str] = ()
    address: str = ""
    local: bool = False

    def asked_for(self, name: str) -> str | None:
        """The first value of a field of the query."""
        try:
            return parse_qs(self.query, max_num_fields=20).get(name, [None])[0]
        except ValueError:  # more fields than anybody needs
            return None

    def cookie(self, name: str) -> str | None:
        """The value of a cookie."""
        for pair in ";".join(self.cookies).split(";"):
            key, _, value = pair.strip().partition("=")
            if key == name:
                return value
        return None


class Credentials(Enum):
    """What a request brings to be let in. NONE_NEEDED: this server has no token. COOKIE, TOKEN: one that is right."""

    NONE_NEEDED = auto()
    MISSING = auto()
    WRONG = auto()
    COOKIE = auto()
    TOKEN = auto()


class Access:
    """The rules of one server.

    `host` is what it binds to; `names` are further host names it is known by (behind a proxy, in the local network);
    `origins` are web origins (`https://example.org`) besides its own that may connect.
    """

    def __init__(
        self,
        host: str,
        token: str | None = None,
        names: Sequence[str] = (),
        origins: Sequence[str] = (),
        now: Callable[[], float] = time.time,
    ) -> None:
        if not is_loopback(host) and token is None:
            shown = host or "(all interfaces)"
            raise ConfigError(
                f"--token: --host {shown} can be reached from the network and needs a token; give --token-file, "
                f"STREAMER_TOKEN or --token"
            )
        self.keys = None if token is None else Keys(token, now)
        self.cookie_name = "streamer"  # with the port, once it is known: browsers keep one jar for all ports of a host
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
        return name in self._names or (self._any_address and is_address(name))

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

    def credentials(self, request: Request) -> Credentials:
        """What came: `?token=` or `Authorization: Bearer`, compared in constant time, or a cookie that we gave.

        `Authorization: Token` is Deepgram's word for the same.
        """
        if self._token is None or self.keys is None:
            return Credentials.NONE_NEEDED
        if self.keys.opens(request.cookie(self.cookie_name) or ""):
            return Credentials.COOKIE
        query = request.asked_for("token")
        given = [] if query is None else [query]
        for value in request.authorizations[:1]:
            scheme, _, credentials = value.partition(" ")
            if scheme.lower() in ("bearer", "token"):
                given.append(credentials.strip())
        if not given:
            return Credentials.MISSING
        matches = [hmac.compare_digest(item.encode("utf-8", "replace"), self._token) for item in given]
        return Credentials.TOKEN if any(matches) else Credentials.WRONG

    def token_given(self, request: Request) -> bool:
        """Whether the request may come in."""
        return self.credentials(request) not in (Credentials.MISSING, Credentials.WRONG)

    def wants_cookie(self, request: Request) -> bool:
        """Whether a page goes out with a cookie: it was asked for with the token, or with a cookie that grows old."""
        if self.keys is None:
            return False
        if self.credentials(request) is Credentials.COOKIE:
            return self.keys.wants_renewal(request.cookie(self.cookie_name) or "")
        return request.asked_for("token") is not None

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

    def wait_s(self) -> float:
        """Seconds until there is one to spend; 0: now."""
        left = min(self._burst, self._left + (self._now() - self._at) * self._per_second)
        return max(0.0, (1 - left) / self._per_second)


def asker(peer: str, forwarded: Sequence[str], proxies: frozenset[str]) -> tuple[str, bool]:
    """The address of who asks, and whether that is a program of this machine.

    `forwarded`: the `X-Forwarded-For` values. They are believed as far as `proxies`, addresses of ours, wrote them:
    each appends who asked it. Anybody can send the header: from others it only tells that somebody may stand behind
    `peer`.
    """
    hops = [hop.strip() for value in forwarded for hop in value.split(",")]
    address = peer
    while hops and address in proxies and is_address(_bare(hops[-1])):
        address = _bare(hops.pop())
    return address, is_loopback(address) and not hops


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that binds to `host`."""
    name = _bare(host)
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def cannot_listen(host: str, port: int, exc: OSError) -> ConfigError:
    """The one line that says why the address cannot be listened on."""
    if isinstance(exc, socket.gaierror) or exc.errno == errno.EADDRNOTAVAIL:
        return ConfigError(f"--host: {host!r} is no address of this machine; try 127.0.0.1")
    if exc.errno == errno.EADDRINUSE:
        return ConfigError(f"--port: {port} is in use by another program; choose another one, or --no-server")
    if exc.errno == errno.EACCES:
        return ConfigError(f"--port: {port} needs more rights; choose one above 1023")
    return ConfigError(f"--port: cannot listen on {host}:{port}: {exc.strerror or exc}")


def is_address(name: str) -> bool:
    """Whether it is an IP address."""
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
