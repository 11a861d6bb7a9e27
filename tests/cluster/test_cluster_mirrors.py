"""Sessions of other programs: read from the ledger while somebody wants them, here without Ray."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from streamer.cluster import mirrors
from streamer.cluster.ledger import KEPT_EVENTS, READ_EVENTS, Ledger
from streamer.cluster.mirrors import LedgerSilentError, Mirrors
from streamer.events import Status
from streamer.server.hub import Connection, Hub
from streamer.server.messages import MessageError, SessionInfo, Subscribe
from streamer.server.mirrored import MirroredSessions

LATE_S = 10.0
INFO = SessionInfo("in1", "nano", "nano_at", 16_000, opened_at=100.0)


def status(seq: int) -> Status:
    return Status(session="in1", seq=seq, audio_t=seq / 10, state="listening", detail="")


class Here:
    """A ledger and one program that shows what another one, `there`, writes down."""

    def __init__(self) -> None:
        self.ledger, self.silent = Ledger(), False
        self.hub = Hub()
        self.changed, loop = asyncio.Event(), asyncio.get_running_loop()
        wake = partial(loop.call_soon_threadsafe, self.changed.set)
        self.shown = MirroredSessions(self.hub, threading.Lock(), wake)
        self.mirrors = Mirrors(self, "here")

    async def later(self, timeout_s: float, method: str, *arguments: Any) -> Any:
        if self.silent:
            raise LedgerSilentError("no answer")
        found = getattr(self.ledger, method)(*arguments)
        return await found if asyncio.iscoroutine(found) else found

    async def seek(self) -> None:
        await self.mirrors.seek("in1", self.shown)

    def reader(self, since_seq: int | None) -> Connection:
        connection = self.hub.connect(session="in1")
        self.hub.subscribe(connection, Subscribe(session="in1", since_seq=since_seq))
        return connection

    async def told(self, connection: Connection, count: int) -> list[str]:
        """So many events, as they come, without what the server says of itself."""
        found: list[str] = []
        async with asyncio.timeout(LATE_S):
            while True:
                self.changed.clear()
                while batch := self.hub.drain(connection):
                    found += [text for text in batch if '"hello"' not in text]
                if len(found) >= count:
                    return found
                await self.changed.wait()


def run(scenario: Callable[[Here], Awaitable[None]]) -> None:
    async def go() -> None:
        await scenario(Here())

    asyncio.run(go())


def test_a_session_elsewhere_is_shown_from_any_number_and_then_live():
    async def scenario(here: Here) -> None:
        here.ledger.open(INFO, "there", None)
        here.ledger.write("there", [("in1", [status(seq) for seq in range(1, 4)])])
        everybody = here.hub.connect()
        await here.seek()
        reader, late = here.reader(2), here.reader(None)
        assert [one["last_seq"] for one in here.hub.hello(reader)["sessions"]] == [3]
        here.ledger.write("there", [("in1", [status(4)])])
        assert await here.told(reader, 2) == [status(3).to_json(), status(4).to_json()]
        assert await here.told(late, 1) == [status(4).to_json()]
        assert here.hub.hello()["sessions"] == []  # who did not name it is told nothing of it
        assert len(here.hub.drain(everybody)) == 1

    run(scenario)


def test_much_comes_in_parts_and_what_the_ledger_no_longer_has_is_told():
    count = KEPT_EVENTS + READ_EVENTS

    async def scenario(here: Here) -> None:
        here.ledger.open(INFO, "there", None)
        here.ledger.write("there", [("in1", [status(seq) for seq in range(1, count + 1)])])
        await here.seek()
        gap, *events = await here.told(here.reader(0), KEPT_EVENTS + 1)
        assert f'"from_seq":1,"to_seq":{READ_EVENTS}' in gap
        assert events == [status(seq).to_json() for seq in range(READ_EVENTS + 1, count + 1)]

    run(scenario)


def test_a_session_that_begins_later_is_found_and_one_that_comes_here_goes_on_here(monkeypatch):
    monkeypatch.setattr(mirrors, "PATIENCE_S", 0.1)

    async def scenario(here: Here) -> None:
        await here.seek()  # there is none
        reader = here.reader(None)
        here.ledger.open(INFO, "there", None)
        here.ledger.write("there", [("in1", [status(1)])])
        assert await here.told(reader, 1) == [status(1).to_json()]
        assert here.ledger.take("in1", "here") is not None
        here.hub.open_session(INFO, again=True)
        here.hub.publish(status(2))
        assert await here.told(reader, 1) == [status(2).to_json()]
        async with asyncio.timeout(LATE_S):
            await asyncio.gather(*(sought.task for sought in here.mirrors._sought.values() if sought.task))
        assert not here.hub.is_mirrored("in1")

    run(scenario)


def test_who_reads_here_reads_on_when_the_session_goes_elsewhere():
    async def scenario(here: Here) -> None:
        here.ledger.open(INFO, "here", None)
        here.ledger.write("here", [("in1", [status(1)])])
        here.hub.open_session(INFO)
        reader = here.reader(0)
        here.hub.publish(status(1))
        here.hub.close_session("in1")
        await here.seek()
        assert here.ledger.take("in1", "there") is not None
        here.ledger.write("there", [("in1", [status(2)])])
        assert await here.told(reader, 2) == [status(1).to_json(), status(2).to_json()]

    run(scenario)


def test_nobody_is_shown_what_nobody_wants_any_more(monkeypatch):
    monkeypatch.setattr(mirrors, "IDLE_S", -1.0)
    monkeypatch.setattr(mirrors, "PATIENCE_S", 0.0)

    async def scenario(here: Here) -> None:
        here.ledger.open(INFO, "there", None)
        await here.seek()
        async with asyncio.timeout(LATE_S):
            while here.mirrors._sought:
                await asyncio.sleep(0)
        assert not here.shown.has("in1")
        assert not here.ledger._changed  # nothing stays of who waited

    run(scenario)


def test_a_ledger_that_does_not_answer_keeps_nobody_waiting_and_too_many_are_refused(monkeypatch):
    monkeypatch.setattr(mirrors, "SOUGHT", 1)
    monkeypatch.setattr(mirrors, "SEEK_S", 0.05)

    async def scenario(here: Here) -> None:
        here.silent = True
        here.ledger.open(INFO, "there", None)
        await here.seek()
        assert not here.shown.has("in1")
        with pytest.raises(MessageError, match=r"^session: too many"):
            await here.mirrors.seek("in2", here.shown)

    run(scenario)
