"""Captions by HTTP POST, as YouTube and Zoom take them: a counter `seq` in the address, plain text in the body.

YouTube: support.google.com/youtube/answer/6077032. Zoom: support.zoom.us, "Using a third-party closed captioning
service". Both want `seq` to grow by one with each new post and to stay for a retry. What was given up may have arrived
all the same, so its number is used up, unless the service said no each time. The next number is on disk before it is
used: a program that was ended in the middle goes on with a new one.
"""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from streamer.output import posting
from streamer.output.caption_sender import CaptionService, Lines, NotTakenError
from streamer.output.captions import LINE_CELLS
from streamer.settings.deliveries import make_private

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
BAD_REQUEST = 400
REFUSED = frozenset({BAD_REQUEST, 401, 403, 404, 405, 410, 429})  # answers that say that the post did not count
KEPT = 50  # counters of so many addresses are kept
SKEW_S = 30.0  # YouTube takes no times that are more than a minute off


class Counter:
    """The number of the next post to one address, on disk; of the address only a hash is kept."""

    def __init__(self, folder: Path, kind: str, url: str) -> None:
        self._file = folder / f"{kind}-seq.json"
        self._key = hashlib.sha256(url.encode()).hexdigest()[:16]
        self.next = max(1, self._read().get(self._key, 1))
        self._broken = False

    def keep(self, number: int) -> None:
        """Write down what comes next. That it cannot be written is said once; captions go on."""
        self.next = number
        kept = {key: value for key, value in self._read().items() if key != self._key}
        newest = dict([*kept.items(), (self._key, number)][-KEPT:])
        whole = self._file.with_suffix(".new")
        try:
            make_private(self._file.parent)
            descriptor = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(newest, file)
            os.replace(whole, self._file)
        except OSError as error:
            if not self._broken:
                log.warning("%s: cannot be written: %s; a restart would count anew", self._file, error.strerror)
            self._broken = True

    def _read(self) -> dict[str, int]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            return {str(key): int(value) for key, value in found.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}


class PostedCaptions(CaptionService):
    """What both services have in common. `url`: a secret; `folder`: where the counter is kept."""

    cells, at_once = LINE_CELLS, 4
    kind: str

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._counter = Counter(folder, self.kind, url)
        self._number: int | None = None  # of the post that is being tried
        self._tried: Lines = ()
        self._perhaps_taken = False  # a post with this number had no answer, or one that does not say

    def send(self, lines: Lines) -> float:
        """See `CaptionService`."""
        if self._number is None or lines is not self._tried:
            number = self._counter.next
            self._number, self._tried, self._perhaps_taken = number, lines, False
            self._counter.keep(number + 1)
        try:
            answer = posting.send(
                self._address(self._number),
                self.body(lines).encode(),
                {"Content-Type": "text/plain", "User-Agent": "streamer"},
                timeout_s=TIMEOUT_S,
                wanted=200,
            )
        except posting.PostFailedError as error:
            if error.status not in REFUSED:
                self._perhaps_taken = True
            elif not self._perhaps_taken:
                self._counter.keep(self._number)  # it did not count: the next post, of whatever lines, has this number
                self._number = None
            elif error.status == BAD_REQUEST:
                self._number = None  # perhaps because it has this number: no further post gets it
            raise NotTakenError(self.reason(error), error.retry_after_s) from None
        self._number = None
        self.answered(answer)
        return 0.0

    def body(self, lines: Lines) -> str:
        """What is posted."""
        raise NotImplementedError

    def reason(self, error: posting.PostFailedError) -> str:
        """Why it was not taken, for people."""
        return str(error)

    def answered(self, answer: bytes) -> None:
        """What came back with a 2xx."""

    def _address(self, number: int) -> str:
        return with_query(self._url, f"seq={number}")


class YouTubeCaptions(PostedCaptions):
    """YouTube Live: each line with the time at which it was said, which YouTube brings together with the picture."""

    name, kind, late_s = "YouTube", "youtube", 50.0

    def __init__(self, url: str, folder: Path, wall: Callable[[], float] = time.time) -> None:
        super().__init__(url, folder)
        self._wall, self._skewed = wall, False

    def body(self, lines: Lines) -> str:
        """A line with the time in UTC, without a zone, and a line with the text, for each."""
        return "".join(f"{_stamp(line.said_at)}\n{line.text}\n" for line in lines)

    def answered(self, answer: bytes) -> None:
        """YouTube answers with its own time: where ours is far off, it shows nothing of what we send."""
        with suppress(ValueError):
            theirs = datetime.fromisoformat(answer.decode("ascii", "replace").strip()[:23]).replace(tzinfo=UTC)
            skew_s = self._wall() - theirs.timestamp()
            if abs(skew_s) >= SKEW_S and not self._skewed:
                self._skewed = True
                log.warning("YouTube: this machine's clock is %+.0f s off; captions need the right time", skew_s)


class ZoomCaptions(PostedCaptions):
    """A Zoom meeting or webinar. `lang`: what it takes the captions for."""

    name, kind, late_s = "Zoom", "zoom", 20.0

    def __init__(self, url: str, folder: Path, lang: str) -> None:
        super().__init__(url, folder)
        self._lang, self._asked = lang, False

    def send(self, lines: Lines) -> float:
        """Before the first post Zoom is asked how many it has: another program may have sent some."""
        if not self._asked:
            path, mark, query = self._url.partition("?")
            try:
                answer = posting.send(f"{path}/seq{mark}{query}", None, {}, timeout_s=TIMEOUT_S, wanted=20)
                self._counter.next = max(self._counter.next, int(answer) + 1)
            except posting.PostFailedError as error:
                if error.status is None:
                    raise NotTakenError(str(error)) from None
            except ValueError:
                log.debug("Zoom: the answer to how many captions it has is no number")
            self._asked = True
        return super().send(lines)

    def body(self, lines: Lines) -> str:
        """The text alone, each line ended."""
        return "".join(f"{line.text}\n" for line in lines)

    def reason(self, error: posting.PostFailedError) -> str:
        """Zoom has a word for a meeting that has not begun."""
        return "the meeting has not started" if error.status == 400 else str(error)

    def _address(self, number: int) -> str:
        return with_query(self._url, f"seq={number}&lang={self._lang}")


def with_query(url: str, fields: str) -> str:
    """The address with these fields instead of those of the same name; the rest, which is signed, stays as it is."""
    for field in fields.split("&"):
        url = re.sub(rf"(?<=[?&]){field.partition('=')[0]}=[^&]*&?", "", url)
    url = url.rstrip("?&")
    return f"{url}{'&' if '?' in url else '?'}{fields}"


def _stamp(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
