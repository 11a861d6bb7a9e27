import json

import pytest

from streamer.server import messages
from streamer.server.messages import (
    Ack,
    Flush,
    Mark,
    MessageError,
    Ping,
    SetLanguage,
    Subscribe,
    Teach,
    parse,
    subscribe_from_query,
)


def test_what_clients_may_say():
    assert parse('{"type":"ping"}') == Ping()
    assert parse('{"type":"flush"}') == Flush()
    assert parse('{"type":"ack","id":3,"session":"a"}') == Ack(3, "a")
    wish = parse('{"type":"subscribe","types":["tags","alert","nonsense"],"session":null,"since_seq":0}')
    assert wish == Subscribe(frozenset({"tags", "alert", "nonsense"}), None, 0)
    assert wish.unknown == ("nonsense",)
    assert parse('{"type":"subscribe"}') == Subscribe()
    whole = parse('{"type":"subscribe","types":["tags","marks"],"since_seq":9,"complete":["alert","level","x"]}')
    assert whole == Subscribe(frozenset({"tags", "marks"}), None, 9, frozenset({"alert", "level", "x"}))
    assert whole.unknown == ("x",)
    assert parse('{"type":"mark","session":"a","id":3,"false_alarm":true}') == Mark(3, True, "a")
    assert parse('{"type":"mark","id":0,"false_alarm":false,"why":"a whistle"}') == Mark(0, False)
    assert parse('{"type":"set","session":"a","language":"German"}') == SetLanguage(("german",), "a")
    assert parse('{"type":"teach","name":" my  bell ","start":7}') == Teach("my bell", start=7.0)
    assert parse('{"type":"set","language":"en, de,en"}') == SetLanguage(("en", "de"))
    for anything in ('"auto"', "null", "[]"):
        assert parse('{"type":"set","language":' + anything + "}") == SetLanguage(())


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "JSON"),
        ("[]", "JSON"),
        ("[" * 60_000, "JSON"),
        (b"\x00", "binary"),
        ('{"type":"dance"}', "type"),
        ("{}", "type"),
        ('{"type":"ack"}', "id"),
        ('{"type":"ack","id":true}', "id"),
        ('{"type":"ack","id":-1}', "id"),
        ('{"type":"ack","id":1,"session":5}', "session"),
        ('{"type":"subscribe","since_seq":"7"}', "since_seq"),
        ('{"type":"subscribe","since_seq":1e99}', "since_seq"),
        ('{"type":"subscribe","since_seq":' + "9" * 5000 + "}", "JSON"),
        ('{"type":"subscribe","types":"tags"}', "types"),
        ('{"type":"subscribe","types":[1]}', "types"),
        ('{"type":"subscribe","complete":"alert"}', "complete"),
        ('{"type":"mark","id":1}', "false_alarm"),
        ('{"type":"mark","id":1,"false_alarm":"true"}', "false_alarm"),
        ('{"type":"mark","id":1,"false_alarm":1}', "false_alarm"),
        ('{"type":"set"}', "language: field required"),
        ('{"type":"teach"}', "name: field required"),
        ('{"type":"teach","name":"../x"}', "name"),
        ('{"type":"teach","name":"bell","start":-1}', "start"),
        ('{"type":"teach","name":"bell","ago":NaN}', "ago"),
        ('{"type":"teach","name":"bell","undo":1}', "undo"),
        ('{"type":"teach","name":"bell","undo":true,"clip":0}', "clip"),
        ('{"type":"set","language":7}', "language"),
        ('{"type":"set","language":"en,auto"}', "language"),
        ('{"type":"set","language":"d3"}', "language"),
        ('{"type":"set","language":["en",null]}', "language"),
        ('{"type":"set","session":7,"language":"en"}', "session"),
        ('{"type":"mark","id":1.5,"false_alarm":true}', "id"),
        ('{"type":"mark","id":1,"session":"","false_alarm":true}', "session"),
        ('{"type":"mark","id":1,"session":"' + "x" * 201 + '","false_alarm":true}', "session"),
    ],
)
def test_what_cannot_be_used_is_named(text, field):
    with pytest.raises(MessageError, match=field):
        parse(text)


def test_subscription_in_the_address():
    assert subscribe_from_query("token=x") is None
    assert subscribe_from_query("since_seq=5&types=alert,%20tags&session=a") == Subscribe(
        frozenset({"alert", "tags"}), "a", 5
    )
    for bad in ["since_seq=-1", "since_seq=x", "since_seq=99999999999999999", "session=" + "x" * 999, "since_seq=²"]:
        with pytest.raises(ValueError, match="since_seq: must be" if "since" in bad else "session: "):
            subscribe_from_query(bad)


def test_connection_messages_carry_no_seq_and_survive_any_text():
    for message in [
        messages.error("\ud800"),
        messages.hello([], "r"),
        messages.heartbeat(1, {}),
        messages.marks("a", [2], []),
    ]:
        assert "seq" not in message
        assert "audio_t" not in message
        assert json.loads(messages.encode(message).encode())["v"] == 1
