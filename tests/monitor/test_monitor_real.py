"""The program as people start it: a private PulseAudio is the microphone and the headphones."""

import json
import os
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest
from virtmic import VirtualMicrophone, needs_pulseaudio

pytestmark = needs_pulseaudio
RUN = [sys.executable, str(Path(__file__).resolve().parents[2] / "run_stream.py"), "--no-server", "--quiet"]
RATE = 48_000


@pytest.fixture
def room(tmp_path):
    """What sounds in `room` the microphone hears; what plays in `ears` is in the headphones."""
    with VirtualMicrophone(tmp_path) as running:
        for name, channels in (("room", 1), ("ears", 2)):
            given = (f"sink_name={name}", f"rate={RATE}", f"channels={channels}", "norewinds=1")
            running.command("load-module", "module-null-sink", *given)
        running.command("set-default-source", "room.monitor")
        running.command("set-default-sink", "ears")
        yield running


@pytest.fixture
def beep(tmp_path):
    """Minutes of 1 kHz."""
    path = tmp_path / "beep.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((1_000 * np.sin(2 * np.pi * np.arange(16_000 * 180) / 16)).astype("<i2").tobytes())
    return path


def test_without_a_word_about_headphones_nothing_plays(room):
    done = subprocess.run([*RUN, "--monitor", "default"], env=room.env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("streamer: --monitor: put headphones on 'default'")
    assert done.stderr.count("\n") == 1


class Playing:
    """The program with --monitor, a tone for its microphone, and what is in the headphones."""

    def __init__(self, room, beep, tmp_path):
        self.said = tmp_path / "said.jsonl"
        arguments = ["--monitor", "default", "--headphones", "--model", "nano", "--set", "monitor.audiogram=mild"]
        arguments += ["--set", "monitor.noise_reduction=false"]  # it takes a tone that never ends for noise
        arguments += ["--jsonl", str(self.said)]
        self.program = subprocess.Popen([*RUN, *arguments], env=room.env, stderr=subprocess.PIPE, text=True)
        form = ("--raw", f"--rate={RATE}", "--format=float32le", "--channels=2", "-d", "ears.monitor")
        self.recorder = subprocess.Popen(["parec", *form], env=room.env, stdout=subprocess.PIPE)
        self.player = subprocess.Popen(["paplay", "-d", "room", str(beep)], env=room.env)

    def hear(self, seconds=0.2):
        """[n, 2] of what plays next; all of it within the limit."""
        raw = self.recorder.stdout.read(round(RATE * seconds) * 8)
        sound = np.frombuffer(raw, np.float32).reshape(-1, 2)
        assert np.abs(sound).max() <= 10 ** (-12 / 20) + 1e-6
        return sound

    def hear_the_tone(self):
        """Until it plays, amplified: 0.03 came in. On a busy machine there are holes in it."""
        hits = 0
        while hits < 5:  # the test's own time limit is the only one
            sound = self.hear()
            spectrum = np.abs(np.fft.rfft(sound[:, 0] * np.hanning(len(sound))))
            hits += abs(int(np.argmax(spectrum)) - 200) <= 4 and np.abs(sound).max() > 0.06

    def own_process(self):
        """That of the hearing aid."""
        return int(subprocess.check_output(["pgrep", "-P", str(self.program.pid)], text=True).split()[0])

    def states(self):
        """What was said of it."""
        events = [json.loads(line) for line in self.said.read_text().splitlines()]
        return [(event["state"], event["detail"]) for event in events if event["type"] == "status"]

    def end(self):
        for process in (self.recorder, self.player):
            process.kill()
            process.wait()
        if self.program.poll() is None:
            self.program.send_signal(signal.SIGINT)
            assert self.program.wait(30) == 0
        assert "Traceback" not in self.program.stderr.read()


@pytest.fixture
def playing(room, beep, tmp_path):
    one = Playing(room, beep, tmp_path)
    yield one
    one.end()


def test_what_the_microphone_hears_comes_out_of_the_headphones(playing):
    playing.hear_the_tone()


def test_its_process_is_started_again_when_it_is_killed_and_leaves_ctrl_c_to_the_program(playing):
    playing.hear_the_tone()
    process = playing.own_process()
    assert os.getsid(process) != os.getsid(playing.program.pid)  # the terminal's Ctrl-C goes to the program alone
    os.kill(process, signal.SIGTERM)  # as when a service is stopped: the program ends it
    playing.hear_the_tone()
    assert playing.own_process() == process
    os.kill(process, signal.SIGKILL)
    playing.hear_the_tone()
    assert playing.own_process() != process
    playing.end()
    ended = "the hearing aid's process ended (signal 9); it is started again"
    states = playing.states()
    assert ("degraded", ended) in states
    assert states[states.index(("degraded", ended)) + 1][0] == "listening"


def test_a_program_that_is_killed_leaves_no_sound(playing):
    playing.hear_the_tone()
    process = playing.own_process()
    playing.program.kill()
    playing.program.wait()
    ended_s = time.monotonic()
    while Path(f"/proc/{process}/stat").exists() and "Z" not in Path(f"/proc/{process}/stat").read_text().split()[2]:
        assert time.monotonic() < ended_s + 10  # a second is asked for; a busy machine may take longer
        time.sleep(0.01)
    while playing.hear().any():  # what the sound server still holds
        pass


def test_people_are_told_that_the_headphones_are_silent_while_they_are_away(tmp_path):
    """Without any sink that the sound server could play in, the microphone goes on."""
    sink = ("load-module", "module-null-sink", "sink_name=ears", f"rate={RATE}", "channels=2")
    with VirtualMicrophone(tmp_path) as room:
        room.command("load-module", "module-null-source", "source_name=room", f"rate={RATE}", "channels=1")
        room.command("set-default-source", "room")
        first = next(
            line for line in room.command("list", "short", "modules").splitlines() if "sink_name=virtmic" in line
        )
        ears = room.command(*sink).strip()
        room.command("unload-module", first.split()[0])
        command = [*RUN, "--monitor", "default", "--headphones", "--model", "nano", "--head", "none", "--jsonl", "-"]
        with subprocess.Popen(
            command, env=room.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as program:
            events = map(json.loads, program.stdout)
            states = ((event["state"], event["detail"]) for event in events if event["type"] == "status")
            assert any(state == "listening" for state, _ in states)
            room.command("unload-module", ears)
            state, detail = next(states)
            assert state == "degraded"
            assert detail.startswith("the headphones are silent: 'default' cannot be opened")
            room.command(*sink)
            assert next(states) == ("listening", "")
            program.send_signal(signal.SIGINT)
            assert program.wait(30) == 0
