"""How a browser gets in without the token in an address: a link that works once, and the cookie it is exchanged for.

    code (random, in a printed link; `CODE_S`, once) ──► cookie (`expiry.proof`; `COOKIE_S`) ──► a newer one, each day

The proof is an HMAC of the expiry under a key that comes from the token: nothing has to be remembered, cookies outlive
a restart, and whoever changes the token takes all of them back. A code does not follow from the token; the few that
were made are remembered. Pure: `now` gives Unix time. Any thread may make codes; one uses them.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from enum import Enum, auto

CODE_S = 900.0
COOKIE_S = 30 * 86_400
RENEWED_S = 86_400  # a cookie older than that is exchanged when it is used: a tablet on the wall stays in for years
MAX_CODES = 64  # that are remembered: the oldest goes


class Code(Enum):
    """GOOD: it has just been used up; SPENT: it was one of ours and is used or too old; UNKNOWN: it never was."""

    GOOD = auto()
    SPENT = auto()
    UNKNOWN = auto()


class Keys:
    """The codes and cookies of one server with a token."""

    def __init__(self, token: str, now: Callable[[], float]) -> None:
        self._key = hmac.digest(token.encode(), b"streamer cookie 1", hashlib.sha256)
        self._now = now
        self._codes: dict[str, float] = {}  # -> until when; 0: used

    def new_code(self) -> str:
        """A code for a link."""
        code = secrets.token_urlsafe(12)
        self._codes[code] = self._now() + CODE_S
        if len(self._codes) > MAX_CODES:
            del self._codes[next(iter(self._codes))]
        return code

    def use(self, code: str) -> Code:
        """Use a code up."""
        until = self._codes.get(code)
        if until is None:
            return Code.UNKNOWN
        if until <= self._now():
            return Code.SPENT
        self._codes[code] = 0.0
        return Code.GOOD

    def cookie(self) -> str:
        """A cookie's value, good for `COOKIE_S`."""
        expiry = str(int(self._now() + COOKIE_S))
        return f"{expiry}.{self._proof(expiry)}"

    def opens(self, cookie: str) -> bool:
        """Whether a cookie's value is one of ours and still good."""
        expiry, _, proof = cookie.partition(".")
        if not (expiry.isascii() and expiry.isdigit() and len(expiry) <= 12 and proof.isascii()):
            return False
        return hmac.compare_digest(proof, self._proof(expiry)) and int(expiry) > self._now()

    def wants_renewal(self, cookie: str) -> bool:
        """Whether a cookie that opens is old enough for a new one."""
        return int(cookie.partition(".")[0]) < self._now() + COOKIE_S - RENEWED_S

    def _proof(self, expiry: str) -> str:
        return hmac.digest(self._key, expiry.encode(), hashlib.sha256).hex()
