"""Wyoming, the protocol by which Home Assistant speaks to speech-to-text: TCP, one JSON line and a payload an event.

    {"type": "audio-chunk", "data_length": 50, "payload_length": 2048}\\n<50 bytes of JSON><2048 bytes of PCM>

(github.com/OHF-Voice/wyoming.) `describe` is answered by `info`; `transcribe`, `audio-start`, `audio-chunk`…,
`audio-stop` by `transcript-start`, `transcript-chunk`… as words become final, `transcript` and `transcript-stop`. Sound
goes the way of `/ingest`, a session for each recording. The protocol knows neither token nor TLS.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter, ValidationError

from streamer.errors import ConfigError, StreamerError
from streamer.server.access import cannot_listen
from streamer.server.actions import Actions
from streamer.server.follow import STALL_S, Follow
from streamer.server.messages import IngestStart, MessageError, parse_object
from streamer.server.other_protocols import CommittedText, language_of, open_sender
from streamer.server.sockets import Door
from streamer.settings.section import first_fault
from streamer.settings.server import ServerSettings

MAX_CONNECTIONS = 64
MAX_LINE = 64 * 2**10  # bytes, of the JSON line, and of the data behind it
MAX_PAYLOAD = 2**20  # bytes
IDLE_S = 120.0  # a client that says nothing for so long is closed

_START = TypeAdapter(IngestStart)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    """One event on the wire."""

    type: str
    data: Mapping[str, Any] = field(default_factory=dict)
    payload: bytes = b""

    def encoded(self) -> bytes:
        """The line, the data, the payload."""
        data = json.dumps(self.data, ensure_ascii=False).encode() if self.data else b""
        head: dict[str, Any] = {"type": self.type, "version": "1.0.0"}
        head |= {"data_length": len(data)} if data else {}
        head |= {"payload_length": len(self.payload)} if self.payload else {}
        return json.dumps(head).encode() + b"\n" + data + self.payload


async def read_message(reader: asyncio.StreamReader) -> Message | None:
    """The next event; None at the end. Raises MessageError for what is none, or is too large."""
    try:
        line = await reader.readline()
        if not line:
            return None
        head = parse_object(line.decode())
        lengths = [head.get(name) or 0 for name in ("data_length", "payload_length")]
        for name, length, most in zip(("data_length", "payload_length"), lengths, (MAX_LINE, MAX_PAYLOAD), strict=True):
            if not isinstance(length, int) or not 0 <= length <= most:
                raise MessageError(f"{name}: must be 0 to {most} bytes")
        data = head.get("data") or {}
        if not isinstance(data, dict):
            raise MessageError("data: must be an object")
        if lengths[0]:
            data = data | parse_object((await reader.readexactly(lengths[0])).decode())
        payload = await reader.readexactly(lengths[1]) if lengths[1] else b""
    except asyncio.IncompleteReadError:
        return None
    except (ValueError, TypeError) as error:  # MessageError is one too
        raise MessageError(f"this is no event of Wyoming: {error}") from None
    if not isinstance(head.get("type"), str):
        raise MessageError("type: is missing")
    return Message(head["type"], data, payload)


class Transcription:
    """From one session's events to what a client is told of its recording (pure)."""

    def __init__(self) -> None:
        self._said, self._language = CommittedText(), ""
        self._sounds: dict[int, Mapping[str, Any]] = {}
        self._alerts: dict[int, Mapping[str, Any]] = {}

    def step(self, event: Mapping[str, Any]) -> list[Message]:
        """What is new: `transcript-start` with the first committed words, `transcript-chunk` with all."""
        match event["type"]:
            case "sound":
                self._sounds[event["id"]] = {name: event[name] for name in ("label", "start", "end", "score")}
            case "alert":
                names = ("rule", "severity", "start", "end", "score", "labels")
                self._alerts[event["id"]] = {name: event[name] for name in names}
        if event["type"] != "transcript" or not event["text"]:
            return []
        self._language = self._language or event["language"]
        begin = [] if self._said.text else [Message("transcript-start", {"language": self._language})]
        new = self._said.step(event)
        return [*begin, Message("transcript-chunk", {"text": new})] if new else []

    def finish(self) -> list[Message]:
        """The whole text, with the sounds and alerts that came along (`streamer`)."""
        heard = {"sounds": list(self._sounds.values()), "alerts": list(self._alerts.values())}
        told: dict[str, Any] = {"text": self._said.text} | ({"language": self._language} if self._language else {})
        begin = [] if self._said.text else [Message("transcript-start")]
        return [*begin, Message("transcript", told | {"streamer": heard}), Message("transcript-stop")]


class WyomingDoor:
    """Listens on a port of its own, in the server's event loop. `door`: the server's; it counts these sockets too."""

    def __init__(self, actions: Actions, follow: Follow, door: Door) -> None:
        self._actions, self._follow, self._door = actions, follow, door
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def open(self, settings: ServerSettings) -> int:
        """Listen; the port. Raises ConfigError that names the setting."""
        host, port = settings.wyoming_host, settings.wyoming_port or 0
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=MAX_LINE)
        except OSError as error:
            why = str(cannot_listen(host, port, error))
            why = why.replace("--host", "server.wyoming_host").replace("--port", "server.wyoming_port")
            raise ConfigError(why.replace(", or --no-server", "")) from None
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Take no more clients, and cut off those that are there."""
        if self._server:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer, own = writer.get_extra_info("peername"), writer.get_extra_info("socket")
        address = str(peer[0]) if isinstance(peer, tuple) else ""
        if len(self._writers) >= MAX_CONNECTIONS or self._door.refusal(address, own.fileno()) is not None:
            writer.close()
            return
        self._writers.add(writer)
        try:
            await self._talk(reader, writer)
        except (OSError, TimeoutError):
            pass
        except (MessageError, StreamerError) as error:
            with suppress(OSError, TimeoutError):
                await _send(writer, [Message("error", {"text": str(error), "code": "streamer"})])
        except Exception:
            log.exception("a Wyoming client could not be served")
        finally:
            try:
                await _close(writer)
            finally:
                self._writers.discard(writer)
                self._door.gone(address)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client until it goes away, one recording after the other. Raises MessageError, StreamerError."""
        language, sink = "", None
        teller: asyncio.Task[None] | None = None
        try:
            async for message in _messages(reader):
                match message.type:
                    case "describe":
                        await _send(writer, [self._info()])
                    case "ping":
                        await _send(writer, [Message("pong", message.data)])
                    case "transcribe":
                        language = language_of(self._actions, message.data.get("language"))
                    case "audio-start" | "audio-chunk" if sink is None:
                        sink = open_sender(self._actions, _start(message.data), language)
                        teller = asyncio.create_task(self._tell(sink.session, writer))
                        teller.add_done_callback(_note)
                        await sink.write(message.payload)
                    case "audio-chunk" if sink is not None:
                        await sink.write(message.payload)
                    case "audio-stop" if sink is not None and teller is not None:
                        sink.finish()
                        await teller
                        language, sink, teller = "", None, None
        finally:
            if sink:
                sink.finish()
            if teller:
                teller.cancel()

    async def _tell(self, session: str, writer: asyncio.StreamWriter) -> None:
        said = Transcription()
        async with aclosing(self._follow(session)) as texts:
            async for text in texts:
                await _send(writer, said.step(json.loads(text)))
        await _send(writer, said.finish())

    def _info(self) -> Message:
        facts = self._actions.model()
        about = {"attribution": {"name": "Streamer", "url": ""}, "installed": True, "version": version("streamer")}
        models = []
        if facts is not None:
            languages = {"name": facts.name, "description": facts.name, "languages": sorted(facts.languages)}
            models.append(about | languages)
        program = {
            "name": "streamer",
            "description": "Captions, sounds and alerts from one pass of a Whisper encoder",
            "models": models,
            "supports_transcript_streaming": True,
        }
        return Message("info", {"asr": [about | program]})


async def _messages(reader: asyncio.StreamReader) -> AsyncIterator[Message]:
    while True:
        async with asyncio.timeout(IDLE_S):
            message = await read_message(reader)
        if message is None:
            return
        yield message


async def _send(writer: asyncio.StreamWriter, some: list[Message]) -> None:
    for message in some:
        writer.write(message.encoded())
    async with asyncio.timeout(STALL_S):
        await writer.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close, and cut off a client that does not take what is left for it."""
    writer.close()
    try:
        async with asyncio.timeout(STALL_S):
            await writer.wait_closed()
    except OSError:  # TimeoutError is one too
        writer.transport.abort()


def _start(data: Mapping[str, Any]) -> IngestStart:
    """What comes, by the event that begins it."""
    if data.get("width", 2) != 2:
        raise MessageError("width: must be 2: 16-bit PCM")
    try:
        return _START.validate_python({"sample_rate": data.get("rate"), "channels": data.get("channels", 1)})
    except ValidationError as error:
        raise MessageError(first_fault(error)) from None


def _note(teller: "asyncio.Task[None]") -> None:
    if not teller.cancelled() and teller.exception():
        log.debug("a Wyoming client gets no more of a session: %r", teller.exception())
