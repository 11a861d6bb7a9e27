"""`streamer alerts`: every rule in words, what was raised, marks, and what they say."""

import json
import sys
from pathlib import Path

import pytest
from alert_rules import parse_rules

import streamer.commands.cli
from streamer.alerts.history import AlertHistory
from streamer.commands.alerts import explain_rule
from streamer.settings.rules import AlertRules

sys.path.append(str(Path(__file__).parents[1] / "alerts"))
from alerts_made import alert

NOON = 1_700_000_000.0


def test_every_default_rule_is_explained_in_words():
    rules = AlertRules.default()
    for rule in rules.rules:
        text = explain_rule(rule, rules)
        assert text.startswith(f"{rule.id}: {rule.title} ({rule.severity}")
        assert "raised when" in text
        assert "over" in text
        assert max(map(len, text.splitlines())) <= 112


def test_explanations_follow_the_settings():
    own = {"id": "x", "labels": ["Dog"], "threshold": None, "confirm": 1, "quiet_hours": "22:00-07:00"}
    rules = parse_rules({"quiet_hours": "12:00-13:00", "rules": [own, {"id": "help", "all_clear": False}]})
    text = explain_rule(rules.rules[0], rules)
    assert "the tagging head has for each of them" in " ".join(text.split())
    assert "not raised 22:00-07:00 and 12:00-13:00 (for all rules)" in text
    assert "notifications do not tell" in explain_rule(rules.rules[1], rules)


@pytest.mark.parametrize(
    ("rule", "over"),
    [
        ({"lost": True, "clear_after_s": 5}, "as soon as sound comes again; people are told"),
        ({"silence_dbfs": -60, "clear_after_s": 0}, "as soon as something is louder; people are told"),
        ({"silence_dbfs": -60, "clear_after_s": 4}, "4 s after it was last so quiet; people are told"),
        ({"loud_dbfs": -6, "clear_after_s": 4}, "4 s after it was last so loud; people are told"),
        ({"phrases": ["Anna"], "clear_after_s": 4}, "4 s after it was last said; people are told"),
        ({"labels": ["Dog"], "clear_after_s": 0}, "as soon as it is not heard any more; people are told"),
    ],
)
def test_when_an_alert_is_over_is_said_in_the_words_of_its_rule(rule, over):
    rules = parse_rules({"rules": [{"id": "x", **rule}]})
    assert f"  over         {over}\n" in explain_rule(rules.rules[0], rules)


def run(capsys, *arguments, status=0):
    assert streamer.commands.cli.main(["alerts", *arguments]) == status
    return capsys.readouterr()


def test_a_rule_is_explained_as_the_head_of_the_model_has_it(capsys):
    def shown(*options):
        return " ".join(run(capsys, "explain", "siren", *options).out.split())

    assert "With the tagging head for base" in shown()
    assert "the signal itself shows a wailing siren" not in shown("--set", "model.name=tiny.en")
    assert "the signal itself shows a wailing siren" in shown("--set", "model.name=nano")
    assert "the signal itself shows a wailing siren" in shown("--set", "model.head=released")
    assert "(0.5 while the signal shows at least the beginning of a wailing siren" in shown(
        "--set", "model.name=tiny.en"
    )
    assert "a score of at least 0.6 in 2 of the last 3" in shown("--set", "alerts.rules=[{id: siren, threshold: 0.6}]")


def test_what_denies_a_rule_is_explained(capsys):
    text = " ".join(run(capsys, "explain", "smoke_alarm", "--set", "model.name=tiny.en").out.split())
    assert "the signal does not show a high tone that wavers" in text
    assert "the signal does not show the four-beep pattern" in text


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    history = AlertHistory(tmp_path / "streamer" / "alerts.jsonl")
    for id, rule in enumerate(("siren", "dog", "dog"), 1):
        severity = "critical" if rule == "siren" else "info"
        history.append(alert(id, rule=rule, severity=severity), NOON + 3600 * id)
        history.append(alert(id, "cleared", rule=rule, severity=severity), NOON + 3600 * id + 9)
    return history


def test_history_lists_filters_and_shows_what_was_heard(kept, capsys):
    shown = run(capsys, "history").out
    assert shown.count("score 0.91") == 3
    assert "heard      Siren 0.91, Speech 0.40" in shown
    assert "said       “what is “that”?”" in shown
    assert run(capsys, "history", "--rule", "siren").out.count("score") == 1
    assert run(capsys, "history", "--severity", "warning").out.count("score") == 1
    assert run(capsys, "history", "--limit", "2").out.splitlines()[0].startswith("    2 ")
    lines = run(capsys, "history", "--json", "--since", "2023-11-14T22:13:20+00:00").out.splitlines()
    assert [json.loads(line)["number"] for line in lines] == [1, 2, 3]
    assert json.loads(lines[0])["event"] == alert(1, "cleared").to_dict()
    empty = run(capsys, "history", "--since", "5m")
    assert empty.out == ""
    assert "no such alerts" in empty.err


def test_mark_and_tune(kept, capsys):
    assert "is a false alarm" in run(capsys, "mark", "2", "false").out
    assert "marked FALSE" in run(capsys, "history", "--marked", "false").out
    assert run(capsys, "history", "--marked", "no").out.count("score") == 2
    shown = run(capsys, "tune").out
    assert "dog: 2 alerts, 1 marked (0 true, 1 false)" in shown
    assert "too little to go by" in shown
    assert "Only alerts that were raised can be marked" in shown
    assert "not marked any more" in run(capsys, "mark", "2", "none").out
    assert run(capsys, "history", "--marked", "no").out.count("score") == 3


def test_wrong_use_is_one_line(kept, capsys):
    for arguments, says in [
        (("mark", "9", "false"), "ID: no alert 9"),
        (("mark", "x", "false"), "must be a whole number"),
        (("mark", "1", "maybe"), "verdict"),
        (("history", "--since", "yesterday"), "--since: must look like"),
        (("explain", "nope"), "RULE: no rule is called 'nope'"),
        (("explain", "sirn"), "loud; did you mean siren?"),
        (("explain", "--set", "alerts.rules=[{id: x, labels: [Nope]}]"), "alerts.rules[0].labels[0]"),
    ]:
        shown = run(capsys, *arguments, status=2)
        assert says in shown.err
        assert shown.err.count("\n") == 1


def places(value, at=()):
    """Where the plain values of a JSON value stand."""
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(one, (*at, key))
    yield at


def damaged(text: str, at: tuple, odd: str) -> str:
    """The line with another value at that place, as it stands in the file: no library writes 1e400."""
    record = json.loads(text)
    inner = record
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = "ODD"
    return json.dumps(record).replace('"ODD"', odd)


@pytest.mark.parametrize("odd", ["1e400", "-1e400", "NaN", "1e300", '"x"', "null", "true", "[]", "{}", "[" * 5000])
def test_a_damaged_line_stops_no_command_and_is_said_once(kept, capsys, odd):
    kept.mark(2, "false", NOON + 9e3)
    kept.add_clip(2, "clips/000002.wav", NOON + 9e3)
    whole = kept.path.read_text()
    lines = whole.splitlines()
    for number in (2, len(lines) - 2, len(lines) - 1):  # raised, a mark, a clip
        for at in filter(None, places(json.loads(lines[number]))):
            if at[:3] == ("event", "heard", 1):
                continue  # as the first
            broken = [*lines[:number], damaged(lines[number], at, odd), *lines[number + 1 :]]
            kept.path.write_text("\n".join(broken) + "\n")
            for arguments in (("history", "--json", "--since", "30m", "--severity", "info"), ("history",), ("tune",)):
                shown = run(capsys, *arguments)
                assert shown.err.count("cannot be read and are left out") <= 1, (at, shown.err)
                assert not any(word in shown.out.split() for word in ("Infinity", "NaN", "inf", "nan")), at
    kept.path.write_text(whole)
    run(capsys, "mark", "3", "true")


def test_an_infinite_score_is_left_out_and_said(kept, capsys):
    kept.path.write_text(kept.path.read_text().replace('"score":0.91', '"score":1e400', 1))
    shown = run(capsys, "history")
    assert shown.out.count("score 0.91") == 3  # of that alert its end is whole
    assert shown.err == f"{kept.path}: lines that cannot be read, and are left out: 1\n"
    assert run(capsys, "tune").err == shown.err
