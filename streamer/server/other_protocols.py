"""What the other protocols for senders share: a session like those of `/ingest`, in the language that they name."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from streamer.server.access import Allowance
from streamer.server.actions import Actions, IngestSink
from streamer.server.answers import joint
from streamer.server.follow import STALL_S, Follow
from streamer.server.messages import IngestStart, MessageError, SetLanguage

MAX_WAITING = 8  # sessions whose last words are awaited; then no more is read until one is through


@dataclass(frozen=True, slots=True)
class Client:
    """One connection. `send` takes a message; `follow` gives the events of a session; `bad_messages`: are forgiven."""

    send: Callable[[str], Awaitable[None]]
    actions: Actions
    follow: Follow
    bad_messages: Allowance

    async def say(self, message: Mapping[str, Any]) -> None:
        """Send a message. Raises TimeoutError: the client does not take it."""
        async with asyncio.timeout(STALL_S):
            await self.send(json.dumps(message))


def language_of(actions: Actions, given: object) -> str:
    """The code of a language as clients name it (`en`, `en-US`); "" for none. MessageError: the model cannot do it."""
    if not isinstance(given, str | None):
        raise MessageError("language: must be a code such as en")
    code = (given or "").strip().lower().replace("_", "-").partition("-")[0]
    facts = actions.model()
    if code in ("", "auto") or facts is None:
        return ""
    if code not in facts.languages:
        raise MessageError(f"language: the model {facts.name} does not know {code[:20]!r}")
    return code


def open_sender(actions: Actions, start: IngestStart, language: str) -> IngestSink:
    """A session for a sender. Raises IngestFullError, UsageError, MessageError: the language cannot be set."""
    sink = actions.open_ingest(start)
    if language:
        try:
            actions.set_language(SetLanguage((language,), sink.session))
        except MessageError:
            sink.finish()
            raise
    return sink


class CommittedText:
    """What is committed of a session's utterances, as it grows (pure). `text`: all of it so far."""

    def __init__(self) -> None:
        self.text = ""
        self._segment, self._segment_text = -1, ""

    def step(self, transcript: Mapping[str, Any]) -> str:
        """Take a `transcript` event; the new text, with the space before it."""
        if transcript["segment"] != self._segment:
            self._segment, self._segment_text = transcript["segment"], ""
        new = transcript["text"][len(self._segment_text) :]
        if new and self.text and not self._segment_text:
            new = joint(transcript["language"]) + new
        self._segment_text, self.text = transcript["text"], self.text + new
        return str(new)
