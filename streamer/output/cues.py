"""From events to caption cues: which words stand together, on which lines, from when to when.

Pure: no files, no clock; the time is the events' own. A cue is given out once, whole, in order of time, and never
overlaps another: at most 2 lines of 42 columns, broken where the speaker pauses or a sentence ends, at least 1 s on
screen (it may come up to `MAX_LATE_MS` late for that when people speak in many short pieces). Sounds, and what was said
and could not be written down, have cues of their own, in brackets.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from streamer.events import UNCLEAR, Event, Sound, Span, Transcript, Word
from streamer.output.plain_text import cells, clean

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
    """`step(event)` returns the cues that became final with it, `finish()` the rest."""

    def __init__(self) -> None:
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
        heapq.heappush(self._waiting, Cue(start_ms, start_ms + SOUND_MS, _lines(f"[{label}]")[:MAX_LINES], True))
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
                len(_lines(text)) > MAX_LINES
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
        lines = _lines(_joined(self._open))
        self._open = []
        pages = [lines[index : index + MAX_LINES] for index in range(0, len(lines), MAX_LINES)]
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


def _lines(text: str) -> tuple[str, ...]:
    """Lines of at most 42 columns; two are made about equally long. Words longer than a line are cut."""
    lines = _fill(text, LINE_CELLS)
    if len(lines) == 2:
        for width in range((cells(text) + 1) // 2, LINE_CELLS):
            balanced = _fill(text, width)
            if len(balanced) == 2 and all(cells(line) <= LINE_CELLS for line in balanced):
                return balanced
    return lines


def _fill(text: str, width: int) -> tuple[str, ...]:
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if cells(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for char in word:
            if cells(lines[-1] + char) > width:
                lines.append("")
            lines[-1] += char
    return tuple(line for line in lines if line)
