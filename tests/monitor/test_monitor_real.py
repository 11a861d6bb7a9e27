"""The program as people start it: a private PulseAudio is the microphone and the headphones."""

import signal
import subprocess
import sys
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


def test_what_the_microphone_hears_comes_out_of_the_headphones(room, beep):
    arguments = ["--monitor", "default", "--headphones", "--model", "nano", "--set", "monitor.audiogram=mild"]
    arguments += ["--set", "monitor.noise_reduction=false"]  # it takes a tone that never ends for noise
    program = subprocess.Popen([*RUN, *arguments], env=room.env, stderr=subprocess.PIPE, text=True)
    form = ("--raw", f"--rate={RATE}", "--format=float32le", "--channels=2", "-d", "ears.monitor")
    recorder = subprocess.Popen(["parec", *form], env=room.env, stdout=subprocess.PIPE)
    player = subprocess.Popen(["paplay", "-d", "room", str(beep)], env=room.env)
    try:
        hits = 0
        while hits < 5:  # of 0.2 s each; the test's own time limit is the only one
            sound = np.frombuffer(recorder.stdout.read(RATE // 5 * 8), np.float32).reshape(-1, 2)
            spectrum = np.abs(np.fft.rfft(sound[:, 0] * np.hanning(len(sound))))
            # 1 kHz (on a busy machine with holes in it), amplified: 0.03 came in
            hits += abs(int(np.argmax(spectrum)) - 200) <= 4 and np.abs(sound).max() > 0.06
            assert np.abs(sound).max() <= 10 ** (-12 / 20) + 1e-6
    finally:
        for process in (recorder, player):
            process.kill()
            process.wait()
        program.send_signal(signal.SIGINT)
        assert program.wait(30) == 0
        assert "Traceback" not in program.stderr.read()
