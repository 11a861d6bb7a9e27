"""Marks from the pages: written into the history that `streamer alerts` reads, and told to every page."""

import contextlib
import json

import pytest
from alerts_made import alert, wait_for
from websockets.sync.client import connect

from streamer.alerts.deliveries import Deliveries, open_deliveries
from streamer.alerts.delivery import NotDeliveredError
from streamer.alerts.history import AlertHistory, tune
from streamer.alerts.parcels import Parcel, parcel_key
from streamer.alerts.recorder import Recorder
from streamer.errors import UsageError
from streamer.runtime.client_actions import marking
from streamer.server.actions import Actions
from streamer.server.messages import SessionInfo
from streamer.server.websocket import ServerThread
from streamer.settings.config import ServerSettings, validate
from streamer.settings.deliveries import HistorySettings
from streamer.settings.rules import AlertRules

SESSION = alert(1).session


@pytest.fixture
def history(tmp_path):
    return AlertHistory(tmp_path / "alerts.jsonl")


def recorder(history, told=None, **settings):
    made = Recorder(history, HistorySettings(**settings), wall=lambda: 1_700_000_000.0)
    if told is not None:
        made.on_marks = lambda *marks: told.append(marks)
    return made


def write(made, *alerts):
    for number, change in enumerate(alerts, start=1):
        made.expect(change)
        made.send(Parcel(number, change, parcel_key(change), 1_700_000_000.0))


def test_a_mark_is_stored_told_used_and_taken_back(history):
    told: list[tuple] = []
    made = recorder(history, told)
    write(made, alert(4), alert(4, "cleared"), alert(5))
    made.mark(4, SESSION, false_alarm=True)
    assert history.read()[0].verdict is None, "marking must not touch the disk in the caller's thread"
    made.tick()
    assert [entry.verdict for entry in history.read()] == ["false", None]
    assert [report.false for report in tune(history.read(), AlertRules.default())] == [1]
    made.mark(4, None, false_alarm=False)
    made.tick()
    assert [entry.verdict for entry in history.read()] == [None, None]
    assert told == [(SESSION, [4], []), (SESSION, [], [])]


def test_what_was_said_is_kept_where_it_is_asked_for(history, tmp_path):
    name = alert(2, rule="name", labels=("Ada",))
    quiet = Recorder(history, HistorySettings(), spoken={"name"})
    write(quiet, alert(1), name)
    assert [(entry.first.text, entry.first.labels) for entry in history.read()] == [("", ("Siren",)), ("", ())]
    assert "Ada" not in history.path.read_text()
    full = AlertHistory(tmp_path / "full.jsonl")
    write(recorder(full, include_text=True), alert(1), name)
    assert [entry.first for entry in full.read()] == [alert(1), name]


@pytest.mark.parametrize(("record", "kept"), [("live", ["live"]), ("always", ["live", "file", "demo"])])
def test_what_a_file_holds_is_kept_and_can_be_marked_only_where_it_is_asked_for(tmp_path, record, kept):
    data = {"delivery": {"history": {"path": str(tmp_path / "alerts.jsonl"), "record": record}}}
    deliveries = open_deliveries(validate(data), live=True)
    deliveries.start()
    deliveries.put([alert(id, source=source) for id, source in enumerate(("live", "file", "demo"), 1)])
    for id in range(1, 4):
        with pytest.raises(LookupError, match="no alert") if id > len(kept) else contextlib.nullcontext():
            deliveries.recorder.mark(id, SESSION, false_alarm=True)
    assert deliveries.stop(10)
    assert [entry.first.source for entry in AlertHistory(tmp_path / "alerts.jsonl").read()] == kept


def test_the_last_of_several_marks_counts_and_unknown_alerts_are_refused(history):
    made = recorder(history)
    with pytest.raises(LookupError, match="session None has no alert 4"):
        made.mark(4, None, false_alarm=True)
    write(made, alert(4))
    for false_alarm in (True, False, True):
        made.mark(4, SESSION, false_alarm=false_alarm)
    made.close()
    assert history.read()[0].verdict == "false"
    for id, session in ((5, SESSION), (4, "x" * 200)):
        with pytest.raises(LookupError, match="has no alert"):
            made.mark(id, session, false_alarm=True)


def test_a_mark_waits_for_its_alert_and_for_the_disk(history, monkeypatch):
    made = recorder(history)
    made.expect(alert(4))
    made.mark(4, SESSION, false_alarm=True)
    made.tick()
    write(made, alert(4))
    monkeypatch.setattr(history, "add_mark", lambda *given: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(NotDeliveredError, match="No space left"):
        made.tick()
    monkeypatch.undo()
    made.tick()
    assert history.read()[0].verdict == "false"


def test_marks_of_other_programs_are_told_also_after_the_file_was_made_anew(history):
    told: list[tuple] = []
    made = recorder(history, told)
    AlertHistory(history.path).append(alert(9, session="another program's"), 1.0)
    write(made, alert(4), alert(6))
    other = AlertHistory(history.path)
    other.mark(1, "false", 2.0)
    other.mark(2, "true", 2.0)
    other.mark(3, "false", 2.0)
    made.tick()
    assert told == [(SESSION, [6], [4])]
    made.tick()
    assert len(told) == 1
    text = history.path.read_text()
    anew = history.path.with_suffix(".new")
    anew.write_text("".join(line for line in text.splitlines(keepends=True) if '"number":1,' not in line))
    anew.replace(history.path)
    other.mark(2, None, 3.0)
    made.tick()
    assert told[1:] == [(SESSION, [6], [])]


def test_taking_back_a_mark_keeps_no_alert_longer(tmp_path, caplog):
    history = AlertHistory(tmp_path / "alerts.jsonl", max_bytes=3000)
    for number in (1, 2):
        history.append(alert(number), 1.0)
        history.mark(number, "false", 1.0)
    history.mark(1, None, 1.0)
    for number in range(3, 9):
        history.append(alert(number), 1.0)
    kept = [entry.number for entry in history.read()]
    assert 2 in kept
    assert 1 not in kept
    with pytest.raises(UsageError, match="no alert 1 "):
        history.mark(1, None, 1.0)


def test_marking_again_and_again_costs_no_alert_its_place(tmp_path, caplog):
    history = AlertHistory(tmp_path / "alerts.jsonl", max_bytes=4000)
    for number in range(1, 6):
        history.append(alert(number), 1.0)
    for turn in range(101):
        history.add_mark(3, None if turn % 2 else "false", 1.0)
    assert [entry.number for entry in history.read()] == [1, 2, 3, 4, 5]
    assert history.read()[2].verdict == "false"
    assert history.path.stat().st_size <= 4000
    assert caplog.text == ""


def test_what_was_said_may_hold_any_character(history, caplog):
    said = "one\u2028two\x85three\nfour\x0bfive"
    history.append(alert(1, text=said), 1.0)
    assert history.read()[0].first.text == said
    assert caplog.text == ""


def wired(tmp_path) -> tuple[Deliveries, ServerThread]:
    """As `streamer run` wires them."""
    data = {"delivery": {"history": {"path": str(tmp_path / "alerts.jsonl"), "record": "always"}}}
    deliveries = open_deliveries(validate(data), live=True)
    server = ServerThread(ServerSettings(port=0), Actions(mark=marking(deliveries.recorder)))
    deliveries.recorder.on_marks = server.show_marks
    server.start()
    server.open_session(SessionInfo(SESSION, "nano", "nano_at", 16_000))
    deliveries.start()
    return deliveries, server


def receive(connection, kind):
    while True:
        message = json.loads(connection.recv(timeout=10))
        if message["type"] == kind:
            return message


def test_from_one_page_to_the_history_and_to_every_page(tmp_path):
    deliveries, server = wired(tmp_path)
    deliveries.put([alert(4), alert(4, "cleared")])
    address = f"ws://127.0.0.1:{server.port}/ws"
    with connect(address) as one, connect(f"{address}?types=alert,marks") as other:
        assert "mark" in receive(one, "hello")["capabilities"]
        for text in (
            '{"type":"mark","id":77,"false_alarm":true}',
            '{"type":"mark","session":"","id":4,"false_alarm":true}',
            f'{{"type":"mark","session":"{SESSION}","id":4,"false_alarm":true}}',
            '{"type":"ping"}',
        ):
            one.send(text)
        assert f"mark: session '{SESSION}' has no alert 77" in receive(one, "error")["detail"]
        assert "session: string should have at least 1" in receive(one, "error")["detail"]
        receive(one, "pong")
        told = receive(other, "marks")
        assert (told["session"], told["false_alarms"]) == (SESSION, [4])
        with connect(address) as late:
            late.send('{"type":"subscribe","types":["alert","marks"],"since_seq":0}')
            assert receive(late, "marks")["false_alarms"] == [4]
    wait_for(lambda: AlertHistory(tmp_path / "alerts.jsonl").read()[0].verdict == "false")
    assert deliveries.stop(10)
    server.stop()


def test_a_server_without_a_history_says_so(tmp_path):
    deliveries = open_deliveries(validate({"delivery": {"history": {"record": "never"}}}), live=True)
    server = ServerThread(ServerSettings(port=0), Actions(mark=marking(deliveries.recorder)))
    server.start()
    with connect(f"ws://127.0.0.1:{server.port}/ws") as one:
        assert "mark" not in receive(one, "hello")["capabilities"]
        one.send('{"type":"mark","id":4,"false_alarm":true}')
        assert "keeps no history" in receive(one, "error")["detail"]
        one.send('{"type":"ping"}')
        receive(one, "pong")
    server.stop()
