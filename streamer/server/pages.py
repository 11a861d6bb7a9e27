"""The pages and their files, read once from the package, and the headers they go out with."""

from dataclasses import dataclass
from importlib.resources import files

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_PAGES = {"/": "viewer.html", "/overlay": "overlay.html"}
_SCRIPTS = ("dom.js", "feed.js", "marks.js", "alerts.js", "condition.js", "timeline.js", "viewer.js", "overlay.js")
_ASSETS = (*_SCRIPTS, "viewer.css", "overlay.css", "icon.svg")


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
