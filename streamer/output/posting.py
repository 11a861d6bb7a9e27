"""One HTTP request to an address that may hold a secret: nothing that is raised or logged shows it."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message
from typing import IO


class PostFailedError(Exception):
    """There was no 2xx. `status`: what was answered, None: nothing; `retry_after_s`: what the service asked for.

    The text says why, without the address.
    """

    def __init__(self, why: str, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(why)
        self.status, self.retry_after_s = status, retry_after_s


def send(url: str, body: bytes | None, headers: Mapping[str, str], *, timeout_s: float, wanted: int = 0) -> bytes:
    """POST `body` (None: GET); the first `wanted` bytes of the answer. Raises PostFailedError, also for a redirect."""
    request = urllib.request.Request(url, body, dict(headers), method="GET" if body is None else "POST")
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=timeout_s) as answer:
            return bytes(answer.read(wanted))
    except urllib.error.HTTPError as error:
        error.close()
        raise PostFailedError(f"the server answered {error.code}", error.code, _retry_after(error.headers)) from None
    except urllib.error.URLError as error:
        raise PostFailedError(failure(error.reason)) from None
    except (OSError, http.client.HTTPException) as error:
        raise PostFailedError(failure(error)) from None


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


def failure(reason: object) -> str:
    """The kind of a network failure without the address."""
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return type(reason).__name__
