"""What is kept of senders' sessions, and how one goes on elsewhere."""

import asyncio
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from streamer.cluster.book import ClusterBook
from streamer.cluster.ledger import KEPT_EVENTS, Ledger
from streamer.cluster.mirrors import LedgerSilentError
from streamer.events import Event, Status, Transcript, Word
from streamer.runtime.handover import MOVED, Handover, Kept
from streamer.runtime.inputs import Ingests
from streamer.runtime.told import UNCOMMITTED_S, UNTOLD_S, Told
from streamer.server.messages import Ack, Flush, IngestStart, SessionInfo
from streamer.settings.config import Settings

LATE_S = 5.0  # for threads on a busy machine; nothing is expected to take so long


def status(seq: int, audio_t: float = 0.0, state: Any = "listening", session: str = "in1") -> Status:
    return Status(session=session, seq=seq, audio_t=audio_t, state=state, detail="")


def transcript(seq: int, audio_t: float, ends: Sequence[float] = (), *, final: bool = False) -> Transcript:
    words = tuple(Word(f"w{place}", end - 0.2, end, 0.9) for place, end in enumerate(ends))
    text = " ".join(word.word for word in words)
    more = "" if final else "tail"
    return Transcript(
        session="in1", seq=seq, audio_t=audio_t, segment=0, start=0.5, end=audio_t, text=text, partial=more,
        final=final, words=words, language="en", speech_probability=0.9,
    )  # fmt: skip


def info(session: str = "in1") -> SessionInfo:
    return SessionInfo(session, "nano", "nano_at", 16_000, opened_at=100.0)


class HereDesk:
    """A ledger in this process, which can be made silent or slow."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.silent = ledger, False
        self.free = threading.Event()
        self.free.set()

    def ask(self, method: str, *arguments: Any) -> Any:
        self.free.wait(LATE_S)
        if self.silent:
            raise LedgerSilentError("no answer")
        return getattr(self.ledger, method)(*arguments)

    def tell(self, method: str, *arguments: Any) -> None:
        self.ask(method, *arguments)

    async def later(self, timeout_s: float, method: str, *arguments: Any) -> Any:
        return await getattr(self.ledger, method)(*arguments)


class Heard(list[Event]):
    """What people were told; `wait(n)` waits until it is so many events."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Condition()

    def emit(self, events: Sequence[Event]) -> None:
        with self.changed:
            self.extend(events)
            self.changed.notify_all()

    def wait(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self) >= count, LATE_S)


def test_an_event_is_written_down_before_anybody_is_told():
    desk, heard = HereDesk(Ledger()), Heard()
    book = ClusterBook(desk, "a")
    book.open(info(), None)
    say = book.emitter("in1", heard.emit, lambda: None)
    desk.free.clear()
    say([status(1)])
    assert not heard
    desk.free.set()
    heard.wait(1)
    found = desk.ledger.take("in1", "b")
    assert found is not None
    kept, of = found
    assert (kept.told.seq, kept.events, kept.opened_at, of) == (1, (status(1),), 100.0, info())


def test_who_lost_a_session_is_told_once_and_says_no_more_of_it():
    desk, heard, gone = HereDesk(Ledger()), Heard(), threading.Event()
    old, new = ClusterBook(desk, "old"), ClusterBook(desk, "new")
    old.open(info(), None)
    say = old.emitter("in1", heard.emit, gone.set)
    say([status(1)])
    heard.wait(1)
    assert new.take("in1") is not None
    say([status(2)])
    assert gone.wait(LATE_S)
    say([status(3)])
    old.leave()
    assert [event.seq for event in heard] == [1]
    assert desk.ledger.sessions() == {"in1": "new"}
    new.leave()


def test_a_sender_s_session_is_closed_behind_its_last_event():
    """Who follows a session that is closed looks for no more events: a ledger that is slow must not cost the last."""
    desk, told = HereDesk(Ledger()), Heard()
    book = ClusterBook(desk, "a")
    pipelines: list[SimpleNamespace] = []

    def make(item: Any) -> Any:
        book.open(info(item.name), None)
        pipelines.append(SimpleNamespace(name=item.name, done=False, start=lambda: None))
        return pipelines[-1]

    closed: list[str] = []
    ingests = Ingests(make, closed.append, Settings(), {}, book=book)
    name = ingests.open(IngestStart(16_000)).session
    desk.free.clear()
    book.emitter(name, told.emit, lambda: None)([status(1, state="stopped", session=name)])
    pipelines[0].done = True
    ingests.sweep()
    assert not closed
    desk.free.set()
    told.wait(1)
    book.leave()
    ingests.sweep()
    assert closed == [name]


def test_a_ledger_that_does_not_answer_costs_no_captions():
    desk, heard = HereDesk(Ledger()), Heard()
    book = ClusterBook(desk, "a")
    book.open(info(), None)
    desk.silent = True
    book.emitter("in1", heard.emit, lambda: None)([status(1)])
    heard.wait(1)
    assert book.take("in1") is None
    book.leave()


def test_after_the_end_nothing_is_written_or_said():
    desk, heard = HereDesk(Ledger()), Heard()
    book = ClusterBook(desk, "a")
    book.open(info(), None)
    say = book.emitter("in1", heard.emit, lambda: None)
    say([status(1)])
    book.leave()
    say([status(2, state="stopped")])
    assert [event.seq for event in heard] == [1]


def test_the_ledger_is_bounded_and_knows_the_numbers_all_the_same():
    ledger = Ledger()
    ledger.open(info(), "a", None)
    for seq in range(1, KEPT_EVENTS + 101):
        ledger.write("a", [("in1", [status(seq)])])
    found = ledger.take("in1", "b")
    assert found is not None
    kept = found[0]
    assert len(kept.events) == KEPT_EVENTS
    assert kept.events[0].seq == 101
    assert kept.told.seq == KEPT_EVENTS + 100


def test_what_a_reader_elsewhere_wants_comes_with_the_next_write():
    desk, heard, wanted = HereDesk(Ledger()), Heard(), list[Ack | Flush]()
    book, other = ClusterBook(desk, "a", wanted.append), ClusterBook(desk, "b")
    book.open(info(), None)
    say = book.emitter("in1", heard.emit, lambda: None)
    other.pass_on(Ack(3, "in1"))
    other.pass_on(Flush("in1"))
    other.pass_on(Flush("in7"))  # nobody knows it
    say([status(1)])
    heard.wait(1)
    say([status(2)])
    heard.wait(2)
    assert wanted == [Ack(3, "in1"), Flush("in1")]
    assert desk.ledger.write("a", [("in1", [status(3)])]).wishes == ()
    for one in (book, other):
        one.leave()


def test_a_session_of_before_a_lost_ledger_is_read_from_there_on_and_not_handed_over():
    desk, heard = HereDesk(Ledger()), Heard()
    book = ClusterBook(desk, "a")
    book.open(info(), "hall")
    say = book.emitter("in1", heard.emit, lambda: None)
    say([status(1)])
    heard.wait(1)
    desk.ledger = Ledger()
    say([status(2)])
    heard.wait(2)
    read = asyncio.run(desk.ledger.read("in1", "b", 0, 0.0))
    assert read is not None
    assert (read.info, read.oldest_seq, read.events) == (info(), 2, (status(2),))
    assert desk.ledger.take("in1", "b") is None
    book.leave()


def test_events_that_cannot_be_passed_on_cost_the_others_nothing():
    desk, heard = HereDesk(Ledger()), Heard()
    book = ClusterBook(desk, "a")
    for name in ("in1", "in2"):
        book.open(info(name), None)

    def fail(events: Sequence[Event]) -> None:
        raise KeyError("in1")

    desk.free.clear()
    bad, good = book.emitter("in1", fail, lambda: None), book.emitter("in2", heard.emit, lambda: None)
    bad([status(1)])
    good([status(1, session="in2")])
    bad([status(2)])
    good([status(2, session="in2")])
    desk.free.set()
    heard.wait(2)
    book.leave()
    assert not book._thread.is_alive()


def kept(*events: Event) -> Kept:
    told = Told("in1")
    for event in events:
        told.note(event)
    return Kept(told, events, 1000.0, None)


def test_an_open_segment_ends_with_its_committed_words_and_the_rest_is_heard_again():
    found = Handover.of(kept(status(1), transcript(2, 9.0, (6.0, 7.5))), 0.0, 1010.0)
    assert (found.begin_s, found.lost_samples) == (7.5, 0)
    last, moved = found.closing
    assert isinstance(last, Transcript)
    assert (last.seq, last.text, last.partial, last.final, last.audio_t) == (3, "w0 w1", "", True, 9.0)
    assert isinstance(moved, Status)
    assert (moved.seq, moved.state, moved.detail) == (4, "degraded", MOVED)
    assert found.told.seq == 4


def test_what_the_sender_has_not_kept_is_lost_to_the_sample():
    found = Handover.of(kept(transcript(1, 9.0, (7.5,))), 8.25, 0.0)
    assert (found.begin_sample, found.lost_samples, found.begin_s) == (120_000, 12_000, 8.25)


def test_without_a_buffer_the_clock_says_where_the_sender_is():
    found = Handover.of(kept(transcript(1, 9.0, (7.5,))), None, 1012.0)
    assert found.begin_s == 12.0


@pytest.mark.parametrize(
    ("events", "begin_s"),
    [
        ((status(1, 20.0),), 20.0 - UNTOLD_S),
        ((transcript(1, 18.0, (17.5,), final=True), status(2, 19.0)), 17.5),
        ((transcript(1, 20.0),), 20.0 - UNCOMMITTED_S),
        ((status(1, 1.0),), 0.0),
    ],
)
def test_it_goes_back_as_far_as_words_may_be_that_nobody_was_told_of(events, begin_s):
    assert Handover.of(kept(*events), 0.0, 0.0).begin_s == pytest.approx(begin_s, abs=0.02)
