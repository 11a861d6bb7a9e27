"""PortAudio for real: a private PulseAudio is the microphone, in processes that see nothing else."""

import json
import subprocess
import sys
import time
import wave

import numpy as np
import pytest
from virtmic import VirtualMicrophone, needs_pulseaudio

pytestmark = needs_pulseaudio

# Listens until its input says so; one line for each block: samples, lost samples, state, reason, largest sample, share
# of the energy that is near 1 kHz.
LISTENER = """
import json, sys, threading
import numpy as np
from streamer.audio.files import open_source
source = open_source(device=sys.argv[1] if len(sys.argv) > 1 else None)
print(json.dumps({"name": source.name}), flush=True)
def stop():
    sys.stdin.readline()
    source.close()
threading.Thread(target=stop, daemon=True).start()
for block in source.blocks():
    peak = float(np.abs(block.samples).max()) if len(block.samples) else 0.0
    crossings = int(np.count_nonzero(np.diff(np.signbit(block.samples))))
    print(json.dumps({"n": len(block.samples), "lost": block.lost_samples, "state": block.state,
        "reason": block.reason, "peak": peak, "crossings": crossings}), flush=True)
"""


class Listener:
    """The subprocess, and everything that it has said so far."""

    def __init__(self, env, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-c", LISTENER, *arguments],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.blocks = []
        self.about = json.loads(self.process.stdout.readline())

    def until(self, wanted):
        """Read until a block fits; the test's own time limit is the only one."""
        for line in self.process.stdout:
            self.blocks.append(json.loads(line))
            if wanted(self.blocks[-1]):
                return self.blocks[-1]
        raise AssertionError(f"the listener ended: {self.blocks[-3:]}")

    def stop(self):
        """Ask it to close its source, and read what it still says."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.blocks += [json.loads(line) for line in self.process.stdout]
        return self.process.wait(30)


@pytest.fixture
def microphone(tmp_path):
    with VirtualMicrophone(tmp_path) as running:
        yield running


@pytest.fixture
def beep(tmp_path):
    """Two seconds of 1 kHz."""
    path = tmp_path / "beep.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((16_000 * np.sin(2 * np.pi * np.arange(32_000) / 16)).astype("<i2").tobytes())
    return path


def test_what_is_played_is_heard(microphone, beep):
    listener = Listener(microphone.env, "pulse")
    assert listener.about["name"] == "pulse"
    listener.until(lambda block: block["n"])
    microphone.play(beep)
    assert listener.stop() == 0
    loud = [block for block in listener.blocks if block["peak"] > 0.4]
    assert 0.9 * 32_000 < sum(block["n"] for block in loud) < 1.1 * 32_000
    crossings = sum(block["crossings"] for block in loud[3:-3])
    assert crossings / sum(block["n"] for block in loud[3:-3]) * 8_000 == pytest.approx(1_000, rel=0.1)
    assert {block["state"] for block in listener.blocks} == {"listening"}


def test_unplugged_it_says_so_and_comes_back_by_itself(microphone, beep):
    listener = Listener(microphone.env)
    assert listener.about["name"] == "default"
    listener.until(lambda block: block["n"])
    began_s = time.monotonic()
    microphone.unplug()
    gone_s = time.monotonic()
    assert "default" in listener.until(lambda block: block["state"] == "no_audio")["reason"]
    back_s = time.monotonic()
    microphone.plug_in()
    back = listener.until(lambda block: block["state"] == "listening")
    heard_s = time.monotonic()
    listener.until(lambda block: block["n"])
    microphone.play(beep)
    assert listener.stop() == 0
    # The server itself may have held back two seconds of sound that died with it.
    assert back_s - gone_s <= back["lost"] / 16_000 <= heard_s - began_s + 2.0
    assert "was away" in back["reason"]
    assert [block["state"] for block in listener.blocks].count("no_audio") == 1
    assert sum(block["n"] for block in listener.blocks if block["peak"] > 0.4) > 0.9 * 32_000


def test_devices_are_listed_and_a_wrong_one_is_refused(microphone):
    code = """
from streamer.audio.files import open_source
from streamer.audio.portaudio import list_devices
from streamer.commands.doctor import _microphone
from streamer.errors import InputError
print([(d.name, d.host_api, d.default, d.rate > 0, d.channels > 0) for d in list_devices()])
print(_microphone().verdict.value, _microphone().detail)
for wanted in ("webcam", 99):
    try:
        open_source(device=wanted)
    except InputError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], env=microphone.env, capture_output=True, text=True, check=True)
    devices, check, by_name, by_index = done.stdout.strip().splitlines()
    assert devices == "[('pulse', 'ALSA', False, True, True), ('default', 'ALSA', True, True, True)]"
    assert check.startswith("ok 2, 'default' at ")
    assert by_name.startswith("--device webcam: no microphone's name contains that; there are 0 'pulse', 1 'default'")
    assert by_index.startswith("--device 99: is no microphone")
