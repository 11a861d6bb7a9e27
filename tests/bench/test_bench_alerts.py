import json

import numpy as np
import pytest
from tiny_data import write_wav

from streamer.bench import alerts
from streamer.commands.cli import main
from streamer.events import SAMPLE_RATE, Alert
from streamer.measure.recordings import AFTER_S, BEFORE_S, Recording
from streamer.recipes.synthesis.sounds import ALARMS, DEVELOPMENT
from streamer.settings.config import Settings


def alert(rule, audio_t, severity="critical", state="raised"):
    return Alert(
        session="s", seq=1, audio_t=audio_t, id=1, rule=rule, severity=severity, state=state,
        start=audio_t, end=None, score=0.9, labels=("Siren",), heard=(), text="",
    )  # fmt: skip


@pytest.fixture
def raises(monkeypatch):
    """What every stream raises; and how many samples each was given."""
    events, given = [], []

    class Stream:
        def __init__(self, model, settings):
            given.append(0)

        def push(self, samples):
            given[-1] += len(samples)
            return []

        def finish(self):
            return list(events)

    monkeypatch.setattr(alerts, "Stream", Stream)
    return events, given


def recording(tmp_path, group="sounds/siren", seconds=2.0, rules=()):
    write_wav(tmp_path / "a.wav", np.zeros(round(seconds * SAMPLE_RATE)))
    return Recording("a.wav", tmp_path / "a.wav", group, None, "", alert=rules)


def heard(found, group="sounds/siren", seconds=1800.0, wanted="siren", wrong=()):
    raised = [alerts.Raised(rule, severity, at_s, 0.9, ()) for rule, severity, at_s in found]
    false = tuple(one for one in raised if one.rule in wrong)
    return alerts.Heard("a.wav", group, seconds, wanted, tuple(raised), false)


@pytest.mark.parametrize(("count", "bound"), [(0, 2.996), (1, 4.744), (5, 10.513)])
def test_the_poisson_bound_is_the_tabulated_one(count, bound):
    assert alerts.poisson_bound(count) == pytest.approx(bound, abs=0.001)


def test_a_recording_is_heard_in_a_quiet_room_and_timed_from_its_start(tmp_path, raises):
    events, given = raises
    events += [alert("siren", 4.5), alert("siren", 9.0, state="cleared"), alert("dog", 5.0, "info")]
    events += [alert("silence", 6.0, "info"), alert("car_horn", 7.0, "info")]
    found = alerts.listen(None, Settings(), recording(tmp_path), ["siren", "car_horn"])
    assert given == [round((BEFORE_S + 2 + AFTER_S) * SAMPLE_RATE)]
    assert (found.wanted, found.after_s, found.seconds) == ("siren", 1.5, 2.0)
    assert [one.rule for one in found.raised] == ["siren", "dog", "silence", "car_horn"]
    assert [one.rule for one in found.false] == ["dog"]


def test_long_recordings_are_cut(tmp_path, raises, monkeypatch):
    monkeypatch.setattr(alerts, "LONGEST_S", 1.0)
    assert alerts.listen(None, Settings(), recording(tmp_path), ["-"]).seconds == 1.0
    assert raises[1] == [round((BEFORE_S + 1 + AFTER_S) * SAMPLE_RATE)]


@pytest.mark.parametrize(
    ("group", "rules", "expected"),
    [
        ("sounds/siren", (), ["siren"]),
        ("sounds/neg_street", (), ["-", "siren", "car_horn", "dog"]),
        ("sounds/neg_music", (), ["-"]),
        ("talk", (), ["-"]),
        ("sounds/siren", ("-", "siren"), ["-", "siren"]),
        ("street", ("dog", "knock"), ["dog", "knock"]),
    ],
)
def test_rules_are_the_manifests_or_those_of_the_set(tmp_path, group, rules, expected):
    assert list(alerts._expected(recording(tmp_path, group, rules=rules), Settings())) == expected


def test_every_rule_of_the_table_is_one():
    known = {rule.id for rule in Settings().alerts.rules}
    assert {rule for rules in alerts.EXPECTED.values() for rule in rules.split()} <= known | {"-"}
    assert known > alerts.UNCOUNTED


def test_recall_is_by_set_and_false_alerts_are_by_the_hour():
    group = [
        heard([("siren", "critical", 1.0), ("siren", "critical", 9.0)]),
        heard([("siren", "critical", 2.0), ("dog", "info", 1.0)], wrong=["dog"]),
        heard([]),
        heard([("siren", "critical", 3.0)], "sounds/neg_music", wanted=None, wrong=["siren"]),
    ]
    found = alerts.summary(group, Settings())
    siren, music = found["sets"]
    assert (siren["rule"], siren["raised"], siren["after_p50_s"]) == ("siren", "2 of 3", 1.5)
    assert (siren["minutes"], siren["false_critical"], siren["false_others"]) == (90.0, 0, 1)
    assert (music["rule"], music["raised"], music["false_critical"]) == (None, None, 1)
    critical, others = found["severities"]
    assert (found["hours"], critical["false"], critical["per_hour"]) == (2.0, 1, 0.5)
    assert critical["bound_per_hour"] == pytest.approx(4.744 / 2, abs=0.001)
    assert others["false"] == 1
    by_rule = {row["rule"]: row["false"] for row in found["rules"]}
    assert (by_rule["siren"], by_rule["dog"], by_rule["smoke_alarm"]) == (1, 1, 0)
    assert "help" not in by_rule


def test_the_command_judges_recordings(tmp_path, capsys):
    sound = ALARMS["t3"](np.random.default_rng(3), 12.0, DEVELOPMENT).samples
    write_wav(tmp_path / "alarm.wav", sound * np.float32(0.1))
    write_wav(tmp_path / "quiet.wav", np.random.default_rng(4).normal(0, 1e-3, SAMPLE_RATE))
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(
        "path,set,text,alert\nalarm.wav,sounds/beeps,,smoke_alarm\nquiet.wav,sounds/neg_home,,\nquiet.wav,talk,,\n"
    )
    arguments = ["bench", "alerts", "--data", str(manifest), "--model", "nano", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--sets", "sounds", "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(row["set"], row["raised"]) for row in found["sets"]] == [
        ("sounds/beeps", "1 of 1"),
        ("sounds/neg_home", None),
    ]
    assert found["severities"][0]["false"] == 0
    assert "False alerts by rule" in capsys.readouterr().out
    manifest.write_text("path,set,text,alert\nalarm.wav,sounds/beeps,,smoke\n")
    assert main(arguments) == 2
    assert "alarm.wav: `alert` must be among" in capsys.readouterr().err
