"""For programs that read a Streamer's events or send it sound: needs websockets and nothing else of what it runs on."""

from streamer.client.connection import Client, RefusedError
from streamer.client.ingest import Ingest
from streamer.client.records import (
    Error,
    EventsGap,
    Health,
    Heartbeat,
    Hello,
    LanguageSet,
    Level,
    Marks,
    Message,
    Pong,
    SessionInfo,
    Started,
    Taught,
    Unknown,
    parse,
)

__all__ = [
    "Client",
    "Error",
    "EventsGap",
    "Health",
    "Heartbeat",
    "Hello",
    "Ingest",
    "LanguageSet",
    "Level",
    "Marks",
    "Message",
    "Pong",
    "RefusedError",
    "SessionInfo",
    "Started",
    "Taught",
    "Unknown",
    "parse",
]
