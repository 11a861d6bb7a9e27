"""The last events of one session, for who reads them at a pace of its own or comes back for what it missed.

Pure, bounded in number and bytes.
"""

from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter

from streamer.events import SESSION_EVENTS, Event, Transcript

_SHRINK_TO = 0.75  # of a bound: shrinking is rare and then worth its while
_SEQ = attrgetter("seq")


@dataclass(frozen=True, slots=True)
class Entry:
    """One event, serialised once. `segment` None: not a transcript. `size`: bytes on the wire."""

    seq: int
    type: str
    segment: int | None
    text: str
    size: int

    @classmethod
    def of(cls, event: Event) -> "Entry":
        """The entry of an event; lone surrogates, which no wire carries, become question marks."""
        return cls.of_text(event, event.to_json())

    @classmethod
    def of_text(cls, event: Event, text: str) -> "Entry":
        """The same of an event that was serialised before."""
        encoded = text.encode("utf-8", "replace")
        segment = event.segment if isinstance(event, Transcript) else None
        return cls(event.seq, event.type, segment, encoded.decode(), len(encoded))


class Replay:
    """The last events of one session, at most `max_events` and `max_bytes` (the newest one always stays).

    What went and was not superseded is remembered, so that readers who had not come so far can be told.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self._max_events, self._max_bytes = max_events, max_bytes
        self._entries: list[Entry] = []
        self._bytes = 0
        self._first_seq = 1
        self._last_seq = 0
        self._newest_of: dict[int, int] = {}  # segment -> seq of its newest transcript
        self._lost_of: dict[str, int] = {}  # type -> seq of the newest one that is gone

    @property
    def last_seq(self) -> int:
        """The newest event's number; 0 before the first."""
        return self._last_seq

    @property
    def oldest_seq(self) -> int:
        """The oldest number still here; one more than `last_seq` when there is none."""
        return self._entries[0].seq if self._entries else self._last_seq + 1

    def append(self, entry: Entry) -> None:
        """Add the newest event. Raises ValueError when its number does not grow."""
        if not self._entries and not self._lost_of:
            self._first_seq = entry.seq
        elif entry.seq <= self._last_seq:
            raise ValueError(f"seq: must grow, got {entry.seq} after {self._last_seq}")
        self._entries.append(entry)
        self._bytes += entry.size
        self._last_seq = entry.seq
        if entry.segment is not None:
            self._newest_of[entry.segment] = entry.seq
        if len(self._entries) > self._max_events or self._bytes > self._max_bytes:
            self._shrink()

    def begin(self, entries: Iterable[Entry], lost_to: int) -> None:
        """Before anything else: what an earlier process kept of the session. Of numbers up to `lost_to` nothing is."""
        if lost_to:
            self._lost_of = {kind.type: lost_to for kind in SESSION_EVENTS}
            self._last_seq = lost_to
        for entry in entries:
            self.append(entry)

    def superseded(self, entry: Entry) -> bool:
        """Whether a newer transcript of the same segment says all that this one said."""
        return entry.segment is not None and self._newest_of.get(entry.segment, entry.seq) > entry.seq

    def after(self, seq: int) -> Iterator[Entry]:
        """Entries with numbers above `seq`, oldest first."""
        first = bisect_right(self._entries, seq, key=_SEQ)
        return (self._entries[index] for index in range(first, len(self._entries)))

    def lost_after(self, seq: int, types: Container[str] | None) -> tuple[int, int] | None:
        """First and last number of what a reader at `seq` can no longer have of the `types` (None: all)."""
        lost = [gone for kind, gone in self._lost_of.items() if gone > seq and (types is None or kind in types)]
        return (max(seq + 1, self._first_seq), max(lost)) if lost else None

    def _shrink(self) -> None:
        kept = [entry for entry in self._entries if not self.superseded(entry)]
        size = sum(entry.size for entry in kept)
        drop = max(0, len(kept) - int(self._max_events * _SHRINK_TO))
        size -= sum(entry.size for entry in kept[:drop])
        while size > self._max_bytes * _SHRINK_TO and drop < len(kept) - 1:
            size -= kept[drop].size
            drop += 1
        drop = min(drop, len(kept) - 1)
        for entry in kept[:drop]:
            self._lost_of[entry.type] = entry.seq
        self._entries = kept[drop:]
        self._bytes = sum(entry.size for entry in self._entries)
        self._newest_of = {entry.segment: entry.seq for entry in self._entries if entry.segment is not None}
