import logging

import pytest

from streamer.server.scrub import Scrubber, scrubbed

SECRET = "s3cret-token"


@pytest.mark.parametrize(
    "line",
    [
        f"< GET /ws?token={SECRET}&types=alert HTTP/1.1",
        f"< GET /?lines=2&code={SECRET} HTTP/1.1",
        f"< Authorization: Bearer {SECRET}",
        f"< authorization: Basic {SECRET}",
        f"< Cookie: a=b; streamer-8765={SECRET}",
        f"> Set-Cookie: streamer-8765={SECRET}; HttpOnly",
        f"refused {{'Authorization': 'Bearer {SECRET}'}}",
        f"< Authorization: Token {SECRET}",
        f"< Sec-WebSocket-Protocol: token, {SECRET}",
        f"refused {{'Authorization': 'Token {SECRET}'}}",
        f"< Referer: http://localhost:8765/?token={SECRET}",
    ],
)
def test_secrets_go_and_the_rest_stays(line):
    assert SECRET not in scrubbed(line)
    assert scrubbed(line).split(" ")[0] == line.split(" ")[0]


def test_what_holds_none_stays_as_it_is():
    for line in ("< GET /ws?types=alert&since_seq=3 HTTP/1.1", "tokens: 12", "code 1008"):
        assert scrubbed(line) == line


def test_arguments_and_tracebacks_are_scrubbed_too(caplog):
    logger = logging.getLogger("streamer.test_scrub")
    logger.addFilter(Scrubber())
    with caplog.at_level(logging.DEBUG, "streamer.test_scrub"):
        logger.debug("< %s: %s", "Authorization", f"Bearer {SECRET}")
        logger.debug("%% sent %d bytes", 12)
        try:
            raise ValueError(f"/ws?token={SECRET}")
        except ValueError:
            logger.exception("failed")
    assert SECRET not in caplog.text
    assert "% sent 12 bytes" in caplog.text
    assert "ValueError: /ws?token=…" in caplog.text
