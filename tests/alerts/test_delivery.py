"""The queue's rules as a state machine, and the threads around it with fake targets."""

import json
import logging
import threading
from collections import Counter

import pytest
from alerts_made import Sink, alert, busy, told, wait_for
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.alerts.delivery import Delivery, NotDeliveredError, RefusedError
from streamer.alerts.parcels import AlertQueue, Parcel, Spool, parcel_key, read_alert
from streamer.errors import ConfigError, Rests
from streamer.settings.deliveries import CommandSettings

FAST = Rests(first_s=0.001, longest_s=0.01)
SEVERITIES = ("info", "warning", "critical")


def parcel(number, id=1, state="raised", **fields):
    made = alert(id, state, **fields)
    return Parcel(number, made, parcel_key(made), float(number))


def test_an_alert_survives_its_json():
    for state in ("raised", "cleared"):
        made = alert(3, state)
        assert read_alert(json.loads(made.to_json())) == made


def test_keys_are_the_same_for_the_same_change_only():
    assert parcel_key(alert(7, "raised")) == "s1-20261123T040000:7:raised"
    assert parcel_key(alert(7, "updated", seq=1)) != parcel_key(alert(7, "updated", seq=2))
    assert parcel_key(alert(7, "cleared", session="s1"), "s1-20270101T000000") == "s1-20270101T000000:7:cleared"


def test_the_most_severe_goes_first_and_an_alert_keeps_its_order():
    queue = AlertQueue(10)
    queue.put(parcel(1, 1, severity="info"))
    queue.put(parcel(2, 1, "cleared", severity="info"))
    queue.put(parcel(3, 2, severity="critical"))
    first = queue.take()
    assert (first.number, queue.take().number) == (3, 1)
    assert queue.take() is None  # the rest of alert 1 waits for its beginning
    queue.done(first)
    assert len(queue) == 2


def test_a_full_queue_first_loses_updates_then_the_oldest_info_alert_whole():
    queue = AlertQueue(4)
    for number, id, state, severity in [
        (1, 1, "raised", "info"),
        (2, 2, "raised", "critical"),
        (3, 2, "updated", "critical"),
        (4, 1, "cleared", "info"),
    ]:
        assert queue.put(parcel(number, id, state, severity=severity)) == []
    assert told(queue.put(parcel(5, 3, severity="info"))) == [(2, "updated")]
    assert told(queue.put(parcel(6, 4, severity="warning"))) == [(1, "raised"), (1, "cleared")]
    assert told(queue.put(parcel(7, 5, severity="warning"))) == []
    assert told(queue.put(parcel(8, 6, severity="info"))) == [(3, "raised")]
    assert queue.put(parcel(9, 3, "cleared", severity="info")) == []  # announced with its beginning
    assert told(list(queue._parcels.values())) == [(2, "raised"), (4, "raised"), (5, "raised"), (6, "raised")]


def test_the_end_of_a_delivered_alert_never_goes():
    queue = AlertQueue(10)
    for id in range(1, 31):
        queue.put(parcel(id, id))
        queue.done(queue.take())
    for id in range(1, 31):
        assert queue.put(parcel(100 + id, id, "cleared")) == []
    assert len(queue) == 30
    assert told(queue.put(parcel(200, 99))) == [(99, "raised")]


@st.composite
def histories(draw):
    """What an engine may emit (each alert raised, updated, cleared once), and what the service does meanwhile."""
    steps, standing, next_id = [], {}, 1
    for _ in range(draw(st.integers(1, 80))):
        kind = draw(st.sampled_from(["raise", "update", "clear", "serve", "fail", "refuse"]))
        if kind == "raise":
            standing[next_id] = draw(st.sampled_from(SEVERITIES))
            steps.append(("raised", next_id, standing[next_id]))
            next_id += 1
        elif kind in ("update", "clear") and standing:
            id = draw(st.sampled_from(sorted(standing)))
            steps.append(("updated" if kind == "update" else "cleared", id, standing[id]))
            if kind == "clear":
                del standing[id]
        elif kind in ("serve", "fail", "refuse"):
            steps.append((kind, 0, ""))
    return steps


@settings(max_examples=80, deadline=None)
@given(histories(), st.integers(1, 12))
def test_whatever_happens_ends_follow_beginnings_and_all_losses_are_said(steps, limit):
    queue, delivered, gone, put = AlertQueue(limit), [], [], []

    def serve(how):
        taken = queue.take()
        if taken is None:
            return
        if how == "serve":
            queue.done(taken)
            delivered.append(taken)
        elif how == "fail":
            queue.back(taken)
        else:
            gone.extend(queue.abandon(taken))

    for number, (kind, id, severity) in enumerate(steps, 1):
        if kind in ("serve", "fail", "refuse"):
            serve(kind)
        else:
            made = parcel(number, id, kind, severity=severity)
            put.append(made)
            gone += queue.put(made)
            delivered_ids = {item.alert.id for item in delivered if item.alert.state == "raised"}
            assert len(queue) <= limit + len(delivered_ids)
    while len(queue):
        serve("serve")
    states = {}
    for item in delivered:
        states.setdefault(item.alert.id, []).append(item.alert.state)
    for seen in states.values():
        assert seen[0] == "raised"
        assert seen.count("raised") == 1
        assert "cleared" not in seen[:-1]
    lost_ids = {item.alert.id for item in gone if item.alert.state == "raised"}
    assert not lost_ids & states.keys()
    refused = "refuse" in {kind for kind, _, _ in steps}
    for item in put:
        if item.alert.state in ("raised", "cleared") and item.alert.id not in lost_ids and not refused:
            assert item.alert.state in states[item.alert.id]
    assert not Counter(item.number for item in delivered) - Counter(item.number for item in put)


def test_a_target_that_fails_gets_everything_later_in_order(caplog):
    sink = Sink()
    sink.failing = busy()
    delivery = Delivery(sink, limit=10, rests=FAST)
    delivery.start()
    for id in (1, 2):
        delivery.put(alert(id))
        delivery.put(alert(id, "cleared"))
    wait_for(lambda: len(sink.tried) > 3)
    assert sink.got == []
    sink.failing = None
    wait_for(lambda: delivery.waiting == 0)
    delivery.finish()
    assert delivery.join(5)
    assert sink.closed
    assert told(sink.got) == [(1, "raised"), (1, "cleared"), (2, "raised"), (2, "cleared")]
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert said[0].startswith("fake: not delivered: busy; trying again")
    assert said[-1].startswith("fake: delivers again")


@pytest.mark.parametrize("failing", [busy(), RefusedError("busy")])
def test_whoever_relies_on_it_is_told_that_alerts_do_not_arrive_until_one_does(failing):
    sink, said = Sink(), []
    sink.failing = failing
    delivery = Delivery(sink, limit=10, rests=FAST)
    delivery.on_trouble = said.append
    delivery.start()
    delivery.put(alert(1))
    wait_for(lambda: len(sink.tried) > (3 if isinstance(failing, NotDeliveredError) else 0) and said)
    assert said == ["busy"]  # once, however often it is tried
    sink.failing = None
    delivery.put(alert(2))
    wait_for(lambda: said == ["busy", ""])
    delivery.finish()
    assert delivery.join(5)


def test_what_a_tick_cannot_refresh_is_told_and_no_success_of_another_kind_hides_it():
    sink, said = Sink(), []
    sink.tick_s = 0.01
    sink.tick = lambda: (_ for _ in ()).throw(NotDeliveredError("the broker is not there"))
    delivery = Delivery(sink, limit=10, rests=FAST)
    delivery.on_trouble = said.append
    delivery.start()
    wait_for(lambda: said)
    delivery.put(alert(1))
    wait_for(lambda: delivery.waiting == 0)
    assert said == ["the broker is not there"]
    sink.tick = lambda: None
    wait_for(lambda: said[-1] == "")
    delivery.finish()
    assert delivery.join(5)


def test_a_sender_that_fails_of_itself_is_started_again(caplog):
    sink, said, starts = Sink(), [], []

    def start():
        starts.append(len(starts))
        if len(starts) < 3:
            raise RuntimeError("can't start new thread")

    sink.start = start
    delivery = Delivery(sink, limit=10)
    delivery.on_trouble = said.append
    delivery.start()
    delivery.put(alert(1))
    wait_for(lambda: sink.got)
    wait_for(lambda: said[-1] == "")
    assert said[0].startswith("unexpected RuntimeError in ")
    assert caplog.text.count("it is started again in") == 2
    delivery.finish()
    assert delivery.join(5)


def test_a_sender_that_fails_of_itself_does_not_hold_up_the_end():
    sink = Sink()
    sink.start = lambda: (_ for _ in ()).throw(RuntimeError("no"))
    delivery = Delivery(sink, limit=10)
    delivery.start()
    delivery.put(alert(1))
    delivery.finish()
    assert delivery.join(5)
    assert delivery.waiting == 1


def test_a_target_that_hangs_delays_no_other_and_put_never_waits():
    hanging, quick = Sink("hanging"), Sink("quick")
    hanging.open.clear()
    both = [Delivery(sink, limit=10, rests=FAST) for sink in (hanging, quick)]
    for delivery in both:
        delivery.start()
    for id in range(1, 30):
        for state in ("raised", "cleared"):
            for delivery in both:
                delivery.put(alert(id, state))
        wait_for(lambda id=id: len(quick.got) == 2 * id)
    assert hanging.got == []
    assert both[0].waiting <= 11
    assert both[0].dropped > 0
    hanging.open.set()
    for delivery in both:
        delivery.finish()
        assert delivery.join(5)
    assert told(quick.got) == [(id, state) for id in range(1, 30) for state in ("raised", "cleared")]
    assert hanging.got[0].alert.state == "raised"


class HourLong(Rests):
    """Pauses of an hour whatever happened; the first one would be none."""

    def rest_s(self, failures, chance=1.0, asked_s=None):
        return 3600.0


@pytest.mark.parametrize("asked_s", [None, 3600.0])
def test_a_new_critical_alert_is_tried_at_once_unless_the_service_asked_for_peace(asked_s):
    sink = Sink()
    sink.failing = NotDeliveredError("busy", asked_s)
    delivery = Delivery(sink, limit=100, rests=HourLong(first_s=0.0))
    delivery.start()
    delivery.put(alert(1, severity="warning"))
    wait_for(lambda: delivery._failures == 1)
    sink.failing = None
    delivery.put(alert(2, severity="warning"))
    delivery.put(alert(3, "cleared"))
    delivery.put(alert(4))
    if asked_s is None:
        wait_for(lambda: len(sink.got) == 4)
        assert sink.got[0].alert.id in (3, 4)
    else:
        assert sink.got == []
    delivery.finish()
    assert delivery.join(20)


def test_what_is_dropped_is_said(caplog):
    sink = Sink()
    sink.open.clear()
    delivery = Delivery(sink, limit=10)
    delivery.start()
    delivery.put(alert(1))
    assert sink.entered.wait(5)
    for id in range(2, 12):
        delivery.put(alert(id, severity="info", rule="dog"))
    assert [record.message for record in caplog.records] == [
        "fake: info alert dog raised is not delivered: too many wait"
    ]
    sink.open.set()
    delivery.finish()
    assert delivery.join(5)
    assert delivery.dropped == 1


def test_a_refused_beginning_takes_its_end_along():
    sink = Sink()
    sink.failing = RefusedError("it wants no alerts")
    delivery = Delivery(sink, limit=10, rests=FAST)
    delivery.start()
    delivery.put(alert(1))
    wait_for(lambda: delivery.waiting == 0)
    sink.failing = None
    delivery.put(alert(1, "cleared"))
    delivery.put(alert(2))
    wait_for(lambda: sink.got)
    delivery.finish()
    assert delivery.join(5)
    assert told(sink.got) == [(2, "raised")]


def test_a_fault_of_our_own_does_not_block_the_others_and_shows_no_address(caplog):
    sink = Sink()
    sink.failing = ValueError("https://secret@example.org")
    delivery = Delivery(sink, limit=10, rests=FAST)
    delivery.start()
    delivery.put(alert(1))
    wait_for(lambda: delivery.waiting == 0)
    assert len(sink.tried) == 3
    sink.failing = None
    delivery.put(alert(2))
    wait_for(lambda: sink.got)
    delivery.finish()
    assert delivery.join(5)
    assert "unexpected ValueError in Sink.send" in caplog.text
    assert "secret" not in caplog.text


def test_old_alerts_are_given_up():
    now = [100.0]
    sink = Sink()
    sink.failing = busy()
    delivery = Delivery(sink, limit=10, rests=FAST, give_up_s=60, wall=lambda: now[0])
    delivery.start()
    delivery.put(alert(1))
    wait_for(lambda: sink.tried)
    now[0] = 200.0
    wait_for(lambda: delivery.waiting == 0)
    delivery.finish()
    assert delivery.join(5)
    assert (sink.got, delivery.dropped) == ([], 1)


def test_several_senders_keep_the_order_of_each_alert():
    sink = Sink()
    sink.open.clear()
    delivery = Delivery(sink, limit=100, senders=3)
    delivery.start()
    for id in (1, 2):
        for state in ("raised", "updated", "cleared"):
            delivery.put(alert(id, state))
    wait_for(lambda: len(sink.tried) == 2)
    assert sorted(told(sink.tried)) == [(1, "raised"), (2, "raised")]
    sink.open.set()
    delivery.finish()
    assert delivery.join(5)
    for id in (1, 2):
        assert [state for other, state in told(sink.got) if other == id] == ["raised", "updated", "cleared"]


def test_the_end_comes_although_the_target_hangs(caplog):
    sink = Sink()
    sink.open.clear()
    delivery = Delivery(sink, limit=10)
    delivery.start()
    delivery.put(alert(1))
    assert sink.entered.wait(5)
    delivery.finish()
    assert not delivery.join(0.05)
    assert "1 alerts were not delivered; they are lost" in caplog.text
    sink.open.set()
    assert delivery.join(5)


def test_states_are_said_again():
    sink = Sink()
    sink.tick_s = 0.001
    delivery = Delivery(sink, limit=10)
    delivery.start()
    wait_for(lambda: sink.ticks > 2)
    delivery.finish()
    assert delivery.join(5)


def test_what_is_wanted():
    wanted = CommandSettings(name="lamp", argv=["lamp"], min_severity="warning", rules=["siren"]).wants
    assert wanted(alert(1))
    assert wanted(alert(1, "cleared"))
    assert not wanted(alert(1, severity="info"))
    assert not wanted(alert(1, rule="dog"))
    assert not wanted(alert(1, "updated"))


@settings(deadline=None)
@given(st.integers(1, 200), st.floats(0, 1), st.none() | st.floats(0, 1e6))
def test_pauses_grow_to_their_limit(failures, chance, asked):
    pause = Rests(first_s=1, longest_s=30).rest_s(failures, chance, asked)
    assert 0.5 <= pause <= 30
    assert pause >= min(30, 2.0 ** min(failures - 1, 30)) / 2
    assert asked is None or pause >= min(asked, 30)


def spooled(path, sink, **more):
    return Delivery(sink, limit=100, rests=FAST, spool=Spool(path, "house"), **more)


def test_what_was_not_delivered_is_delivered_by_the_next_run(tmp_path, caplog):
    first = Sink()
    first.failing = busy()
    delivery = spooled(tmp_path, first)
    delivery.start()
    for state in ("raised", "updated", "cleared"):
        delivery.put(alert(1, state))
    delivery.put(alert(2, severity="info"))
    wait_for(lambda: first.tried)
    delivery.finish()
    assert delivery.join(5)
    assert "4 alerts were not delivered; they stay on disk" in caplog.text
    assert len(list((tmp_path / "house").glob("*.json"))) == 4
    second = Sink()
    delivery = spooled(tmp_path, second)
    delivery.put(alert(3, session="s1-later", severity="info"))  # may come before the threads are there
    delivery.start()
    wait_for(lambda: delivery.waiting == 0)
    delivery.finish()
    assert delivery.join(5)
    assert told(second.got)[:4] == [(1, "raised"), (1, "updated"), (1, "cleared"), (2, "raised")]
    assert told(second.got)[4:] == [(3, "raised")]
    assert {item.key for item in second.got} >= {item.key for item in first.tried}
    assert list((tmp_path / "house").glob("*.json")) == []


def test_a_killed_process_loses_nothing_that_was_put(tmp_path):
    """The disk holds what waits while the sender hangs; the lock goes with the process."""
    sink = Sink()
    sink.open.clear()
    spool = Spool(tmp_path, "house")
    delivery = Delivery(sink, limit=100, spool=spool)
    delivery.start()
    for id in range(1, 6):
        delivery.put(alert(id))
    wait_for(lambda: len(list((tmp_path / "house").glob("*.json"))) == 5)
    spool.close()  # as the death of the process does
    again = Spool(tmp_path, "house")
    assert told(again.left()) == [(id, "raised") for id in range(1, 6)]
    again.close()
    sink.open.set()
    delivery.finish()
    delivery.join(5)


def test_two_processes_have_folders_of_their_own_and_the_next_takes_over(tmp_path):
    first, second = Spool(tmp_path, "house"), Spool(tmp_path, "house")
    first.keep(parcel(1, 1))
    second.keep(parcel(1, 2))
    second.close()
    first.close()
    third = Spool(tmp_path, "house")
    assert told(third.left()) == [(1, "raised"), (2, "raised")]
    third.close()


def test_a_damaged_file_stays_aside_and_is_said(tmp_path, caplog):
    spool = Spool(tmp_path, "house")
    for number in (1, 2):
        spool.keep(parcel(number, number))
    (tmp_path / "house" / "000000000001.json").write_text('{"key": ')
    (tmp_path / "house" / "000000000003.json").write_text('{"event": {"type": "tags"}}')
    assert told(spool.left()) == [(2, "raised")]
    assert caplog.text.count("stays aside") == 2
    assert len(list((tmp_path / "house").glob("*.bad"))) == 2
    spool.close()


def test_the_spool_is_bounded_by_the_queue_and_for_this_user_only(tmp_path):
    sink = Sink()
    sink.open.clear()
    delivery = Delivery(sink, limit=10, spool=Spool(tmp_path, "house"))
    delivery.start()
    for id in range(1, 50):
        delivery.put(alert(id, severity="info"))
    files = tmp_path / "house"
    wait_for(lambda: len(list(files.glob("*.json"))) == delivery.waiting)
    assert delivery.waiting <= 10
    assert (files.stat().st_mode & 0o777, next(files.glob("*.json")).stat().st_mode & 0o777) == (0o700, 0o600)
    sink.open.set()
    delivery.finish()
    assert delivery.join(5)


def test_a_folder_that_cannot_be_used_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"delivery\.spool: .*file: cannot be used: .*; name another"):
        Spool(tmp_path / "file", "house")


def test_put_from_many_threads():
    sink = Sink()
    delivery = Delivery(sink, limit=10_000)
    delivery.start()

    def work(session):
        for id in range(1, 51):
            delivery.put(alert(id, session=session))
            delivery.put(alert(id, "cleared", session=session))

    threads = [threading.Thread(target=work, args=(f"s{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    delivery.finish()
    assert delivery.join(10)
    assert len(sink.got) == 400
