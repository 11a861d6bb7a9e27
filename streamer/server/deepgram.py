"""Deepgram's live API: the websocket `/v1/listen`.

Sound goes the way of `/ingest`, as a session of its own: from the first sound to a `Finalize` or `CloseStream`, at
which it ends, so that everything that was sent is in the results. `deepgram_results.Results` turns the session's events
into the API's (pure). Runs in the server's event loop.
"""

import asyncio
import hashlib
import json
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from streamer.audio.packets import PacketDecoder
from streamer.errors import InputError, StreamerError, UsageError
from streamer.server.access import Access, Request
from streamer.server.actions import Actions, IngestFullError, IngestSink
from streamer.server.decoding import ContainedSound, PacketSound, Sound
from streamer.server.deepgram_results import About, Results, wishes_of
from streamer.server.messages import MessageError, parse_object
from streamer.server.other_protocols import MAX_WAITING, Client, open_sender

LISTEN = "/v1/listen"
UNHEARD_MS = 1000  # what was sent just now may hold words of which nothing is known yet

Json = dict[str, Any]
log = logging.getLogger(__name__)


def refusal(asked: Request, access: Access, actions: Actions) -> tuple[int, Json] | None:
    """Why a request gets an HTTP status and no websocket, as Deepgram's clients expect it; None: it is welcome."""
    if (why := access.refusal(asked)) is not None:
        if "token" in why:
            return 401, _fault("INVALID_AUTH", f"{why}; the API key is the server's token")
        return 403, _fault("FORBIDDEN", why)
    try:
        wishes_of(asked.query, actions)
    except MessageError as error:
        return 400, _fault("Bad Request", str(error))
    return None


def _fault(code: str, text: str) -> Json:
    return {"err_code": code, "err_msg": text, "request_id": str(uuid.uuid4())}


@dataclass(slots=True, eq=False)
class _Turn:
    """One session: from the first sound to a `Finalize`."""

    sink: IngestSink
    results: Results


class Listening:
    """One connection. `query`: of its address."""

    def __init__(self, client: Client, query: str) -> None:
        """Raises MessageError as `wishes_of`."""
        self._client, self._wishes = client, wishes_of(query, client.actions)
        facts = client.actions.model()
        self._about = About(str(uuid.uuid4()), "" if facts is None else facts.name)
        self._created = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._sha256 = hashlib.sha256()
        self._delivered_bytes = 0  # of PCM
        self._sound = self._opened()
        self._turn: _Turn | None = None
        self._tellers: list[asyncio.Task[None]] = []  # in order; each tells when the one before is through
        self._gone = False  # the client is: what is decoded behind that is not wanted

    async def run(self, incoming: AsyncIterator[str | bytes]) -> tuple[int, str]:
        """Serve the client until it is done or goes away; returns how to close. Sessions are always finished."""
        try:
            async for message in incoming:
                try:
                    if isinstance(message, bytes) and message:
                        self._sha256.update(message)
                        await self._sound.write(message)
                        await self._note_silence()
                    elif await self._control(message):
                        break
                except MessageError as error:
                    if not self._client.bad_messages.spend():
                        return 1008, "too many messages that cannot be used"
                    await self._say_error(str(error), message)
            else:
                return 1000, "done"
            await self._sound.finish()
            self._end()
            if self._tellers:
                await asyncio.wait(self._tellers)
            await self._client.say(self._about.at_end(self._created, self._sha256.hexdigest(), self._sent_ms / 1000))
            return 1000, "done"
        except IngestFullError as error:
            await self._say_error(str(error))
            return 1013, "full: too many senders"
        except (InputError, UsageError, MessageError) as error:
            await self._say_error(str(error))
            return 1008, "the sound cannot be used"
        except StreamerError as error:
            await self._say_error(str(error))
            return 1013, "the session is over"
        except TimeoutError:
            return 1013, "too slow"
        finally:
            self._gone = True
            self._sound.close()
            if self._turn:
                self._turn.sink.finish()
            for teller in self._tellers:
                teller.cancel()

    async def _control(self, message: str | bytes) -> bool:
        """Do what a text message says; whether it was the last. An empty binary one ends the sound too."""
        kind = "CloseStream" if message == b"" else parse_object(message).get("type")
        match kind:
            case "KeepAlive":
                return False
            case "CloseStream":
                return True
            case "Finalize":
                await self._sound.settle()
                if self._turn:
                    self._turn.results.finalize()
                    self._end()
                return False
        raise MessageError("type: must be KeepAlive, Finalize or CloseStream")

    def _opened(self) -> Sound:
        wishes = self._wishes
        if wishes.encoding is None:
            return ContainedSound(self._deliver)
        if wishes.encoding == "linear16":
            return PacketSound(self._deliver)
        return PacketSound(self._deliver, PacketDecoder(wishes.encoding, wishes.sample_rate, wishes.channels))

    async def _deliver(self, pcm: bytes) -> None:
        """PCM into the session, which the first of it opens."""
        if self._turn is None:
            while len(waiting := [teller for teller in self._tellers if not teller.done()]) >= MAX_WAITING:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if self._gone:
                return  # nobody would end this session
            sink = open_sender(self._client.actions, self._wishes.start, self._wishes.language)
            results = Results(self._wishes, self._about, self._sent_ms)
            before = waiting[-1] if waiting else None
            self._tellers = [*waiting, asyncio.create_task(self._tell(sink.session, results, before))]
            self._tellers[-1].add_done_callback(_note)
            self._turn = _Turn(sink, results)
        turn = self._turn
        self._delivered_bytes += len(pcm)
        await turn.sink.write(pcm)

    @property
    def _sent_ms(self) -> int:
        start = self._wishes.start
        return self._delivered_bytes * 1000 // start.frame_bytes // start.sample_rate

    def _end(self) -> None:
        turn, self._turn = self._turn, None
        if turn:
            turn.sink.finish()

    async def _note_silence(self) -> None:
        """An utterance may be over: nobody says so by an event while nothing sounds."""
        turn = self._turn
        if turn is None or not turn.results.waits:
            return
        health = self._client.actions.health().get(turn.sink.session)
        if health is not None:
            for message in turn.results.heard(self._sent_ms - round(1000 * health.lag_s) - UNHEARD_MS):
                await self._client.say(message)

    async def _tell(self, session: str, results: Results, before: "asyncio.Task[None] | None") -> None:
        if before is not None:
            await asyncio.wait((before,))
        async with aclosing(self._client.follow(session)) as texts:
            async for text in texts:
                for message in results.step(json.loads(text)):
                    await self._client.say(message)

    async def _say_error(self, text: str, message: str | bytes = "") -> None:
        """`message`: what the client said, where that is at fault."""
        fault = {"type": "Error", "variant": "SchemaError" if message else "StreamerError", "description": text}
        shown = message.decode("ascii", "replace") if isinstance(message, bytes) else message
        await self._client.say(fault | ({"message": shown[:200]} if shown else {}))


def _note(teller: "asyncio.Task[None]") -> None:
    if not teller.cancelled() and teller.exception():
        log.debug("a Deepgram client gets no more of a session: %r", teller.exception())
