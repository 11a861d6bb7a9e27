import json

import numpy as np
import pytest

from streamer.bench import alerts
from streamer.commands.cli import main
from streamer.recipes.synthesis import alert_scenes
from streamer.recipes.synthesis.alert_scenes import LEAD_S, LEVEL, Background, Pools, Recording
from streamer.recipes.synthesis.sounds import DEVELOPMENT
from streamer.sound.alerts import AlertChange

RATE = 16_000


def change(rule, start_s, at_s):
    return AlertChange(round(at_s * RATE), 1, rule, "info", "raised", round(start_s * RATE), None, 0.9, (), (), "")


def recording(label, seconds=2.0, seed=0):
    samples = np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32)
    return Recording(samples * np.float32(0.1), frozenset({label}))


def test_an_alert_is_explained_only_by_the_sound_that_it_names_and_only_then():
    background = Background(np.zeros(1, np.float32), ((frozenset({"Dog", "Bark"}), 10.0, 15.0),))
    assert alerts.explained(change("dog", 10.5, 12), background)
    assert not alerts.explained(change("dog", 30, 32), background)
    assert not alerts.explained(change("dog", 5, 9), background)
    assert not alerts.explained(change("knock", 10.5, 12), background)


@pytest.mark.parametrize(("count", "bound"), [(0, 2.996), (1, 4.744), (5, 10.513)])
def test_thepoisson_bound_is_the_tabulated_one(count, bound):
    assert alerts.poisson_bound(count) == pytest.approx(bound, abs=0.001)


@pytest.mark.parametrize("snr_db", [10, -10])
def test_a_scene_has_the_wanted_snr_and_begins_where_it_says(snr_db):
    pools = Pools(speech=[recording("Speech", seed=number) for number in range(3)], alarms={"dog": [burst()]})
    scene = alert_scenes.compose("dog", "speech", snr_db, np.random.default_rng(3), pools, DEVELOPMENT)
    assert LEAD_S + 1 <= scene.start_s <= LEAD_S + 2
    assert scene.end_s == pytest.approx(scene.start_s + 1.0)
    behind = scene.samples[: round(LEAD_S * RATE)]
    alarm = scene.samples[round(scene.start_s * RATE) : round(scene.end_s * RATE)]
    gain = float(np.sqrt(np.mean(behind**2))) / LEVEL
    expected = np.sqrt(1 + 10 ** (snr_db / 10)) * LEVEL * gain
    assert float(np.sqrt(np.mean(alarm**2))) == pytest.approx(expected, rel=0.2)


def burst():
    samples = np.zeros(3 * RATE, np.float32)
    samples[RATE : 2 * RATE] = np.random.default_rng(9).standard_normal(RATE) * 0.2
    return samples


def test_a_job_alone_decides_its_scene():
    heard = []
    judge = alerts.Judge(5, Pools(), DEVELOPMENT, lambda samples: heard.append(samples.copy()) or [])
    job = alerts.Job("alarm", "t3", "music", 10, 1)
    judge.attempt(alerts.Job("alarm", "t3", "music", 10, 0))
    for _ in range(2):
        judge.attempt(job)
    assert not np.array_equal(heard[0], heard[1])
    np.testing.assert_array_equal(heard[1], heard[2])


def test_what_is_raised_counts_as_heard_again_wrong_or_missed():
    def twice(samples):
        found = [change("smoke_alarm", LEAD_S, LEAD_S + 4), change("smoke_alarm", LEAD_S + 9, LEAD_S + 10)]
        return [*found, AlertChange(**{**fields(change("siren", 9, LEAD_S + 5)), "severity": "critical"})]

    trial = alerts.Judge(5, Pools(), DEVELOPMENT, twice).attempt(alerts.Job("alarm", "t3", "music", 10, 1))
    assert (trial.raises, trial.critical) == (2, ("siren",))
    assert 3 <= trial.latency_s <= 4
    missed = alerts.Judge(5, Pools(), DEVELOPMENT, lambda samples: []).attempt(
        alerts.Job("alarm", "t3", "music", 10, 1)
    )
    assert (missed.latency_s, missed.raises) == (None, 0)


def fields(found):
    return {name: getattr(found, name) for name in AlertChange.__dataclass_fields__}


def test_the_command_writes_its_tables(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(alerts, "SNRS_DB", (10,))  # every scene is a minute of audio
    monkeypatch.setattr(alerts.sounds, "DISTRACTORS", dict([*alerts.sounds.DISTRACTORS.items()][:1]))
    arguments = ["bench", "alerts", "--patterns", "--trials", "1", "--hours", "0.02", "--kinds", "yelp"]
    assert main([*arguments, "--processes", "1", "--out", str(tmp_path), "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert {row["kind"] for row in found["recall"]} == {"yelp"}
    assert found["false_alarms"]["hours"] >= 0.02
    assert "False alarms" in capsys.readouterr().out


def test_hours_without_alarms_go_on_where_they_were_cut_off(tmp_path, capsys):
    arguments = ["bench", "alerts", "--false-alarms", "--patterns", "--processes", "1", "--out", str(tmp_path)]
    assert main([*arguments, "--hours", "0.04"]) == 0
    log = tmp_path / "alerts_false.jsonl"
    first = log.read_text()
    assert len(first.splitlines()) == 2
    log.write_text(first + '{"number": 1, "ki')
    assert main([*arguments, "--hours", "0.08"]) == 0
    assert "1 scenes are done already" in capsys.readouterr().err
    assert log.read_text().startswith(first)
    found = json.loads((tmp_path / "alerts_false.json").read_text())
    assert (found["scenes"], found["complete"], found["severities"][0]["false_alarms"]) == (2, True, 0)
    assert {row["rule"] for row in found["rules"]} >= {"siren", "smoke_alarm", "co_alarm", "baby_cry"}
    log.write_text("\n".join(['{"seed": 3}', *first.splitlines()[1:]]))
    assert main([*arguments, "--hours", "0.04"]) == 0
    assert log.read_text() == first


def test_an_unknown_kind_is_refused_by_name(capsys):
    assert main(["bench", "alerts", "--kinds", "t5"]) == 2
    assert "--kinds t5: must be among t3" in capsys.readouterr().err
