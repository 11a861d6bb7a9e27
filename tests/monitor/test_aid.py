"""The hearing aid as the program has it, around a process of the test's: what steers it, and what its end does."""

import logging
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from streamer.errors import InputError, Rests, UsageError
from streamer.events import SAMPLE_RATE, Alert, Scene, SceneScores
from streamer.monitor import aid
from streamer.monitor.aid import HearingAid, Steering
from streamer.monitor.messages import Steer
from streamer.settings.deliveries import state_directory
from streamer.settings.monitor import MonitorSettings

PLAYED = str(Path(__file__).with_name("played_aid.py"))


def alert(state="raised", severity="critical", source="live"):
    return Alert(
        session="s1", seq=1, audio_t=1.0, id=1, rule="smoke_alarm", severity=severity, state=state, start=0.0, end=None,
        score=1.0, labels=(), heard=(), text="", source=source,
    )  # fmt: skip


def scene(name):
    return Scene(session="s1", seq=1, audio_t=1.0, scene=name, start=0.0, scores=SceneScores(0, 0, 0, 0, 0, 0))


def is_there(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def start(tmp_path, monkeypatch):
    """An aid whose process does what is asked for."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("streamer.errors.RESTS", Rests(first_s=0.05))
    started = []

    def begin(does="play", *, headphones=True):
        count = tmp_path / "count"
        count.write_text("0")
        settings = MonitorSettings(output="ears", headphones=headphones)
        started.append(HearingAid(settings, stall_s=1.0, command=(sys.executable, PLAYED, str(count), does)))
        return started[-1]

    yield begin
    for one in started:
        one.close()


@pytest.mark.parametrize("state", ["acknowledged", "cleared"])
def test_an_alert_sounds_until_somebody_has_seen_it_or_it_is_over(state):
    steering = Steering(MonitorSettings(output=0))
    steering.tell(alert())
    assert steering.now == Steer(None, alarm=True)
    steering.tell(alert("updated"))
    steering.tell(alert(state))
    assert steering.now == Steer(None, alarm=False, seen=state == "acknowledged")


def test_news_of_an_alert_that_was_seen_does_not_sound_again_and_the_next_alert_does():
    steering = Steering(MonitorSettings(output=0))
    for state in ("raised", "acknowledged", "updated"):
        steering.tell(alert(state))
    assert steering.now == Steer(None, alarm=False, seen=True)
    steering.tell(alert("cleared"))
    steering.tell(alert())
    assert steering.now.alarm
    steering.tell(alert("cleared"))
    assert steering.now == Steer(None, alarm=False, seen=False)


@pytest.mark.parametrize(
    ("event", "given"),
    [(alert(source="demo"), {}), (alert(severity="info"), {}), (alert(), {"alarm": {"enabled": False}})],
)
def test_what_is_not_meant_does_not_sound(event, given):
    steering = Steering(MonitorSettings(output=0, **given))
    steering.tell(event)
    assert not steering.now.alarm


def test_the_scene_chooses_the_program_unless_one_is_held():
    steering = Steering(MonitorSettings(output=0))
    steering.tell(scene("noise"))
    assert steering.now.scene == "noise"
    steering.hold("music")
    steering.tell(scene("speech"))
    assert steering.now.scene == "music"
    steering.hold("auto")
    steering.tell(scene("speech"))
    assert steering.now.scene == "speech"
    held = Steering(MonitorSettings(output=0, program="music"))
    held.tell(scene("noise"))
    assert held.now.scene == "music"


def test_what_it_hears_is_the_source_s_sound_and_alerts_reach_it(start):
    one = start()
    assert (one.name, one.output) == ("mic", "ears (hw:1,0)")
    blocks = one.blocks()
    assert next(blocks).samples[0] == 1
    one.tell(alert())
    while next(blocks).samples[0] != -1:
        pass  # the test's own time limit is the only one
    one.tell(alert("acknowledged"))
    while next(blocks).samples[0] != 1:
        pass
    process = one.report.process
    one.close()
    assert all(block.state == "listening" for block in blocks)
    assert not is_there(process)


@pytest.mark.parametrize(("does", "why"), [("die", "ended (status 3)"), ("hang", "hangs: it said nothing for 0.5 s")])
def test_a_process_that_ends_or_hangs_is_degraded_and_started_again_as_it_was(start, monkeypatch, does, why):
    monkeypatch.setattr(aid, "HANG_S", 0.5)
    one = start(does)
    one.tell(alert())
    blocks = one.blocks()
    assert [next(blocks).samples[0] for _ in range(10)] == [-1] * 10
    told = next(blocks)
    assert (told.state, len(told.samples)) == ("degraded", 0)
    assert told.reason == f"the hearing aid's process {why}; it is started again"
    began_s = time.monotonic()
    back = next(blocks)
    assert (back.state, back.samples[0]) == ("listening", -2)  # the alarm's signal, too
    least = 0.05 if does == "die" else 0.5
    assert least * SAMPLE_RATE <= back.lost_samples <= (time.monotonic() - began_s + 5) * SAMPLE_RATE
    assert back.reason == f"the hearing aid's process {why}"
    assert next(blocks).lost_samples == 0


def test_remarks_of_sound_libraries_are_for_debug_alone(start, caplog, capfd, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [caplog.handler])  # without those that other tests left
    caplog.set_level(logging.DEBUG, "streamer.monitor.aid")
    assert next(start().blocks()).samples[0] == 1
    while "Illegal instruction" not in caplog.text:
        time.sleep(0.01)  # the test's own time limit is the only one
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [
        ("DEBUG", "monitor: ALSA lib pcm.c:8570:(snd_pcm_recover) underrun occurred"),
        ("WARNING", "monitor: Illegal instruction"),
    ]
    assert capfd.readouterr().err == ""


def test_a_process_that_is_stopped_is_said_to_hang_soon_and_replaced(start):
    assert aid.HANG_S + 2 * aid.LOOK_S <= 3.0  # seconds without its sound until people know why
    one = start()
    blocks = one.blocks()
    assert next(blocks).samples[0] == 1
    next(blocks)
    stopped = one.report.process
    os.kill(stopped, signal.SIGSTOP)
    told = next(block for block in blocks if block.state == "degraded")
    assert told.reason == "the hearing aid's process hangs: it said nothing for 2 s; it is started again"
    assert not is_there(stopped)
    back = next(blocks)
    assert (back.state, back.samples[0], back.lost_samples >= 2 * SAMPLE_RATE) == ("listening", 2, True)


def test_what_the_process_refuses_is_refused(start):
    with pytest.raises(InputError, match=r"^--device x: no microphone's name contains that$"):
        start("refuse")


def test_nothing_plays_where_nobody_said_headphones(start, tmp_path):
    with pytest.raises(UsageError, match=r"^--monitor: put headphones on 'ears',"):
        start(headphones=False)
    assert (tmp_path / "count").read_text() == "0"
    start()
    start(headphones=False)  # once is enough
    kept = state_directory() / "headphones.json"
    assert [path.stat().st_mode & 0o777 for path in (kept, kept.parent)] == [0o600, 0o700]


def test_without_portaudio_one_line_says_what_to_install(tmp_path, monkeypatch):
    """The real process, on a machine where sounddevice finds no library."""
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(InputError, match=r"^--device: the PortAudio library is missing; `sudo apt-get install"):
        HearingAid(MonitorSettings(output="ears"), stall_s=1.0)
