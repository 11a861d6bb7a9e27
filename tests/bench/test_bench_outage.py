"""The outages for two seconds each: everything arrives in the end, once that the services are back."""

import shutil

import pytest

from streamer.bench import outage
from streamer.bench.outage_parts import Arrivals, Screen, read_push
from streamer.errors import UsageError
from streamer.measure.report import as_json
from streamer.output.terminal import TerminalView

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_two_seconds_of_everything_lose_nothing(tmp_path):
    said: list[str] = []
    plan = outage.Plan(broker_s=2, webhook_s=2, push_s=2, rate=4, lead_s=0.5, drain_s=90, hurried=True)
    result = outage.measure(plan, said.append)
    by_name = {row["channel"]: row for row in [*result["failing"], *result["healthy"]]}
    assert list(by_name) == ["mqtt", "webhook", "push", "websocket", "terminal"]
    sent = result["history"]["sent"]
    assert sent >= 16
    for name in ("webhook", "push", "websocket", "terminal"):
        row = by_name[name]
        assert (row["sent"], row["delivered"], row["lost"]) == (sent, sent, 0), name
    # What the broker confirmed just before it was killed, or before its listener was back, nobody keeps.
    assert by_name["mqtt"]["lost"] <= 4
    assert by_name["websocket"]["duplicates"] == by_name["terminal"]["duplicates"] == 0
    assert result["history"]["kept"] == sent
    assert result["dropped"] == 0
    assert by_name["webhook"]["attempts"] > sent, "the server did not fail"
    page = outage.report(result).markdown()
    assert "| push |" in page
    assert as_json(result)
    assert len(said) == 4


def test_without_mosquitto_it_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda *given, **more: None)
    with pytest.raises(UsageError, match="apt install mosquitto"):
        outage.measure(outage.Plan())


def test_every_change_is_known_by_its_line_on_the_screen():
    arrivals = Arrivals()
    view = TerminalView(Screen(arrivals))
    made = [(id, state) for id in (1, 14, 15, 899, 900, 901, 5000) for state in ("raised", "cleared")]
    for id, state in made:
        view.show(outage._alert(id, state))
    view.close()
    assert set(arrivals.times()) == set(made)


def test_a_push_without_a_number_is_nobodys():
    assert read_push(b'{"message": "hello", "type": "info"}') == (-1, "raised")
