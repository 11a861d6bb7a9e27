"""The protocol's documents are what the program's records make, and what the program says holds to them."""

import copy
import json
import sys
from pathlib import Path

import pytest
import yaml
from program import ROOT

sys.path.append(str(ROOT / "docs"))
import protocol_schema

from streamer.client.records import Unknown, parse
from streamer.events import Alert, Gap, Tag
from streamer.server import messages
from streamer.server.hub import Hub
from streamer.server.messages import MessageError, SessionHealth, SessionInfo, Taught

jsonschema = pytest.importorskip("jsonschema")
sys.path.append(str(Path(__file__).parent / "web"))
from scene import minute  # noqa: E402

EXAMPLES = protocol_schema.examples_of((ROOT / "docs" / "protocol.md").read_text("utf-8"))


@pytest.fixture(scope="module")
def strict():
    """Validators by name of a definition; unknown fields, which clients must ignore, are faults here."""
    made = copy.deepcopy(protocol_schema.schema())
    for one in made["$defs"].values():
        if one.get("type") == "object":
            one["additionalProperties"] = False
    jsonschema.Draft202012Validator.check_schema(made)
    return lambda name: jsonschema.Draft202012Validator({**made, "$ref": f"#/$defs/{name}"})


def test_the_files_are_what_the_records_make():
    for path, text in protocol_schema.texts().items():
        assert path.read_text("utf-8") == text, "run python docs/protocol_schema.py"


def test_all_that_asyncapi_refers_to_is_there():
    described = yaml.safe_load(protocol_schema.ASYNCAPI.read_text("utf-8"))
    made = json.loads(protocol_schema.SCHEMA.read_text("utf-8"))
    waiting, count = [described], 0
    while waiting:
        one = waiting.pop()
        waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list) else []
        if isinstance(one, dict) and "$ref" in one:
            file, _, path = one["$ref"].partition("#/")
            place = made if file else described
            for step in path.split("/"):
                place = place[step]
            count += 1
    assert count > 50


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda one: one["type"])
def test_the_examples_hold(strict, message):
    strict(protocol_schema.named(message)).validate(message)
    if "v" in message:
        strict("FromServer").validate(message)
        assert not isinstance(parse(json.dumps(message)), Unknown)
    elif message["type"] == "start":
        messages.parse_start(json.dumps(message))
    elif message["type"] != "stop":
        messages.parse(json.dumps(message))


def test_every_message_has_an_example():
    shown = {protocol_schema.named(message) for message in EXAMPLES}
    rare = {"Level", "Marks", "LanguageSet", "ProgramSet", "Pong"}
    assert shown | rare == set(protocol_schema._said())


def test_events_hold_and_are_read_back(strict):
    heard = (Tag(0, "Speech", 0.5),)
    alert = {"session": "s", "seq": 9, "audio_t": 1.0, "id": 1, "rule": "r", "severity": "info", "state": "raised"}
    alert |= {"start": 0.0, "end": None, "score": 0.5, "labels": ("Speech",), "heard": heard, "text": ""}
    some = [
        *minute(),
        Alert(**alert, source="test"),
        Gap(session="s", seq=1, audio_t=1.0, start=0.0, end=1.0, reason=""),
    ]
    assert {event.type for event in some} == {"status", "transcript", "tags", "sound", "alert", "gap"}
    for event in some:
        strict("SessionEvent").validate(json.loads(event.to_json()))
        assert parse(event.to_json()) == event


def test_what_the_server_says_of_itself_holds_and_is_read(strict):
    hub = Hub()
    hub.open_session(SessionInfo("kitchen", "nano", None, 16_000, 1.5))
    health = {"kitchen": SessionHealth(0.5, 0.1, -40.0)}
    said = [hub.hello(), messages.heartbeat(5.0, health), messages.level("kitchen", -40.0), messages.error("no")]
    said += [messages.marks("kitchen", [1], [2]), messages.started("kitchen"), messages.pong()]
    said += [
        messages.events_gap("kitchen", 1, 2, "slow"),
        messages.language_set(messages.SetLanguage(("de",), "kitchen")),
    ]
    said += [messages.taught(Taught("bell", 3, 3, learned=False, trouble="clip 1 of 3: no", unlike=1))]
    for message in said:
        strict("FromServer").validate(message)
        record = parse(json.dumps(message))
        assert not isinstance(record, Unknown)
        assert record.type == message["type"]


@pytest.mark.parametrize(
    "said",
    [
        {"type": "subscribe", "types": "alert"},
        {"type": "subscribe", "since_seq": -1},
        {"type": "ack"},
        {"type": "mark", "id": 1, "false_alarm": "yes"},
        {"type": "set"},
        {"type": "teach"},
        {"type": "teach", "name": "bell", "start": -1},
        {"type": "dance"},
        {"type": "flush", "session": ""},
    ],
)
def test_what_the_server_refuses_the_schema_does_too(strict, said):
    with pytest.raises(MessageError):
        messages.parse(json.dumps(said))
    assert not strict("ToWs").is_valid(said)


@pytest.mark.parametrize("start", [{"sample_rate": 100}, {}, {"sample_rate": 8000, "channels": 9}])
def test_a_start_that_is_refused_is_none_for_the_schema(strict, start):
    with pytest.raises(MessageError):
        messages.parse_start(json.dumps({"type": "start", **start}))
    assert not strict("ToIngest").is_valid({"type": "start", **start})


def test_what_is_new_is_no_trouble():
    event = json.loads(next(iter(minute())).to_json())
    assert parse(json.dumps(event | {"mood": "good"})) == next(iter(minute()))
    for odd in (event | {"type": "scene"}, {**event, "audio_t": "soon"}, {"v": 1, "type": "weather"}, {"type": 3}):
        record = parse(json.dumps(odd))
        assert isinstance(record, Unknown)
        assert record.fields == odd
