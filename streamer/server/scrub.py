"""Keeps what lets people in out of the log: tokens and codes in addresses, `Authorization`, cookies,
websocket subprotocols, in which browsers send what they cannot send in `Authorization`.
"""

import logging
import re

_SECRETS = (
    re.compile(r"(?i)([?&;](?:token|code)=)[^&\s#\"'>]+"),
    re.compile(r"(?i)((?:proxy-)?authorization: *)[^\r\n]+"),
    re.compile(r"(?i)((?:set-)?cookie: *)[^\r\n]+"),
    re.compile(r"(?i)(sec-websocket-protocol: *(?:token|bearer) *, *)[^\r\n]+"),
    re.compile(r"(?i)(\bbearer +|['\"]token +)[^\s\"']+"),
)


def scrubbed(text: str) -> str:
    """The text without secrets."""
    for pattern in _SECRETS:
        text = pattern.sub(r"\1…", text)
    return text


class Scrubber(logging.Filter):
    """Scrubs the records of the logger that it is added to, whoever writes them down afterwards."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything through, without secrets."""
        if record.args:  # filled in here, so that a secret is seen beside the word that tells it
            record.msg, record.args = record.getMessage(), None
        record.msg = scrubbed(str(record.msg))
        if record.exc_info and record.exc_info[0] is not None:
            text = logging.Formatter().formatException(record.exc_info)
            record.exc_info, record.exc_text = None, scrubbed(text)
        return True
