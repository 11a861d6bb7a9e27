"""Faults of the whole program, in a process of its own: the end with a backlog, full disks, what systemd is told."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from program import LONG_S, ROOT, environment, events_of, write_wav
from protocol import check_session

from streamer.audio.files import demo_path, read_audio
from streamer.events import SAMPLE_RATE

SLOW = """
import os, signal, sys, threading, time
from streamer.model.engine import Engine
from streamer.runtime.worker import Worker
step, serve = Engine.step, Worker.start
def slow(self, work):
    threading.Event().wait(2.2)  # longer than all have for their last words
    return step(self, work)
def start(self):
    def later():
        while min((lane.lag_s for lane in self.lanes()), default=0.0) < 3.0:
            time.sleep(0.1)
        print("signal", time.monotonic(), file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
    serve(self)
    threading.Thread(target=later, daemon=True).start()
Engine.warm_up = lambda self: None
Engine.step, Worker.start = slow, start
from streamer.commands.cli import program
status = program(["run", "--config", sys.argv[1], "--model", "nano", "--no-server", "--quiet", "--jsonl", sys.argv[2]])
print("ended", time.monotonic(), file=sys.stderr, flush=True)
sys.exit(status)
"""


def test_sigterm_with_a_backlog_ends_in_time_with_everything_said(tmp_path):
    names = ["a", "b", "c", "d"]
    config, path = tmp_path / "four.yaml", tmp_path / "events.jsonl"
    config.write_text("sources:\n" + "".join(f"  - {{name: {name}, input: demo}}\n" for name in names))
    # The hop must not grow, or there is no backlog.
    config.write_text(config.read_text() + "window:\n  hop_max_s: 0.5\n")
    done = subprocess.run(
        [sys.executable, "-c", SLOW, str(config), str(path)],
        capture_output=True,
        text=True,
        timeout=LONG_S,
        cwd=ROOT,
        env=environment(),
        check=False,
    )
    times = [float(line.split()[1]) for line in done.stderr.splitlines() if line.startswith(("signal", "ended"))]
    assert done.returncode == 0, done.stderr
    assert times[1] - times[0] < 5
    events = events_of(path.read_text())
    for name in names:
        own = [event for event in events if event["session"] == name]
        check_session(own, degraded=True)
        assert "the program had to end before the last" in own[-1]["detail"]


def spoken(folder: Path, seconds: int) -> Path:
    """The beginning of the demo as a file."""
    return write_wav(folder / "spoken.wav", read_audio(str(demo_path()))[: seconds * SAMPLE_RATE])


HANG = """
import sys, threading
from streamer.model.engine import Engine
step, engines = Engine.step, []
def hang(self, work):
    if self not in engines:
        engines.append(self)
    self.asked = getattr(self, "asked", 0) + 1
    if len(engines) <= int(sys.argv[2]) and (self.asked == 4 or self is not engines[0]):
        threading.Event().wait()
    return step(self, work)
Engine.step = hang
Engine.warm_up = lambda self: None
from streamer.runtime import supervisor
supervisor.HANG_S = 3.0  # instead of 10: three engines hang one after the other
from streamer.commands.cli import program
options = ["--model", "nano", "--no-server", "--quiet", "--jsonl", sys.argv[1]]
sys.exit(program(["run", "--input", sys.argv[3], *options]))
"""


@pytest.mark.parametrize(("hangs", "status"), [(1, 0), (9, 1)])
def test_a_model_that_hangs_is_said_and_replaced_or_the_program_ends_for_a_new_one(hangs, status, tmp_path):
    path = tmp_path / "events.jsonl"
    command = [sys.executable, "-c", HANG, str(path), str(hangs), str(spoken(tmp_path, 12))]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LONG_S, cwd=ROOT, env=environment(), check=False
    )
    assert done.returncode == status, done.stderr
    events = events_of(path.read_text())
    check_session(events, degraded=True)
    said = [(event["state"], event["detail"]) for event in events if event["type"] == "status"]
    assert any(detail.startswith("the model has not answered for ") for _, detail in said)
    assert said[-1][0] == "stopped"
    if status:
        assert "must be started again" in done.stderr
    else:
        back = [number for number, (state, _) in enumerate(said) if state == "listening"][-1]
        assert back > 1
        assert any(event["type"] == "transcript" and event["final"] for event in events)


HOST = """
import sys, threading
from streamer.commands.cli import main
threading.Thread(target=threading.Event().wait, name="worker", daemon=True).start()
assert main(["run", "--input", "nothing.wav", "--model", "nano", "--no-server"]) == 2
"""


def test_a_program_that_calls_the_command_line_keeps_its_own_exit_status():
    done = subprocess.run([sys.executable, "-c", HOST], capture_output=True, cwd=ROOT, env=environment(), check=False)
    assert done.returncode == 0, done.stderr


FULL = """
import json, resource, signal, sys, time
from streamer.events import Status
from streamer.output.outlet import Outlet, Sinks
from streamer.settings.config import OutputSettings
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
said = []
sinks = Sinks(OutputSettings(jsonl=sys.argv[1]), ["s"])
sinks.begin()
outlet = Outlet(sinks, lambda *one: said.append(one))
outlet.start()
def put(numbers):
    outlet.put([Status(session="s", seq=n, audio_t=0.0, state="listening", detail="x" * 90) for n in numbers])
def until(count):
    while len(said) < count:
        time.sleep(0.01)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
put(range(1, 11))
resource.setrlimit(resource.RLIMIT_FSIZE, (2500, hard))
put(range(11, 31))
until(1)
during = open(sys.argv[1]).read()
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
until(2)
put([31])
assert outlet.stop(None)
print(json.dumps({"said": said, "during": during, "failed": sinks.failed}))
"""


def test_a_disk_that_is_full_is_a_state_that_ends_and_no_line_is_lost(tmp_path):
    """The kernel's own limit of a file's size stands for the full disk."""
    path = tmp_path / "events.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, timeout=LONG_S, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    (report,) = events_of(done.stdout)
    assert report["during"].endswith("\n")  # valid while the disk is full
    assert 0 < len(events_of(report["during"])) < 30
    assert [state for state, _ in report["said"]] == ["degraded", "listening"]
    assert report["said"][0][1].startswith(f"--jsonl {path}: cannot be written any more")
    assert not report["failed"]
    assert [event["seq"] for event in events_of(path.read_text())] == list(range(1, 32))


def run(*arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "run_stream.py"), *arguments]
    env = environment(more)
    return subprocess.run(command, capture_output=True, text=True, timeout=LONG_S, cwd=ROOT, env=env, check=False)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux' /dev/full")
def test_everybody_is_told_of_captions_that_cannot_be_written(tmp_path):
    path = tmp_path / "events.jsonl"
    files = ("--srt", "/dev/full", "--jsonl", str(path))
    done = run("--input", str(spoken(tmp_path, 12)), "--model", "nano", "--no-server", "--quiet", *files)
    assert done.returncode == 1  # not all was written in the end
    events = events_of(path.read_text())
    check_session(events, degraded=True)
    told = [event for event in events if event["type"] == "status" and event["state"] == "degraded"]
    assert any("--srt /dev/full: cannot be written any more" in event["detail"] for event in told)


def test_what_was_said_is_readable_by_its_owner_only(tmp_path):
    made = tmp_path / "out"
    files = ("--jsonl", str(tmp_path / "a.jsonl"), "--srt", str(tmp_path / "a.srt"), "--vtt", str(tmp_path / "a.vtt"))
    sound = str(spoken(tmp_path, 4))
    assert run("--input", sound, "--speed", "0", "--model", "nano", "--no-server", "--quiet", *files).returncode == 0
    made.mkdir()
    command = [sys.executable, "-m", "streamer.commands.cli", "transcribe", sound, "--model", "nano"]
    command += ["--output", str(made)]
    subprocess.run(command, check=True, timeout=LONG_S, cwd=ROOT, env=environment(), capture_output=True)
    written = [*tmp_path.glob("a.*"), *made.iterdir()]
    assert len(written) >= 4
    assert {stat.S_IMODE(file.stat().st_mode) for file in written} == {0o600}


def test_systemd_is_told_when_it_listens_that_it_lives_and_that_it_ends(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
        address = f"\0streamer-test-{os.getpid()}"
        way.bind(address)
        way.settimeout(LONG_S)
        process = subprocess.Popen(
            [
                sys.executable,
                str(ROOT / "run_stream.py"),
                "--input",
                "demo",
                "--model",
                "nano",
                "--quiet",
                "--port",
                "0",
            ],
            cwd=ROOT,
            env=environment({"NOTIFY_SOCKET": f"@{address[1:]}", "WATCHDOG_USEC": "1000000"}),
            stderr=subprocess.DEVNULL,
        )
        try:
            said: list[str] = []
            while said.count("WATCHDOG=1") < 4:
                said += way.recv(4096).decode().splitlines()
            process.send_signal(signal.SIGTERM)
            while said[-1] != "STOPPING=1":
                said += way.recv(4096).decode().splitlines()
            assert process.wait(LONG_S) == 0
        finally:
            process.kill()
    assert said.index("READY=1") < said.index("WATCHDOG=1")
    assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in said[: said.index("READY=1")])


def test_the_unit_file_asks_for_what_the_program_does():
    unit = (ROOT / "configs" / "streamer.service").read_text().splitlines()
    assert {"Type=notify", "WatchdogSec=20", "Restart=on-failure", "TimeoutStopSec=10"} <= set(unit)
    assert {"StartLimitIntervalSec=0", "UMask=0077", "CapabilityBoundingSet=", "ProtectSystem=strict"} <= set(unit)
    hidden = ("PrivateDevices=", "ProtectClock=", "MemoryDenyWriteExecute=")  # without them there is no sound, no model
    assert not any(line.startswith(hidden) for line in unit)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_unit_file(tmp_path):
    unit = (ROOT / "configs" / "streamer.service").read_text()
    unit = unit.replace("/opt/streamer/.venv/bin/streamer", "/bin/true").replace("User=streamer", "User=root")
    (tmp_path / "streamer.service").write_text(unit)
    command = ["systemd-analyze", "verify", str(tmp_path / "streamer.service")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
