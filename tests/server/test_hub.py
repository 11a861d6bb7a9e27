"""The hub's promises, on scripted and on random interleavings of publishing, reading and subscribing."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.events import Event, Status, Tags, Transcript
from streamer.server.hub import Connection, Hub, HubLimits
from streamer.server.messages import SessionHealth, SessionInfo, Subscribe, error

INFO = {name: SessionInfo(name, "nano", None, 16_000) for name in "abcdefgh"}


def status(session: str, seq: int) -> Event:
    return Status(session=session, seq=seq, audio_t=seq / 10, state="listening")


def tags(session: str, seq: int) -> Event:
    return Tags(session=session, seq=seq, audio_t=seq / 10, start=0.0, end=1.0, tags=())


def transcript(session: str, seq: int, segment: int, final: bool = False) -> Event:
    return Transcript(
        session=session,
        seq=seq,
        audio_t=seq / 10,
        segment=segment,
        start=0.0,
        end=1.0,
        text="so far",
        partial="" if final else "more",
        final=final,
        words=(),
        language="en",
        speech_probability=1.0,
    )


def read(hub: Hub, connection: Connection) -> list[dict]:
    out: list[dict] = []
    while batch := hub.drain(connection):
        out += map(json.loads, batch)
    return out


def seqs(messages: list[dict]) -> list[int]:
    return [message["seq"] for message in messages if "seq" in message]


def test_hello_comes_first_then_live_events_only():
    hub = Hub(run="r1")
    hub.open_session(INFO["a"])
    hub.publish(status("a", 1))
    connection = hub.connect()
    hub.publish(status("a", 2))
    hello, event = read(hub, connection)
    assert hello["type"] == "hello"
    assert hello["run"] == "r1"
    (session,) = hello["sessions"]
    assert (session["session"], session["model"], session["head"]) == ("a", "nano", None)
    assert (session["sample_rate"], session["oldest_seq"], session["last_seq"]) == (16_000, 1, 1)
    assert event["seq"] == 2


def test_replay_then_live_without_anything_twice():
    hub = Hub()
    hub.open_session(INFO["a"])
    for seq in range(1, 6):
        hub.publish(status("a", seq))
    connection = hub.connect(held=True)
    hub.publish(status("a", 6))
    assert seqs(read(hub, connection)) == []
    hub.subscribe(connection, Subscribe(since_seq=2))
    hub.publish(status("a", 7))
    assert seqs(read(hub, connection)) == [3, 4, 5, 6, 7]
    hub.subscribe(connection, Subscribe(since_seq=0))
    hub.publish(status("a", 8))
    assert seqs(read(hub, connection)) == [1, 2, 8]


def test_a_number_of_an_earlier_run_gets_everything():
    hub = Hub()
    hub.open_session(INFO["a"])
    hub.publish(status("a", 1))
    connection = hub.connect()
    hub.subscribe(connection, Subscribe(since_seq=500))
    assert seqs(read(hub, connection)) == [1]


def test_widened_types_bring_only_what_was_not_sent():
    hub = Hub()
    hub.open_session(INFO["a"])
    connection = hub.connect()
    hub.subscribe(connection, Subscribe(types=frozenset({"tags"})))
    for seq in range(1, 7):
        hub.publish(tags("a", seq) if seq % 2 else status("a", seq))
    assert seqs(read(hub, connection)) == [1, 3, 5]
    hub.subscribe(connection, Subscribe(since_seq=0))
    assert seqs(read(hub, connection)) == [2, 4, 6]


def test_only_the_wanted_session_and_new_sessions_from_their_start():
    hub = Hub()
    hub.open_session(INFO["a"])
    both, only_b = hub.connect(), hub.connect()
    hub.subscribe(only_b, Subscribe(session="b"))
    hub.open_session(INFO["b"])
    for name in "ab":
        hub.publish(status(name, 1))
    assert sorted(message["session"] for message in read(hub, both) if "seq" in message) == ["a", "b"]
    assert [message["session"] for message in read(hub, only_b) if "seq" in message] == ["b"]


def test_what_the_history_lost_is_announced():
    hub = Hub(HubLimits(max_events=8))
    hub.open_session(INFO["a"])
    connection = hub.connect()
    read(hub, connection)
    for seq in range(1, 31):
        hub.publish(status("a", seq))
    gap, *events = read(hub, connection)
    assert (gap["type"], gap["kind"], gap["session"], gap["from_seq"]) == ("gap", "events", "a", 1)
    assert seqs(events) == list(range(gap["to_seq"] + 1, 31))


def test_overdue_counts_live_events_only():
    hub = Hub(HubLimits(max_behind=5))
    hub.open_session(INFO["a"])
    for seq in range(1, 11):
        hub.publish(status("a", seq))
    connection = hub.connect()
    hub.subscribe(connection, Subscribe(since_seq=0))
    assert hub.overdue() == []
    for seq in range(11, 17):
        hub.publish(status("a", seq))
    assert hub.overdue() == [connection]
    read(hub, connection)
    assert hub.overdue() == []


def test_only_the_newest_heartbeat_waits_and_notices_are_bounded():
    hub = Hub(HubLimits(max_notices=3))
    connection = hub.connect()
    for uptime in range(10):
        hub.beat(uptime, {"a": SessionHealth(0.1, 0.2)})
    assert [hub.notify(connection, error("x")) for _ in range(3)] == [True, True, False]
    out = read(hub, connection)
    assert [message["type"] for message in out] == ["hello", "error", "error", "heartbeat"]
    assert out[-1]["uptime"] == 9
    assert out[-1]["sessions"] == [{"session": "a", "last_audio_age": 0.1, "lag": 0.2}]


def test_levels_only_for_those_who_ask_by_name():
    hub = Hub()
    plain, asking = hub.connect(), hub.connect()
    hub.subscribe(asking, Subscribe(types=frozenset({"transcript", "level"})))
    hub.show_levels({"a": SessionHealth(0, 0, -20.04), "b": SessionHealth(0, 0)})
    assert [message["type"] for message in read(hub, plain)] == ["hello"]
    assert read(hub, asking)[1:] == [{"v": 1, "type": "level", "session": "a", "dbfs": -20.0}]


def test_marks_only_for_those_who_ask_by_name_also_later():
    hub = Hub()
    hub.open_session(INFO["a"])
    plain, early, late = hub.connect(), hub.connect(), hub.connect()
    hub.subscribe(early, Subscribe(types=frozenset({"alert", "marks"})))
    hub.show_marks("a", [3, 1], [])
    hub.show_marks("a", [3], [2])
    hub.show_marks("never opened", [1], [])
    hub.subscribe(late, Subscribe(types=frozenset({"marks"}), since_seq=0))
    told = {"v": 1, "type": "marks", "session": "a", "false_alarms": [3], "true_alerts": [2]}
    assert read(hub, plain)[1:] == []
    assert read(hub, early)[1:] == read(hub, late)[1:] == [told]
    hub.show_marks("a", [], [])
    assert read(hub, late) == [told | {"false_alarms": [], "true_alerts": []}]


def test_of_complete_types_everything_comes_in_order_and_once():
    hub = Hub(HubLimits(max_events=60))
    hub.open_session(INFO["a"])
    for seq in range(1, 101):
        hub.publish(tags("a", seq) if seq % 10 == 0 else status("a", seq))
    oldest = hub.hello()["sessions"][0]["oldest_seq"]
    assert oldest > 20
    connection = hub.connect(held=True)
    hub.subscribe(connection, Subscribe(since_seq=96, complete=frozenset({"tags"})))
    out = read(hub, connection)
    assert [message["type"] for message in out if "seq" not in message] == ["hello"]
    assert seqs(out) == [*(seq for seq in range(oldest, 96) if seq % 10 == 0), 97, 98, 99, 100]
    hub.publish(status("a", 101))
    assert seqs(read(hub, connection)) == [101]
    hub.subscribe(connection, Subscribe(since_seq=90))
    assert seqs(read(hub, connection)) == [91, 92, 93, 94, 95, 96]


def test_going_back_again_and_again_brings_nothing_twice():
    hub = Hub()
    hub.open_session(INFO["a"])
    connection = hub.connect()
    for seq in range(1, 50):
        hub.publish(status("a", seq))
        hub.subscribe(connection, Subscribe(since_seq=0))
        assert seqs(read(hub, connection)) == [seq]


def test_ended_sessions_are_kept_for_a_while_then_announced_as_gone():
    hub = Hub(HubLimits(max_ended_sessions=1))
    hub.open_session(INFO["a"])
    connection = hub.connect()
    read(hub, connection)
    hub.publish(status("a", 1))
    hub.close_session("a")
    hub.open_session(INFO["b"])
    hub.close_session("b")
    assert [session["session"] for session in hub.hello()["sessions"]] == ["b"]
    (gap,) = read(hub, connection)
    assert (gap["session"], gap["from_seq"], gap["to_seq"]) == ("a", 1, 1)


def test_a_name_is_used_once():
    hub = Hub()
    hub.open_session(INFO["a"])
    with pytest.raises(ValueError, match="'a'"):
        hub.open_session(INFO["a"])


TYPES = st.sampled_from([None, frozenset({"tags"}), frozenset({"transcript"}), frozenset({"status", "tags"})])
COMPLETE = frozenset({"status", "transcript"})
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from("ab"), st.sampled_from(["status", "tags", "partial", "final"])),
        st.tuples(st.just("drain"), st.integers(1, 5), st.just(None)),
        st.tuples(st.just("subscribe"), TYPES, st.one_of(st.none(), st.integers(0, 40))),
        st.tuples(st.just("complete"), TYPES, st.integers(0, 40)),
    ),
    max_size=120,
)


class Model:
    """What one client saw, and whether the protocol allows it."""

    def __init__(self) -> None:
        self.events: dict[str, dict[int, Event]] = {"a": {}, "b": {}}
        self.got: dict[str, set[int]] = {"a": set(), "b": set()}
        self.types: frozenset[str] | None = None
        self.passed: dict[str, set[int]] = {"a": set(), "b": set()}  # may have gone by while they were not wanted
        self.mark = {"a": 0, "b": 0}  # everything up to here was received, announced or not wanted
        self.began = {"a": 0, "b": 0}  # up to here only COMPLETE types are wanted

    def receive(self, message: dict) -> None:
        name = message.get("session")
        if message["type"] == "gap":
            assert message["from_seq"] > self.mark[name]
            self.check(name, message["from_seq"])
            self.mark[name] = message["to_seq"]
        elif "seq" in message:
            seq = message["seq"]
            assert seq > self.mark[name], "goes back within a subscription"
            assert seq not in self.got[name], "sent twice"
            assert self.wanted(self.events[name][seq])
            assert seq > self.began[name] or self.events[name][seq].type in COMPLETE
            self.got[name].add(seq)
            self.check(name, seq)
            self.mark[name] = seq

    def check(self, name: str, upto: int) -> None:
        """Everything between the mark and `upto` is missing for a reason."""
        for seq in range(self.mark[name] + 1, upto):
            event = self.events[name].get(seq)
            if event is None or not self.wanted(event) or seq in self.got[name] | self.passed[name]:
                continue
            if seq <= self.began[name] and event.type not in COMPLETE:
                continue
            assert self.superseded(name, event), f"event {seq} is missing without a word"

    def wanted(self, event: Event) -> bool:
        return self.types is None or event.type in self.types

    def superseded(self, name: str, event: Event) -> bool:
        return isinstance(event, Transcript) and any(
            isinstance(later, Transcript) and later.segment == event.segment and later.seq > event.seq
            for later in self.events[name].values()
        )

    def subscribe(self, types: frozenset[str] | None, since: int | None, oldest: dict[str, int] | None = None) -> None:
        for name, events in self.events.items():
            self.passed[name] |= {seq for seq, event in events.items() if not self.wanted(event)}
            if since is not None:
                self.passed[name] = set()
        self.types = types
        if since is not None:
            newest = max(max(events, default=0) for events in self.events.values())
            for name, events in self.events.items():
                self.began[name] = self.mark[name] = min(since, max(events, default=0)) if since <= newest else 0
                if oldest is not None:
                    self.mark[name] = min(self.mark[name], oldest[name] - 1)


@settings(max_examples=300, deadline=None)
@given(steps=STEPS, max_events=st.integers(3, 40))
def test_nothing_twice_nothing_missing_in_silence(steps, max_events):
    hub, model = Hub(HubLimits(max_events=max_events)), Model()
    segment = {"a": 0, "b": 0}
    for name in "ab":
        hub.open_session(INFO[name])
    connection = hub.connect()
    for verb, one, two in [*steps, ("drain", 5, None)]:
        if verb == "publish":
            seq = len(model.events[one]) + 1
            makers = {"status": status, "tags": tags}
            if two in makers:
                event = makers[two](one, seq)
            else:
                event = transcript(one, seq, segment[one], final=two == "final")
                segment[one] += two == "final"
            model.events[one][seq] = event
            hub.publish(event)
        elif verb == "drain":
            for text in hub.drain(connection, limit=one):
                model.receive(json.loads(text))
        else:
            complete = COMPLETE if verb == "complete" else frozenset()
            oldest = {item["session"]: item["oldest_seq"] for item in hub.hello()["sessions"]}
            hub.subscribe(connection, Subscribe(types=one, since_seq=two, complete=complete))
            model.subscribe(one, two, oldest if complete else None)
    for message in read(hub, connection):
        model.receive(message)
    for name, events in model.events.items():
        model.check(name, len(events) + 1)


def test_everybody_is_greeted_again_when_more_is_known_of_a_session():
    hub = Hub()
    hub.open_session(SessionInfo("a", "auto", None, 16_000))
    early = hub.connect()
    assert [json.loads(text)["sessions"][0]["model"] for text in hub.drain(early)] == ["auto"]
    hub.describe(SessionInfo("a", "base", "base_ori", 16_000, 5.0))
    (again,) = [json.loads(text) for text in hub.drain(early)]
    (session,) = again["sessions"]
    assert (again["type"], session["model"], session["head"], session["opened_at"]) == (
        "hello",
        "base",
        "base_ori",
        5.0,
    )
    (first,) = [json.loads(text) for text in hub.drain(hub.connect())]
    assert first["sessions"][0]["model"] == "base"


def test_who_follows_a_session_gets_all_of_it_and_nothing_else_and_knows_when_it_is_over():
    hub = Hub()
    for info in INFO.values():
        hub.open_session(info)
    hub.publish(status("a", 1))
    hub.publish(status("b", 1))
    following = hub.follow("a")
    hub.publish(status("a", 2))
    hub.publish(status("b", 2))
    assert [(one["session"], one["seq"]) for one in read(hub, following)] == [("a", 1), ("a", 2)]
    assert not hub.is_over("a")
    hub.publish(Status(session="a", seq=3, audio_t=1.0, state="stopped"))
    assert hub.is_over("a")
    assert not hub.is_over("b")
    hub.close_session("b")
    assert hub.is_over("b")
    assert hub.is_over("nobody")
    assert seqs(read(hub, following)) == [3]
