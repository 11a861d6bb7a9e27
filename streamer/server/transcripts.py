"""What was said in a session, whole, for who saves it: plain text, SubRip, WebVTT and JSON lines.

Pure. Each format is written while the events come, by the layouts that the program's own files have: to give it out is
to join what is there, and the text of an open segment is added for that alone. Bounded in bytes; the oldest goes, and
what is given out says so where it begins.
"""

import copy
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from streamer.events import Alert, Event, Gap, Sound, Status, Transcript
from streamer.output.captions import Cue, Format, Layout, layout_of, srt_cue
from streamer.server import messages

MAX_BYTES = 16 * 2**20  # of each format: as JSON lines some 18 hours of unbroken talk, as text months
FORMATS: Mapping[str, Format] = {"txt": "text", "srt": "srt", "vtt": "vtt", "jsonl": "jsonl"}  # as they are asked for
TYPES: Mapping[str, str] = {
    "txt": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "jsonl": "application/x-ndjson; charset=utf-8",
}
_LOST = "the beginning is no longer kept"


@dataclass(slots=True)
class _Written:
    """One format as far as it is written. `kept_bytes` of `pieces`; `lost`: some were there before them."""

    layout: Layout
    pieces: deque[str] = field(default_factory=deque)
    kept_bytes: int = 0
    lost: bool = False

    def add(self, piece: str, max_bytes: int) -> None:
        """Append what is settled; the oldest pieces go where there is no more room."""
        if not piece:
            return
        self.pieces.append(piece)
        self.kept_bytes += _size(piece)
        while self.kept_bytes > max_bytes and len(self.pieces) > 1:
            self.kept_bytes -= _size(self.pieces.popleft())
            self.lost = True


class Kept:
    """The transcript of one session, in all formats."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._written = {name: _Written(layout_of(kind)) for name, kind in FORMATS.items()}
        self._open: Transcript | None = None  # the newest of the segment that is not final

    def step(self, event: Event) -> None:
        """Take one event in."""
        if isinstance(event, Transcript):
            self._open = None if event.final else event
        for name, written in self._written.items():
            if name != "jsonl" or _settled(event):
                written.add(written.layout.step(event), self._max_bytes)

    def text(self, name: str) -> str:
        """The whole transcript in one of `FORMATS`, as of now: an open segment with what is committed of it."""
        return "".join(self.pieces(name))

    def pieces(self, name: str) -> list[str]:
        """The same in pieces, which take little time to collect: joining and packing them is for others to do."""
        written = self._written[name]
        tail = ""
        if name != "jsonl":
            layout = copy.deepcopy(written.layout)
            tail = layout.step(replace(self._open, partial="", final=True)) if self._open else ""
            tail += layout.finish()
        elif self._open:
            tail = written.layout.step(self._open)
        lost = self._beginning(name) if written.lost else ""
        return [written.layout.header, lost, *written.pieces, tail]

    def _beginning(self, name: str) -> str:
        """What stands for what went, in the words of the format."""
        match name:
            case "srt":
                return srt_cue(Cue(0, 1, (f"[{_LOST}]",)), 0)
            case "vtt":
                return f"NOTE {_LOST}\n\n"
            case "jsonl":
                session, first = _first(self._written[name].pieces[0])
                return messages.encode(messages.events_gap(session, 1, first - 1, _LOST)) + "\n"
        return f"[{_LOST}]\n"


def _settled(event: Event) -> bool:
    """Whether the event stands among the JSON lines: not what was superseded, and no tags, of which there are many."""
    match event:
        case Transcript():
            return event.final
        case Alert():
            return event.state != "updated"
    return isinstance(event, Sound | Gap | Status)


def _first(line: str) -> tuple[str, int]:
    """Session and number of an event that was written as a line."""
    event = json.loads(line)
    return str(event["session"]), int(event["seq"])


def _size(piece: str) -> int:
    return len(piece.encode("utf-8", "replace"))
