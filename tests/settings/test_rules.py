import pytest
import yaml
from alert_rules import parse_rules
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import ConfigError
from streamer.settings.rules import AlertRule, AlertRules, SoundSettings, hours

PROMISED = ["siren", "smoke_alarm", "co_alarm", "alarm_clock", "glass", "baby_cry", "knock", "doorbell", "telephone"]
PROMISED += ["dog", "car_horn", "gunshot", "explosion", "scream"]


def test_the_promised_rules_are_on_by_default():
    rules = {rule.id: rule for rule in AlertRules.default().rules}
    assert [name for name in PROMISED if name not in rules or not rules[name].enabled] == []
    assert {rules[name].severity for name in ("siren", "smoke_alarm", "co_alarm")} == {"critical"}
    assert all(rule.about for rule in rules.values())


def test_a_rule_with_a_known_id_changes_only_what_it_names():
    rules = parse_rules({"rules": [{"id": "siren", "threshold": 0.3}, {"id": "my_name", "phrases": ["Anna"]}]})
    by_id = {rule.id: rule for rule in rules.rules}
    assert (by_id["siren"].threshold, by_id["siren"].severity, by_id["siren"].cadence) == (
        0.3,
        "critical",
        ("wail", "yelp", "hilo"),
    )
    assert len(rules.rules) == len(AlertRules.default().rules) + 1
    assert [rule.id for rule in rules.rules][:2] == ["siren", "my_name"]


def test_defaults_can_be_dropped():
    assert parse_rules({"defaults": False, "rules": []}).rules == ()


def test_what_is_in_force_can_be_read_back():
    rules = parse_rules({"quiet_hours": "22:00-07:00", "rules": [{"id": "a", "loud_dbfs": -3}]})
    assert parse_rules(yaml.safe_load(yaml.safe_dump(rules.model_dump(mode="json")))) == rules


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        (
            {"id": "x", "labels": ["Siren"], "threshold": 3},
            "alerts.rules[1].threshold: input should be less",
        ),
        ({"id": "x", "labels": ["Siren"], "treshold": 0.3}, "alerts.rules[1].treshold: unknown key"),
        ({"id": "X y", "labels": ["Siren"]}, "alerts.rules[1].id: must be small letters a to z, digits and _"),
        ({"labels": ["Siren"]}, "alerts.rules[1].id: field required"),
        ({"id": "x"}, "alerts.rules[1]: must have exactly one of"),
        ({"id": "x", "lost": True, "phrases": ["a"]}, "has phrases or patterns, lost"),
        ({"id": "x", "patterns": ["(a"]}, "alerts.rules[1].patterns[0]: must be a regular expression: missing )"),
        ({"id": "x", "phrases": ["..."]}, "alerts.rules[1].phrases[0]: must hold at least one word; is '...'"),
        (
            {"id": "x", "lost": True, "quiet_hours": "25:00-07:00"},
            "alerts.rules[1].quiet_hours: must look like 22:00-07:00",
        ),
        ({"id": "x", "lost": True, "severity": "loud"}, "alerts.rules[1].severity: input should be 'info', 'warning'"),
        ({"id": "x", "cadence": ["t5"]}, "alerts.rules[1].cadence[0]: input should be 't3'"),
        (
            {"id": "x", "lost": True, "cooldown_s": -1},
            "alerts.rules[1].cooldown_s: input should be greater",
        ),
        ({"id": "x", "lost": True, "min_duration_s": float("nan")}, "alerts.rules[1].min_duration_s:"),
        ({"id": "dog", "lost": True, "labels": []}, "alerts.rules[1].id: must be used by one rule only"),
        ("siren", "alerts.rules[1]: input should be"),
        ({"id": ["siren"], "lost": True}, "alerts.rules[1].id: input should be a valid string"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_path(rule, line):
    with pytest.raises(ConfigError) as refused:
        parse_rules({"rules": [{"id": "dog"}, rule]})
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("data", [{"rules": 3}, {"rule": []}, [], None, "x", {"defaults": "perhaps"}])
def test_what_is_no_section_of_rules_is_refused(data):
    with pytest.raises(ConfigError, match=r"^alerts"):
        parse_rules(data)


@given(st.times(), st.times())
def test_hours_are_seconds_after_midnight(start, end):
    found = hours(f"{start:%H:%M}-{end:%H:%M}")
    assert found == (start.hour * 3600 + start.minute * 60, end.hour * 3600 + end.minute * 60)


def test_titles_and_sound_settings():
    assert AlertRule(id="front_door", labels=("Knock",)).title == "front door"
    assert SoundSettings().threshold == 0.5


def test_a_heads_own_fields_take_the_defaults_place_and_nobodys_elses():
    ours = parse_rules({"rules": [{"id": "siren", "threshold": 0.3}, {"id": "my_siren", "labels": ["siren"]}]})
    fields = {"siren": {"threshold": 0.9, "confirm": 1}, "dog": {"threshold": 0.7}, "my_siren": {"threshold": 0.1}}
    fitted = {rule.id: rule for rule in ours.fitted(fields).rules}
    assert (fitted["siren"].threshold, fitted["siren"].confirm) == (0.3, 1)
    assert fitted["dog"].threshold == 0.7
    assert fitted["my_siren"].threshold == AlertRule(id="x", labels=("siren",)).threshold
    signed = ours.fitted({"siren": {"threshold": 0.9, "signed_threshold": 0.1}, "dog": {"signed_threshold": 0.2}}).rules
    lower = {rule.id: rule.signed_threshold for rule in signed}
    assert lower["siren"] == 0.3  # what a person asks for holds with signs too
    assert lower["dog"] == 0.2
    assert ours.fitted({}) == ours
    with pytest.raises(ConfigError, match=r"the head's rule dog: threshold: .* less than or equal to 1; is 2"):
        ours.fitted({"dog": {"threshold": 2}})
