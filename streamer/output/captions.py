"""From events to what stands in a file: JSON lines, plain text, SubRip (SRT) and WebVTT (W3C recommendation of 2019).

Pure: no files, no clock; the time is the events' own. Each layout gives out whole lines and whole cues, and only when
nothing in them can change any more, so that a file to which they are appended is valid at every moment.

A cue is given out once, whole, in order of time, and never overlaps another: at most 2 lines of 42 columns, broken
where the speaker pauses or a sentence ends, at least 1 s on screen (it may come up to `MAX_LATE_MS` late for that when
people speak in many short pieces). Sounds, and what was said and could not be written down, have cues of their own, in
brackets.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from rich.cells import cell_len

from streamer.events import UNCLEAR, Event, Sound, Span, Transcript, Word
from streamer.output.plain_text import clean

LINE_CELLS = 42
MAX_LINES = 2
MIN_MS = 1_000
MAX_MS = 7_000
SOUND_MS = 1_500
PAUSE_MS = 1_500  # a pause between words that ends a cue
SENTENCE_MS = 2_000  # a cue of at least this length ends with its sentence
MAX_LATE_MS = 2_500
HURRIED_MS = 500  # how short a cue may be that would otherwise come later than that
SPLIT_MS = 1_500  # a cue that is at least this long ends for a sound; a shorter one is not torn apart
SETTLE_MS = 3_000  # a sound's cue waits this long for words that were spoken before it
MAX_SETTLE_MS = 8_000  # and this long while such words are known to be decoded, but not committed yet
_SENTENCE_ENDS = (".", "!", "?", "。", "！", "？", "…")


Format = Literal["text", "srt", "vtt", "jsonl"]


@dataclass(frozen=True, slots=True, order=True)
class Cue:
    """One caption: `start_ms` < `end_ms` on the capture clock; one or two non-empty lines of plain text.

    `aside`: in brackets; words go before it.
    """

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]
    aside: bool = False


@dataclass(frozen=True, slots=True)
class _Piece:
    """A word with the space that stands before it in the text."""

    text: str
    start_ms: int
    end_ms: int


class CueMaker:
    """`step(event)` returns the cues that became final with it, `finish()` the rest.

    `cells`: columns of a line; `lines`: of a cue.
    """

    def __init__(self, cells: int = LINE_CELLS, lines: int = MAX_LINES) -> None:
        self._cells, self._lines = cells, lines
        self._segment: int | None = None
        self._used = 0  # words of the open segment that were taken in
        self._searched = 0  # position in its text behind the last of them
        self._open: list[_Piece] = []
        self._waiting: list[Cue] = []  # a heap by start: closed, but not given out yet
        self._now_ms = 0
        self._spoken_ms = -1  # start of the newest word
        self._partial_ms: int | None = None  # start of the open segment while it has uncommitted words
        self._last_end_ms = 0

    def step(self, event: Event) -> list[Cue]:
        """Take one event in."""
        if isinstance(event, Transcript):
            self._take(event)
        elif isinstance(event, Sound) and event.state == "start" and clean(event.label):
            self._hear(clean(event.label), max(0, round(event.start * 1000)))
        self._now_ms = max(self._now_ms, round(event.audio_t * 1000))
        return list(self._ready(final=False))

    def finish(self) -> list[Cue]:
        """Everything that is left, at the end of the session."""
        self._close_cue()
        return list(self._ready(final=True))

    def _take(self, event: Transcript) -> None:
        if event.segment != self._segment:
            self._close_cue()
            self._segment, self._used, self._searched = event.segment, 0, 0
        words = event.words
        if event.final and not words and event.text:
            words = (Word(event.text, event.start, event.end, 0.0),)
        for word in words[self._used :]:
            self._add(self._piece(word, event.text))
        self._used = max(self._used, len(words))
        self._partial_ms = round(event.start * 1000) if event.partial and not event.final else None
        if event.final:
            self._close_cue()
            self._mark(event.unclear)

    def _mark(self, unclear: Sequence[Span]) -> None:
        """Cues for what was not written down; what lies before cues that are out already comes behind them, once."""
        marks: list[Cue] = []
        for span in unclear:
            start = max(round(span.start * 1000), self._last_end_ms)
            end = max(round(span.end * 1000), start + 1)
            if marks and start <= marks[-1].end_ms:
                marks[-1] = replace(marks[-1], end_ms=max(end, marks[-1].end_ms))
            else:
                marks.append(Cue(start, end, (UNCLEAR,), aside=True))
        for mark in marks:
            heapq.heappush(self._waiting, mark)

    def _hear(self, label: str, start_ms: int) -> None:
        """A cue for a sound; the open cue is made again, since it may end for it."""
        lines = _lines(f"[{label}]", self._cells)[: self._lines]
        heapq.heappush(self._waiting, Cue(start_ms, start_ms + SOUND_MS, lines, aside=True))
        pieces, self._open = self._open, []
        for piece in pieces:
            self._add(piece)

    def _piece(self, word: Word, text: str) -> _Piece:
        """The word with the space before it: languages that write without spaces keep doing so."""
        found, space = text.find(word.word, self._searched), " "
        if found >= 0:
            space = "" if found == self._searched and found > 0 else " "
            self._searched = found + len(word.word)
        start = max(0, round(word.start * 1000))
        return _Piece(space + clean(word.word), start, max(start, round(word.end * 1000)))

    def _add(self, piece: _Piece) -> None:
        if not piece.text.strip():
            return
        if self._open:
            start, last = self._open[0].start_ms, self._open[-1]
            text = _joined([*self._open, piece])
            if (
                len(_lines(text, self._cells)) > self._lines
                or piece.start_ms - last.end_ms >= PAUSE_MS
                or piece.end_ms - start > MAX_MS
                or (piece.start_ms - start >= SPLIT_MS and self._interrupted(start, piece.start_ms))
                or (last.text.endswith(_SENTENCE_ENDS) and last.end_ms - start >= SENTENCE_MS)
            ):
                self._close_cue()
        self._open.append(piece)
        self._spoken_ms = max(self._spoken_ms, piece.start_ms)

    def _interrupted(self, start_ms: int, end_ms: int) -> bool:
        return any(cue.aside and start_ms < cue.start_ms <= end_ms for cue in self._waiting)

    def _close_cue(self) -> None:
        """Close the open cue; text too long for one (a single endless word) becomes several."""
        if not self._open:
            return
        start, end = self._open[0].start_ms, max(piece.end_ms for piece in self._open)
        lines = _lines(_joined(self._open), self._cells)
        self._open = []
        pages = [lines[index : index + self._lines] for index in range(0, len(lines), self._lines)]
        for number, page in enumerate(pages):
            first = start + (end - start) * number // len(pages)
            last = start + (end - start) * (number + 1) // len(pages)
            heapq.heappush(self._waiting, Cue(first, last, page))

    def _ready(self, final: bool) -> Iterator[Cue]:
        while self._waiting and (final or self._may_go(self._waiting[0])):
            cue = heapq.heappop(self._waiting)
            start = max(cue.start_ms, self._last_end_ms)
            shortest = MIN_MS if start - cue.start_ms <= MAX_LATE_MS else HURRIED_MS
            end = cue.end_ms
            if cue.aside:
                end = min([end, *(waiting.start_ms for waiting in self._waiting[:1]), *self._coming()])
            self._last_end_ms = end = max(end, start + shortest)
            yield replace(cue, start_ms=start, end_ms=end)

    def _may_go(self, cue: Cue) -> bool:
        """Whether nothing that belongs before it is to be expected any more."""
        if not cue.aside:
            return True
        if self._open and self._open[0].start_ms <= cue.start_ms:
            return False
        behind = self._partial_ms is not None and self._partial_ms <= cue.start_ms
        patience_ms = MAX_SETTLE_MS if behind else SETTLE_MS
        return self._spoken_ms >= cue.start_ms or self._now_ms >= cue.start_ms + patience_ms

    def _coming(self) -> Iterator[int]:
        """Where speech that is not in a cue yet begins."""
        if self._open:
            yield self._open[0].start_ms
        elif self._partial_ms is not None:
            yield max(self._partial_ms, self._spoken_ms)


def _joined(pieces: Sequence[_Piece]) -> str:
    return "".join(piece.text for piece in pieces).strip()


def fill(text: str, width: int) -> tuple[str, ...]:
    """Lines of at most so many columns, broken between words; a longer word is cut."""
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for char in word:
            if cell_len(lines[-1] + char) > width:
                lines.append("")
            lines[-1] += char
    return tuple(line for line in lines if line)


def _lines(text: str, cells: int) -> tuple[str, ...]:
    """The text as `fill` breaks it, but where that makes two lines they are about equally long."""
    lines = fill(text, cells)
    if len(lines) == 2:
        for width in range((cell_len(text) + 1) // 2, cells):
            balanced = fill(text, width)
            if len(balanced) == 2 and all(cell_len(line) <= cells for line in balanced):
                return balanced
    return lines


class Layout(Protocol):
    """How one file is written."""

    header: str

    def step(self, event: Event) -> str:
        """What can be appended once this event is there."""

    def finish(self) -> str:
        """What is left, at the end of the session."""


def layout_of(kind: Format) -> Layout:
    """A fresh layout for one file."""
    match kind:
        case "jsonl":
            return JsonLines()
        case "text":
            return PlainLines()
        case "srt":
            return Subtitles("", srt_cue)
        case "vtt":
            return Subtitles("WEBVTT\n\n", vtt_cue)


class JsonLines:
    """Every event as one line of JSON."""

    header = ""

    def step(self, event: Event) -> str:
        """The event's line."""
        return event.to_json() + "\n"

    def finish(self) -> str:
        """Nothing waits."""
        return ""


class PlainLines:
    """A line for each segment, and one in brackets for each sound; those decided at one time in order of start.

    `stamp`: what stands before a line that begins at so many seconds.
    """

    header = ""

    def __init__(self, stamp: Callable[[float], str] = lambda start: "") -> None:
        self._stamp = stamp
        self._lines: list[tuple[float, int, str]] = []
        self._decided = 0.0

    def step(self, event: Event) -> str:
        """The lines of what was decided before this event."""
        settled = ""
        if event.audio_t != self._decided:
            settled, self._decided = self.finish(), event.audio_t
        if isinstance(event, Transcript) and event.final:
            if event.text:
                self._lines.append((event.start, event.seq, clean(event.text)))
            self._lines += [(span.start, event.seq, UNCLEAR) for span in event.unclear]
        elif isinstance(event, Sound) and event.state == "start":
            self._lines.append((event.start, event.seq, f"[{clean(event.label)}]"))
        return settled

    def finish(self) -> str:
        """The lines that are left."""
        lines, self._lines = self._lines, []
        return "".join(f"{self._stamp(start)}{line}\n" for start, _, line in sorted(lines))


class Subtitles:
    """Captions as cues. `block`: the text of a cue and its number, counted from 1."""

    def __init__(self, header: str, block: Callable[[Cue, int], str]) -> None:
        self.header = header
        self._block = block
        self._cues = CueMaker()
        self._count = 0

    def step(self, event: Event) -> str:
        """The cues that became final with this event."""
        return self._blocks(self._cues.step(event))

    def finish(self) -> str:
        """The last cues."""
        return self._blocks(self._cues.finish())

    def _blocks(self, cues: Sequence[Cue]) -> str:
        first, self._count = self._count + 1, self._count + len(cues)
        return "".join(self._block(cue, number) for number, cue in enumerate(cues, first))


def srt_cue(cue: Cue, number: int) -> str:
    """One SubRip block; an arrow in the text would be taken for a time line."""
    text = "\n".join(line.replace("-->", "→") for line in cue.lines)
    return f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n{text}\n\n"


def vtt_cue(cue: Cue, number: int) -> str:
    """One WebVTT block, its text escaped; it needs no number."""
    text = "\n".join(line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for line in cue.lines)
    return f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n{text}\n\n"


def _clock(ms: int, point: str) -> str:
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{point}{ms % 1000:03d}"
