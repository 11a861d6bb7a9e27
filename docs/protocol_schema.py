"""The protocol for programs: `python docs/protocol_schema.py` writes docs/schema/protocol.json and docs/asyncapi.yaml.

JSON Schema (2020-12) of every event and message, and what goes where over which socket as AsyncAPI 3. Both are made
from the records that the program itself uses: `streamer/events/`, `streamer/client/records.py` and what clients say in
`streamer/server/messages.py`. `tests/test_protocol_schema.py` holds the files, docs/protocol.md and events to it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from streamer.client.records import MESSAGES, EventsGap, LanguageSet, Message, ProgramSet, Started
from streamer.events import PROTOCOL_VERSION, SESSION_EVENTS, Event
from streamer.server.messages import Ack, Flush, IngestStart, Mark, Ping, SetLanguage, SetProgram, Subscribe, Teach

DOCS = Path(__file__).resolve().parent
SCHEMA, ASYNCAPI = DOCS / "schema" / "protocol.json", DOCS / "asyncapi.yaml"
CLIENT = {
    **{Subscribe: "subscribe", Ack: "ack", Mark: "mark", SetLanguage: "set", SetProgram: "set", Teach: "teach"},
    **{Ping: "ping", Flush: "flush"},
}
LANGUAGE = {
    "description": "A code or a name, several of them (also with commas in between), or `auto`.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
}
STOP = {
    "title": "IngestStop",
    "description": "A sender has no more sound.",
    "type": "object",
    "properties": {"type": {"const": "stop"}},
    "required": ["type"],
}
Json = dict[str, Any]


def schema() -> Json:
    """All messages under `$defs`; the whole is any session event, as a line of `--jsonl` is."""
    kinds: Json = {}
    for event in SESSION_EVENTS:
        _add(kinds, event.__name__, event, {"v": {"const": PROTOCOL_VERSION}, "type": {"const": event.type}})
    kinds["Alert"]["properties"]["test"] = {"const": True, "description": "Only of a test: somebody tries who is told."}
    for event in SESSION_EVENTS:
        optional = {one.name for one in fields(event) if one.metadata.get("optional")}
        kinds[event.__name__]["required"] = [
            "v",
            "type",
            *(one.name for one in fields(event) if one.name not in optional),
        ]
    for message in MESSAGES:
        _add(kinds, message.__name__, message, {"v": {"const": PROTOCOL_VERSION}, "type": {"const": message.type}})
    kinds["EventsGap"]["properties"]["kind"] = {"const": "events"}
    kinds["EventsGap"]["required"].append("kind")
    for said, name in CLIENT.items():
        _add(kinds, said.__name__, said, {"type": {"const": name}})
    _add(kinds, "IngestStart", IngestStart, {"type": {"const": "start"}})
    kinds["IngestStop"] = STOP
    kinds["SetLanguage"]["properties"]["language"] = LANGUAGE
    names = [event.__name__ for event in SESSION_EVENTS]
    groups = {
        "SessionEvent": names,
        "FromServer": [*names, *(message.__name__ for message in MESSAGES)],
        "ToWs": [said.__name__ for said in CLIENT],
        "ToIngest": ["IngestStart", "IngestStop"],
    }
    kinds |= {name: {"anyOf": [{"$ref": f"#/$defs/{one}"} for one in members]} for name, members in groups.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Streamer's event protocol, version {PROTOCOL_VERSION}",
        "description": "What it means: docs/protocol.md. Ignore types and fields that you do not know.",
        "$ref": "#/$defs/SessionEvent",
        "$defs": kinds,
    }


def _add(kinds: Json, name: str, kind: type[Any], head: Mapping[str, Json]) -> None:
    """The schema of one record, with what every message begins with; records inside it become `$defs` of their own."""
    made = TypeAdapter(kind).json_schema(ref_template="#/$defs/{model}")
    kinds |= {inner: _plain(one) for inner, one in made.pop("$defs", {}).items()}
    made = _plain(made)
    made["properties"] = {**head, **made.get("properties", {})}
    made["required"] = [*head, *made.get("required", [])]
    kinds[name] = made


def _plain(made: Json) -> Json:
    """Without titles of fields, which say nothing that their names do not; a description as one paragraph a line."""
    made["properties"] = {
        name: {key: value for key, value in one.items() if key != "title"}
        for name, one in made.get("properties", {}).items()
    }
    if "description" in made:
        made["description"] = "\n".join(part.replace("\n", " ") for part in made["description"].split("\n\n"))
    return made


def asyncapi(kinds: Mapping[str, Json], examples: Mapping[str, list[Json]]) -> Json:
    """Two sockets. `examples`: by the name of the message."""
    from_server = [event.__name__ for event in SESSION_EVENTS] + [
        message.__name__ for message in MESSAGES if message is not Started
    ]
    to_ws = [said.__name__ for said in CLIENT]
    query = {"since_seq": "events behind this number again", "types": "separated by commas", "session": "of this only"}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Streamer",
            "version": str(PROTOCOL_VERSION),
            "description": "Live captions, sounds and alerts. What the messages mean: docs/protocol.md. This file is "
            "made by docs/protocol_schema.py from the program's own records.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "localhost:8765",
                "protocol": "ws",
                "security": [{"$ref": _security(one)} for one in _WAYS],
            }
        },
        "channels": {
            "events": {
                "address": "/ws",
                "description": "Everything that is heard, for any number of readers. `hello` comes first.",
                "messages": _refs([*from_server, *to_ws]),
                "bindings": {"ws": {"query": _query(query)}},
            },
            "ingest": {
                "address": "/ingest",
                "description": "Sound from a client: `start`, binary messages of 16-bit little-endian PCM, `stop`. "
                "Where `start` asks for it, that session's events come back.",
                "messages": _refs(["IngestStart", "Sound16", "IngestStop", "Started", *from_server]),
            },
        },
        "operations": {
            "tellEvents": _operation("send", "events", from_server),
            "takeWishes": _operation("receive", "events", to_ws),
            "takeSound": _operation("receive", "ingest", ["IngestStart", "Sound16", "IngestStop"]),
            "tellSender": _operation("send", "ingest", ["Started", *from_server]),
        },
        "components": {
            "messages": {
                **{name: _message(name, kinds[name], examples.get(name, [])) for name in _said()},
                "Sound16": {
                    "title": "PCM",
                    "summary": "Whole or broken frames, at most 1 MiB a message.",
                    "contentType": "application/octet-stream",
                    "payload": {"type": "string", "format": "binary"},
                },
            },
            "securitySchemes": _WAYS,
        },
    }


_WAYS = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The server's token, where it has one."},
    "query": {"type": "httpApiKey", "name": "token", "in": "query", "description": "The same, for browsers."},
}


def _security(name: str) -> str:
    return f"#/components/securitySchemes/{name}"


def _said() -> list[str]:
    kinds: Iterable[type[Event | Message]] = (*SESSION_EVENTS, *MESSAGES)
    return [*(one.__name__ for one in kinds), *(one.__name__ for one in CLIENT), "IngestStart", "IngestStop"]


def _refs(names: list[str]) -> Json:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _operation(action: str, channel: str, names: list[str]) -> Json:
    place = f"#/channels/{channel}"
    messages = [{"$ref": f"{place}/messages/{name}"} for name in names]
    return {"action": action, "channel": {"$ref": place}, "messages": messages}


def _query(names: Mapping[str, str]) -> Json:
    return {"type": "object", "properties": {name: {"type": "string", "description": of} for name, of in names.items()}}


def _message(name: str, kind: Json, examples: list[Json]) -> Json:
    told: Json = {"name": kind["properties"]["type"]["const"], "title": name}
    told["summary"] = kind["description"].split("\n")[0]
    told["payload"] = {"$ref": f"./schema/protocol.json#/$defs/{name}"}
    return told | ({"examples": [{"payload": one} for one in examples]} if examples else {})


def examples_of(text: str) -> list[Json]:
    """The messages in the `jsonl` blocks of docs/protocol.md."""
    blocks = [part.split("\n```")[0] for part in text.split("```jsonl\n")[1:]]
    return [json.loads(line) for block in blocks for line in block.splitlines()]


def named(message: Json) -> str:
    """The schema that a message is to hold to."""
    kinds: dict[str, str] = {said.type: said.__name__ for said in (*MESSAGES, *SESSION_EVENTS)}
    sent = {name: said.__name__ for said, name in CLIENT.items()} | {"start": "IngestStart", "stop": "IngestStop"}
    kind = message["type"]
    if kind == "gap" and message["kind"] == "events":
        return EventsGap.__name__
    if kind == "set":
        answer, wish = (ProgramSet, SetProgram) if "program" in message else (LanguageSet, SetLanguage)
        return answer.__name__ if "v" in message else wish.__name__
    return kinds[kind] if "v" in message else sent[kind]


def texts() -> dict[Path, str]:
    """What the files are to hold."""
    made = schema()
    examples: dict[str, list[Json]] = {}
    for message in examples_of((DOCS / "protocol.md").read_text("utf-8")):
        examples.setdefault(named(message), []).append(message)
    head = "# Made by docs/protocol_schema.py: change the records, not this file.\n"
    described = yaml.safe_dump(asyncapi(made["$defs"], examples), sort_keys=False, allow_unicode=True, width=120)
    return {SCHEMA: json.dumps(made, indent=1, ensure_ascii=False) + "\n", ASYNCAPI: head + described}


def main() -> None:
    """Write both files."""
    for path, text in texts().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
