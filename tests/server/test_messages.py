import json

import pytest

from streamer.server import messages
from streamer.server.messages import (
    Ack,
    Flush,
    Learn,
    Mark,
    MessageError,
    Ping,
    SetLanguage,
    Subscribe,
    parse,
    subscribe_from_query,
)


def test_what_clients_may_say():
    assert parse('{"type":"ping"}') == Ping()
    assert parse('{"type":"flush"}') == Flush()
    assert parse('{"type":"ack","id":3,"session":"a"}') == Ack(3, "a")
    wish = parse('{"type":"subscribe","types":["tags","alert","nonsense"],"session":null,"since_seq":0}')
    assert wish == Subscribe(frozenset({"tags", "alert"}), None, 0, ("nonsense",))
    assert parse('{"type":"subscribe"}') == Subscribe()
    whole = parse('{"type":"subscribe","types":["tags","marks"],"since_seq":9,"complete":["alert","level","x"]}')
    assert whole == Subscribe(frozenset({"tags", "marks"}), None, 9, ("x",), frozenset({"alert"}))
    assert parse('{"type":"mark","session":"a","id":3,"false_alarm":true}') == Mark(3, "a", True)
    assert parse('{"type":"mark","id":0,"false_alarm":false,"why":"a whistle"}') == Mark(0, None, False)
    assert parse('{"type":"set","session":"a","language":"German"}') == SetLanguage("a", ("german",))
    assert parse('{"type":"set","language":"en, de,en"}') == SetLanguage(None, ("en", "de"))
    for anything in ('"auto"', "null", "[]"):
        assert parse('{"type":"set","language":' + anything + "}") == SetLanguage(None, ())


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
        ('{"type":"set"}', "language: must be a language such as en"),
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
        with pytest.raises(ValueError, match="must be"):
            subscribe_from_query(bad)


def test_connection_messages_carry_no_seq_and_survive_any_text():
    for message in [
        messages.error("\ud800"),
        messages.pong(),
        messages.hello([], "r"),
        messages.heartbeat(1, {}),
        messages.marks("a", [2], []),
    ]:
        assert "seq" not in message
        assert "audio_t" not in message
        assert json.loads(messages.encode(message).encode())["v"] == 1


def test_moments_to_learn_from_are_the_last_seconds_or_between_two_times():
    assert parse('{"type":"learn","name":"my bell","seconds":4}') == Learn("my bell", None, None, 4.0)
    timed = parse('{"type":"learn","name":"my bell","session":"a","start":10.5,"end":12}')
    assert timed == Learn("my bell", "a", 10.5, 12.0)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ('"name":"<b>","seconds":4', "name: must be 1 to 40"),
        ('"seconds":4', "name: must be 1 to 40"),
        ('"name":"x","seconds":0', "seconds: must be seconds from 0.3 to 30"),
        ('"name":"x","seconds":true', "seconds: must be"),
        ('"name":"x","start":10,"end":10', "end: must be seconds from 10.3 to 40"),
        ('"name":"x","start":-1,"end":1', "start: must be"),
        ('"name":"x"', "start: must be"),
    ],
)
def test_other_moments_are_refused(fields, says):
    with pytest.raises(MessageError, match=says):
        parse('{"type":"learn",' + fields + "}")
