"""OpenAI's Realtime API, as far as it transcribes: the websocket `/v1/realtime?intent=transcription`.

Sound comes in base64 and goes the way of `/ingest`: a session of its own, from the first sound to a `commit`, at which
it ends and what was said in it becomes final. `Items` turns that session's events into Realtime's (pure): deltas hold
committed text only, so nothing is ever taken back. With turn detection, which is the default, each utterance is an
item; without (`turn_detection` null), all that was sent between two commits is one.
"""

import asyncio
import base64
import binascii
import json
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from streamer.errors import StreamerError, UsageError
from streamer.server.actions import Actions, IngestFullError, IngestSink
from streamer.server.messages import IngestStart, MessageError, parse_object
from streamer.server.other_protocols import MAX_WAITING, Client, CommittedText, language_of, open_sender
from streamer.settings.section import first_fault

REALTIME = "/v1/realtime"
RATE = 24_000  # Hz, what clients send if they say nothing else
SHORTEST_S = 0.1  # of sound that is committed
TRANSCRIPTION = "conversation.item.input_audio_transcription"
TOLD = ("sound", "alert", "gap")  # events that come as `streamer.event`

Json = dict[str, Any]
log = logging.getLogger(__name__)


class _Given(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class _Format(_Given):
    type: Literal["audio/pcm"] = "audio/pcm"
    rate: Annotated[int, Field(ge=8_000, le=192_000)] = RATE


class _Transcription(_Given):
    model: str | None = None
    language: str | None = None
    prompt: str | None = None


class _TurnDetection(_Given):
    type: Literal["server_vad", "semantic_vad"] = "server_vad"


class _Input(_Given):
    format: _Format | None = None
    transcription: _Transcription | None = None
    turn_detection: _TurnDetection | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """What a client chose. `turns`: each utterance is an item."""

    rate: int = RATE
    model: str = ""
    language: str = ""
    turns: bool = True

    def changed(self, given: Any, actions: Actions) -> "Config":
        """With `session.audio.input` of an update; what is not in it stays. MessageError: what cannot be."""
        try:
            new = _Input.model_validate(given)
        except ValidationError as error:
            raise MessageError(first_fault(error, "session.audio.input")) from None
        rate, model, language, turns = self.rate, self.model, self.language, self.turns
        if new.format is not None:
            rate = new.format.rate
        if new.transcription is not None:
            if new.transcription.prompt:
                raise MessageError("session.audio.input.transcription.prompt: is the setting speech.prompt here")
            model = new.transcription.model or model
            language = language_of(actions, new.transcription.language)
        if "turn_detection" in new.model_fields_set:
            turns = new.turn_detection is not None
        return Config(rate, model, language, turns)

    def described(self, name: str, *, beta: bool) -> Json:
        """The session, as the API writes it."""
        heard = {"model": self.model, "language": self.language, "prompt": ""}
        turns = {"type": "server_vad"} if self.turns else None
        about: Json = {"id": name, "object": "realtime.transcription_session"}
        if beta:
            return about | {
                "input_audio_format": "pcm16",
                "input_audio_transcription": heard,
                "turn_detection": turns,
            }
        sound = {"format": {"type": "audio/pcm", "rate": self.rate}, "transcription": heard, "turn_detection": turns}
        return about | {"type": "transcription", "audio": {"input": sound}}


@dataclass(slots=True)
class Items:
    """The events of one session as Realtime's (pure). `turns`: as in `Config`; `began_ms`: when the session began, on
    the clock of the connection; `new_item` makes ids; `previous`: the item before, of all sessions of the connection.
    """

    turns: bool
    began_ms: int
    new_item: Callable[[], str]
    previous: list[str] = field(default_factory=list)
    _item: str = ""
    _said: CommittedText = field(default_factory=CommittedText)

    def step(self, event: Mapping[str, Any]) -> list[Json]:
        """What a client is told of one event."""
        kind = event["type"]
        if kind == "transcript" and event["text"]:
            return self._transcript(event)
        if kind == "status" and event["state"] == "stopped" and self._item:
            return [self._completed(event["audio_t"])]
        return [{"type": "streamer.event", "event": dict(event)}] if kind in TOLD else []

    def commit(self) -> list[Json]:
        """The client committed: without turns that is the end of the item, whose last words are to come."""
        if self.turns:
            return []
        self._item = self._item or self.new_item()
        return [self._committed()]

    def _transcript(self, event: Mapping[str, Any]) -> list[Json]:
        told: list[Json] = []
        if not self._item:
            self._item = self.new_item()
            if self.turns:
                told.append(self._speech("started", "audio_start_ms", event["start"]))
        if delta := self._said.step(event):
            told.append({"type": f"{TRANSCRIPTION}.delta", "item_id": self._item, "content_index": 0, "delta": delta})
        if event["final"] and self.turns:
            told += [self._speech("stopped", "audio_end_ms", event["end"]), self._committed()]
            told.append(self._completed(event["end"] - event["start"]))
        return told

    def _speech(self, what: str, name: str, at_s: float) -> Json:
        at_ms = self.began_ms + round(1000 * at_s)
        return {"type": f"input_audio_buffer.speech_{what}", name: at_ms, "item_id": self._item}

    def _committed(self) -> Json:
        before = self.previous[-1] if self.previous else None
        self.previous[:] = [self._item]
        return {"type": "input_audio_buffer.committed", "item_id": self._item, "previous_item_id": before}

    def _completed(self, seconds: float) -> Json:
        item, text = self._item, self._said.text
        self._item, self._said = "", CommittedText()
        usage = {"type": "duration", "seconds": round(seconds, 3)}
        done = {"item_id": item, "content_index": 0, "transcript": text, "usage": usage}
        return {"type": f"{TRANSCRIPTION}.completed"} | done


@dataclass(slots=True, eq=False)
class _Turn:
    """One session: from the first sound to a commit."""

    sink: IngestSink
    items: Items
    rate: int
    teller: "asyncio.Task[None]"
    sent_bytes: int = 0

    @property
    def seconds(self) -> float:
        return self.sent_bytes / 2 / self.rate


class Conversation:
    """One connection. `beta`: names of 2024."""

    def __init__(self, client: Client, *, beta: bool = False) -> None:
        self._client = client
        self._beta, self._config, self._name = beta, Config(), f"sess_{secrets.token_hex(8)}"
        self._turn: _Turn | None = None
        self._tellers: set[asyncio.Task[None]] = set()
        self._previous: list[str] = []
        self._began_s = 0.0  # what was sent before the present session

    async def run(self, incoming: AsyncIterator[str | bytes]) -> tuple[int, str]:
        """Serve the client until it goes away; returns how to close. Sessions are always finished."""
        await self._say(self._described("created", self._beta))
        try:
            async for message in incoming:
                asked: Json = {}
                try:
                    asked = parse_object(message)
                    await self._on_message(asked)
                except IngestFullError as error:
                    await self._say_error(str(error), asked)
                    return 1013, "full: too many senders"
                except (MessageError, UsageError) as error:
                    if not self._client.bad_messages.spend():
                        return 1008, "too many messages that cannot be used"
                    await self._say_error(str(error), asked)
            return 1000, "done"
        except StreamerError as error:
            await self._say_error(str(error), {})
            return 1013, "the session is over"
        except TimeoutError:
            return 1013, "too slow"
        finally:
            if self._turn:
                self._turn.sink.finish()
            for teller in self._tellers:
                teller.cancel()

    async def _on_message(self, asked: Json) -> None:
        match asked.get("type"):
            case "input_audio_buffer.append":
                await self._append(asked.get("audio"))
            case "input_audio_buffer.commit":
                await self._commit()
            case "input_audio_buffer.clear":
                self._end(drop=True)
                await self._say({"type": "input_audio_buffer.cleared"})
            case "session.update":
                await self._update(asked.get("session"), beta=False)
            case "transcription_session.update":
                await self._update(asked.get("session"), beta=True)
            case _:
                known = "session.update, transcription_session.update, input_audio_buffer.append, .commit or .clear"
                raise MessageError(f"type: must be {known}")

    async def _update(self, session: Any, *, beta: bool) -> None:
        if not isinstance(session, dict):
            raise MessageError("session: must be an object")
        if beta:
            if session.get("input_audio_format", "pcm16") != "pcm16":
                raise MessageError("session.input_audio_format: must be pcm16")
            names = {"input_audio_transcription": "transcription", "turn_detection": "turn_detection"}
            given: Any = {new: session[old] for old, new in names.items() if old in session}
        else:
            if session.get("type", "transcription") != "transcription":
                raise MessageError("session.type: must be transcription: nothing else is spoken here")
            sound = session.get("audio") or {}
            given = (sound.get("input") or {}) if isinstance(sound, dict) else sound
        config = self._config.changed(given, self._client.actions)
        if config != self._config:
            self._end()  # what comes now is heard in the new way
        self._config = config
        await self._say(self._described("updated", beta))

    async def _append(self, audio: Any) -> None:
        try:
            pcm = base64.b64decode(audio, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise MessageError("audio: must be base64 of 16-bit little-endian mono PCM") from None
        if self._turn is None:
            while len(self._tellers) >= MAX_WAITING:
                await asyncio.wait(self._tellers, return_when=asyncio.FIRST_COMPLETED)
            self._turn = self._open()
        self._turn.sent_bytes += len(pcm)
        await self._turn.sink.write(pcm)

    def _open(self) -> _Turn:
        rate = self._config.rate
        sink = open_sender(self._client.actions, IngestStart(rate), self._config.language)
        began_ms = round(1000 * self._began_s)
        items = Items(self._config.turns, began_ms, lambda: f"item_{secrets.token_hex(8)}", self._previous)
        teller = asyncio.create_task(self._tell(sink.session, items))
        self._tellers.add(teller)
        teller.add_done_callback(self._told)
        return _Turn(sink, items, rate, teller)

    async def _commit(self) -> None:
        turn = self._turn
        if turn is None or turn.seconds < SHORTEST_S:
            raise MessageError(
                f"input_audio_buffer.commit: the buffer holds less than {1000 * SHORTEST_S:.0f} ms of audio"
            )
        for message in turn.items.commit():
            await self._say(message)
        self._end()

    def _end(self, *, drop: bool = False) -> None:
        """The present session ends; with `drop` nothing more of it is told."""
        turn, self._turn = self._turn, None
        if turn:
            self._began_s += turn.seconds
            turn.sink.finish()
            if drop:
                turn.teller.cancel()

    async def _tell(self, session: str, items: Items) -> None:
        async with aclosing(self._client.follow(session)) as texts:
            async for text in texts:
                for message in items.step(json.loads(text)):
                    await self._say(message)

    def _told(self, teller: "asyncio.Task[None]") -> None:
        self._tellers.discard(teller)
        if not teller.cancelled() and teller.exception():
            log.debug("a Realtime client gets no more of a session: %r", teller.exception())

    def _described(self, what: str, beta: bool) -> Json:
        kind = f"{'transcription_' if beta else ''}session.{what}"
        return {"type": kind, "session": self._config.described(self._name, beta=beta)}

    async def _say(self, message: Json) -> None:
        await self._client.say({"event_id": f"event_{secrets.token_hex(8)}", **message})

    async def _say_error(self, text: str, asked: Json) -> None:
        """`param`: the field at fault, where the text begins with one; `event_id`: that of the client's message."""
        place, colon, _ = text.partition(":")
        fault = {"type": "invalid_request_error", "code": None, "message": text, "param": place if colon else None}
        await self._say({"type": "error", "error": fault | {"event_id": asked.get("event_id")}})
