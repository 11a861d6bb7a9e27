"""`streamer sounds` as a person types it, and what `streamer run` makes of it."""

import json
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from chimes import RATE, chime, noise

from streamer.alerts.history import AlertHistory
from streamer.alerts.own_clips import OwnClips
from streamer.commands.cli import main
from streamer.commands.sounds import upper_rate

sys.path.append(str(Path(__file__).parents[1] / "alerts"))
from alerts_made import alert


def wav(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return str(path)


@pytest.fixture
def clips(tmp_path):
    return [wav(tmp_path / f"{seed}.wav", chime(seed)) for seed in range(3)]


def test_a_bell_is_learned_listed_heard_and_forgotten(tmp_path, clips, capsys, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    command = ["sounds", "learn", "My bell", *clips, "--model", "nano", "--severity", "warning"]
    assert main(command) == 0
    assert "My bell (warning), learned from 3 clips with nano: recognises " in capsys.readouterr().out
    assert main(["sounds", "list"]) == 0
    assert "raised 0 times here, 0 marked as false alarms" in capsys.readouterr().out
    assert main(["alerts", "explain", "my_bell"]) == 0
    assert "it sounds like 'My bell', which was learned" in capsys.readouterr().out
    told = f"delivery.commands=[{{name: lamp, argv: [{sys.executable}, -c, '']}}]"
    assert main(["alerts", "test", "--rule", "my_bell", "--set", told]) == 0
    assert "command lamp" in capsys.readouterr().out
    room = wav(tmp_path / "room.wav", np.concatenate([noise(1, 5), 0.6 * chime(8), noise(2, 12)]))
    assert main(command[:-2]) == 0, "once more, and nothing is said of the severity"
    assert "My bell (warning), " in capsys.readouterr().out
    run = ["run", "--input", room, "--speed", "0", "--model", "nano", "--no-server", "--quiet", "--jsonl"]
    assert main([*run, str(tmp_path / "a.jsonl")]) == 0
    events = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    mine = [event for event in events if event.get("label") == "My bell" or event.get("rule") == "my_bell"]
    assert [(event["type"], event["state"]) for event in mine] == [
        ("sound", "start"),
        ("alert", "raised"),
        ("sound", "end"),
        ("alert", "cleared"),
    ]
    assert mine[1]["severity"] == "warning"
    assert main(["sounds", "forget", "my bell"]) == 0
    assert main([*run, str(tmp_path / "b.jsonl")]) == 0
    assert "My bell" not in (tmp_path / "b.jsonl").read_text()
    assert not list((tmp_path / "state" / "streamer" / "sounds").glob("*"))


def test_a_name_that_a_default_rule_has_counts_its_own_alerts_and_marks(tmp_path, clips, capsys, monkeypatch):
    """Most people will call their door bell "doorbell"."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert main(["sounds", "learn", "doorbell", *clips, "--model", "nano"]) == 0
    history = AlertHistory(tmp_path / "state" / "streamer" / "alerts.jsonl")
    for number, rule in enumerate(["doorbell", "doorbell", "doorbell_2"], start=1):
        history.append(alert(number, rule=rule, severity="info"), 1_700_000_000.0 + number)
    history.mark(3, "false", 1_700_000_010.0)
    capsys.readouterr()
    assert main(["sounds", "list"]) == 0
    assert "raised 1 times here, 1 marked as false alarms" in capsys.readouterr().out
    assert main(["alerts", "tune"]) == 0
    assert "doorbell_2: 1 alerts, 1 marked (0 true, 1 false)" in capsys.readouterr().out


def test_what_cannot_be_learned_is_refused_in_one_line(tmp_path, clips, capsys):
    silent = wav(tmp_path / "silent.wav", np.zeros(RATE))
    folder = ["--data-dir", str(tmp_path / "d"), "--model", "nano"]
    for given, says in [
        (["bell", *clips[:2]], "CLIP: give 3 to 10 recordings of 'bell', not 2"),
        (["bell", *clips[:2], silent], "silent.wav: is silent"),
        (["<b>", *clips], "NAME: must be 1 to 40 letters"),
        (["bell", *clips[:2], clips[1]], "1.wav and "),
        (["bell", *clips[:2], clips[1]], "1.wav are the same recording; record 'bell' each time anew"),
    ]:
        assert main(["sounds", "learn", *given, *folder]) == 2
        assert says in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_clips_that_were_kept_from_the_pages_are_learned_from_counted_and_deleted(tmp_path, capsys):
    folder = ["--data-dir", str(tmp_path / "d")]
    clips = OwnClips(tmp_path / "d")
    for seed in range(2):
        clips.add("My bell", chime(seed))
    assert main(["sounds", "list", *folder]) == 0
    assert capsys.readouterr().out == "my bell: not learned yet; clips of it that are kept: 2\n"
    assert main(["sounds", "learn", "my bell", "--model", "nano", *folder]) == 2
    refused = capsys.readouterr().err
    assert "give 3 to 10 recordings of 'my bell', or teach it from the viewer: 2 are kept from there" in refused
    assert main(["sounds", "forget", "My bell", *folder]) == 0
    assert capsys.readouterr().out == "My bell: 2 clips are deleted; it was not learned yet\n"
    for seed in range(3):
        clips.add("My bell", chime(seed))
    assert main(["sounds", "learn", "My bell", "--model", "nano", *folder]) == 0
    assert main(["sounds", "list", *folder]) == 0
    assert "; 3 clips of it are kept" in capsys.readouterr().out
    assert main(["sounds", "forget", "my bell", *folder]) == 0
    assert "My bell is forgotten and 3 clips of it are deleted" in capsys.readouterr().out
    assert clips.names() == {}
    assert main(["sounds", "forget", "..", *folder]) == 2


def test_a_bound_of_a_rate_is_that_of_poisson():
    assert upper_rate(0, 1.0) == pytest.approx(2.996, rel=0.02)
    assert upper_rate(3, 2.0) == pytest.approx(7.754 / 2, rel=0.01)
