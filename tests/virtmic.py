"""A microphone that anyone can own: a private PulseAudio whose null sink's monitor is the default source.

    with VirtualMicrophone(tmp_path) as microphone:
        subprocess.Popen([...], env=microphone.env)     # PortAudio reads the environment when it starts: a subprocess
        microphone.play("speech.wav")                   # speaks into it
        microphone.unplug(); microphone.plug_in()       # the server goes and comes back

`env` is all that a program needs to see it as `pulse` and `default`; the machine's own sound settings are not touched.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType

import pytest

RATE = 16_000
SINK = "virtmic"
START_S = 20.0
needs_pulseaudio = pytest.mark.skipif(
    shutil.which("pulseaudio") is None or shutil.which("paplay") is None,
    reason="pulseaudio is not installed: sudo apt-get install pulseaudio",
)


class VirtualMicrophone:
    """A running server with one null sink, `virtmic`, 16 kHz mono; what is played into it, the microphone hears."""

    def __init__(self, directory: Path, rate: int = RATE) -> None:
        self._home, self._rate = directory / "virtmic", rate
        self._home.mkdir(parents=True, exist_ok=True)
        (self._home / ".asoundrc").write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\n")
        (self._home / "run").mkdir(mode=0o700, exist_ok=True)
        # A socket's path may have 107 bytes at most: pytest's directories can be longer, so it lies in one of its own.
        self._socket_dir = Path(subprocess.check_output(["mktemp", "-d", "/tmp/virtmic.XXXXXX"], text=True).strip())
        self._socket = self._socket_dir / "native"
        self._server: subprocess.Popen[bytes] | None = None
        self.env = self._environment()

    def __enter__(self) -> "VirtualMicrophone":
        self.plug_in()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unplug()
        shutil.rmtree(self._socket_dir, ignore_errors=True)

    def plug_in(self) -> None:
        """Start the server and wait until it answers."""
        self._socket.unlink(missing_ok=True)
        log = (self._home / "pulseaudio.log").open("ab")
        sink = (
            f"module-null-sink sink_name={SINK} rate={self._rate} channels=1 sink_properties=device.description={SINK}"
        )
        self._server = subprocess.Popen(
            [
                *(
                    "pulseaudio",
                    "-n",
                    "--daemonize=no",
                    "--exit-idle-time=-1",
                    "--disable-shm=yes",
                    "--use-pid-file=no",
                ),
                *("-L", f"module-native-protocol-unix socket={self._socket} auth-anonymous=1", "-L", sink),
            ],
            env=self.env,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        log.close()
        self._wait_until_it_answers()
        self.command("set-default-source", f"{SINK}.monitor")

    def unplug(self) -> None:
        """Kill the server: every program that listens loses its microphone."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def command(self, *words: str) -> str:
        """Run `pactl` against this server and return what it printed."""
        return subprocess.check_output(["pactl", *words], env=self.env, text=True, timeout=30)

    def play(self, path: str | Path) -> None:
        """Speak a file into the microphone, in real time, and return when it is over."""
        subprocess.run(["paplay", "-d", SINK, str(path)], env=self.env, check=True)

    def start_playing(self, path: str | Path) -> "subprocess.Popen[bytes]":
        """Speak a file into the microphone meanwhile; wait for the process or kill it."""
        return subprocess.Popen(["paplay", "-d", SINK, str(path)], env=self.env)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PULSE_", "ALSA_", "XDG_"))}
        home = str(self._home)
        return kept | {
            "HOME": home,
            "XDG_RUNTIME_DIR": str(self._home / "run"),
            "XDG_CONFIG_HOME": str(self._home / ".config"),
            "PULSE_SERVER": f"unix:{self._socket}",
        }

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_S
        while subprocess.run(["pactl", "info"], env=self.env, capture_output=True, check=False).returncode != 0:
            assert self._server is not None
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._home / "pulseaudio.log").read_text())
            time.sleep(0.05)
