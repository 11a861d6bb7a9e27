"""Webhooks: each alert as one POST of signed JSON. The delivery keeps it on disk and tries again until it is taken.

The body is the event, byte for byte as in `--jsonl`. Headers:

    Idempotency-Key        session:alert id:state; the same however often it is sent
    X-Streamer-Made-At     Unix time at which it was made (it may come late)
    X-Streamer-Timestamp   Unix time of this attempt
    X-Streamer-Signature   v1=HEX, HMAC-SHA256 (RFC 2104) of `timestamp + "." + body`; only with a secret

A receiver computes the same over the exact bytes, compares in constant time and refuses old timestamps.
"""

import hashlib
import hmac
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from typing import IO

from streamer.alerts.delivery import NotDeliveredError, RefusedError, Target
from streamer.alerts.parcels import Parcel

# The receiver understood and does not want exactly this; everything else may pass (a restart, a wrong token, …).
REFUSED = (400, 409, 413, 415, 422)


def signature(secret: bytes, timestamp: int, body: bytes) -> str:
    """The value of X-Streamer-Signature."""
    return "v1=" + hmac.new(secret, b"%d." % timestamp + body, hashlib.sha256).hexdigest()


class Webhook(Target):
    """One address. `url` and `secret` (None: not signed) are secrets; `wall`: Unix time."""

    def __init__(
        self, name: str, url: str, secret: str | None, *, timeout_s: float, wall: Callable[[], float] = time.time
    ) -> None:
        self.name = f"webhook {name}"
        self._url, self._secret = url, None if secret is None else secret.encode()
        self._timeout_s, self._wall = timeout_s, wall
        self._opener = urllib.request.build_opener(_NoRedirects)

    def send(self, parcel: Parcel) -> None:
        """One attempt. Raises NotDeliveredError, RefusedError; neither shows the address."""
        request = urllib.request.Request(self._url, self._body(parcel), self._headers(parcel), method="POST")
        try:
            self._opener.open(request, timeout=self._timeout_s).close()
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in REFUSED:
                raise RefusedError(f"the server answered {error.code}") from None
            raise NotDeliveredError(f"the server answered {error.code}", _retry_after(error.headers)) from None
        except urllib.error.URLError as error:
            raise NotDeliveredError(_why(error.reason)) from None
        except (OSError, http.client.HTTPException) as error:
            raise NotDeliveredError(_why(error)) from None

    def _body(self, parcel: Parcel) -> bytes:
        return parcel.alert.to_json().encode()

    def _headers(self, parcel: Parcel) -> dict[str, str]:
        timestamp = int(self._wall())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "streamer",
            "Idempotency-Key": parcel.key,
            "X-Streamer-Made-At": f"{parcel.made_at:.3f}",
            "X-Streamer-Timestamp": str(timestamp),
        }
        if self._secret is not None:
            headers["X-Streamer-Signature"] = signature(self._secret, timestamp, self._body(parcel))
        return headers


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would send what people said to an address that nobody configured."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


def _retry_after(headers: Message) -> float | None:
    """Seconds of Retry-After (RFC 9110, 10.2.3), where it is a number."""
    value = headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() and len(value) < 10 else None


def _why(reason: object) -> str:
    """The kind of a network failure without the address."""
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return type(reason).__name__
