"""What `streamer run` says when its server listens: where its pages are, for this machine and for a phone.

The links hold codes that let in one browser each and only for a while, never the token: they may stand in a log. The
QR code is for a terminal that somebody looks at.
"""

import logging
from collections.abc import Collection
from urllib.parse import urlencode

from streamer.output.qr_code import below
from streamer.runtime.inputs import SENDER
from streamer.server.pages import CERTIFICATE, PHONE_PAGE
from streamer.server.websocket import ServerThread
from streamer.settings.config import Settings

log = logging.getLogger(__name__)


def announce(server: ServerThread, settings: Settings, senders: Collection[str], after: str) -> None:
    """Say where the pages are. `senders`: names that they may give; `after`: how long people waited, for people."""
    pages = f"{server.link()}   overlay: {server.link('/overlay')}"
    once = "" if settings.server.token is None else "   (each link lets in one browser, within 15 min)"
    log.warning("captions and sounds: %s%s%s", pages, after, once)
    if server.wyoming_port:
        log.warning("Wyoming: tcp://%s:%s", settings.server.wyoming_host, server.wyoming_port)
    hears_phones = bool(senders) or settings.audio.input == SENDER
    if server.outside_url:
        _for_phones(server, senders, hears_phones=hears_phones)
    elif hears_phones:
        link = server.link(PHONE_PAGE)
        log.warning("a browser here as the microphone: %s   (phones: --host 0.0.0.0 --tls self-signed)", link)


def _for_phones(server: ServerThread, senders: Collection[str], *, hears_phones: bool) -> None:
    """The address that a phone in the same network opens, as a link and as a code for its camera."""
    if server.tls and server.tls.certificate:
        log.warning("the phone's browser will warn of this certificate, SHA-256 %s", server.tls.fingerprint)
        if server.tls.name_fingerprint != server.tls.fingerprint:
            log.warning("where it opens the computer's name, of this one, SHA-256 %s", server.tls.name_fingerprint)
        log.warning("iPhones must install it first: %s%s", server.outside_url, CERTIFICATE)
    if hears_phones and server.tls:
        paths = [f"{PHONE_PAGE}?{urlencode({'source': name})}" for name in senders] or [PHONE_PAGE]
        what = "a phone as the microphone"
    else:
        paths, what = ["/"], "captions on a phone"
        if hears_phones:
            log.warning("browsers lend a microphone to https pages only: for phones that send, add --tls self-signed")
    links = [server.link(path, outside=True) for path in paths]
    for link in links:
        log.warning("%s: %s%s", what, link, below(link) if link == links[0] else "")
