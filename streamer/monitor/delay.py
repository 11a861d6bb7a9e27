"""How late the monitor is: a private PulseAudio whose null sink is room, microphone and headphones at once.

What is played into the sink's first channel the microphone hears; the headphones are its other two. A recording of all
three holds both sides of the delay on one clock, and cross-correlation finds it. What the monitor adds is the time from
the microphone's callback to the output's, and what the chain itself takes (cross-correlation again); the rest is the
devices' own. Used by `streamer doctor --monitor`.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.errors import InputError
from streamer.monitor.aid import HearingAid
from streamer.monitor.chain import Chain
from streamer.monitor.messages import Report
from streamer.settings.monitor import MonitorSettings

RATE: Final = 48_000
LISTEN_S: Final = 6.0
SETTLE_S: Final = 2.5  # the fade from silence
LONGEST_S: Final = 0.5
STALL_S: Final = 2.0
START_S: Final = 10.0
CLEAR_PEAK: Final = 8.0  # of the correlation, against its usual size: less is no measurement
PROGRAMS: Final = ("pulseaudio", "pactl", "paplay", "parec")


@dataclass(frozen=True, slots=True)
class Delay:
    """Milliseconds from the microphone to the ear, what the monitor adds of it, and how it did meanwhile."""

    total_ms: float
    added_ms: float
    report: Report

    @property
    def devices_ms(self) -> float:
        """What the devices, their drivers and the sound server take."""
        return self.total_ms - self.added_ms


def measure(settings: MonitorSettings) -> Delay:
    """Measure it with these settings; takes some 20 s. Raises InputError: what is missing, or nothing came through."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        raise InputError(f"{missing[0]} is missing")
    with tempfile.TemporaryDirectory(prefix="streamer-delay.") as folder, _server(Path(folder)) as environment:
        sound = Path(folder) / "noise.raw"
        _noise().tofile(sound)
        report, recorded = _listen(environment, settings.model_dump_json(), sound)
    return Delay(lag_ms(recorded[:, 0], recorded[:, 1]), report.held_ms + chain_ms(settings), report)


def chain_ms(settings: MonitorSettings) -> float:
    """What the chain takes: its filters and the limiter's look-ahead."""
    block = round(RATE * settings.block_ms / 1000)
    chain, noise = Chain(settings, RATE, block), _noise()
    blocks = [noise[at : at + block] for at in range(0, len(noise) // block * block, block)]
    out = np.concatenate([chain.step(one)[0] for one in blocks])
    late = round(RATE * SETTLE_S)
    return lag_ms(noise[late : len(out)], out[late:])


def lag_ms(sent: NDArray[np.float32], came: NDArray[np.float32]) -> float:
    """By how many milliseconds the second follows the first. Raises InputError where they have nothing in common."""
    size = 1 << int(np.ceil(np.log2(len(sent) + len(came))))
    spectrum = np.fft.rfft(came, size) * np.conj(np.fft.rfft(sent, size))
    correlation = np.abs(np.fft.irfft(spectrum / (np.abs(spectrum) + 1e-9), size))[: round(LONGEST_S * RATE)]
    best = int(np.argmax(correlation))
    if correlation[best] <= CLEAR_PEAK * float(np.sqrt(np.mean(correlation**2))):
        raise InputError("nothing of what the microphone heard came out of the headphones")
    return 1000 * best / RATE


def play(settings: MonitorSettings) -> Report:
    """Play the default microphone in the default output until standard input ends; how the monitor did."""
    aid = HearingAid(settings, stall_s=STALL_S)

    def close_when_asked() -> None:
        sys.stdin.read()
        aid.close()

    threading.Thread(target=close_when_asked, daemon=True).start()
    for number, _ in enumerate(aid.blocks()):
        if number == 0:
            sys.stdout.write("ready\n")
            sys.stdout.flush()
    return aid.report


def _noise() -> NDArray[np.float32]:
    """Some seconds of noise at -30 dBFS, always the same."""
    drawn = np.random.default_rng(1).standard_normal(round(RATE * (SETTLE_S + LISTEN_S)))
    return (drawn * 10 ** (-30 / 20)).astype(np.float32)


def _listen(environment: dict[str, str], given: str, sound: Path) -> tuple[Report, NDArray[np.float32]]:
    """Let another process play, make noise for its microphone, and record both sides."""
    code = "from streamer.monitor.delay import main; main()"
    player = subprocess.Popen(
        [sys.executable, "-c", code, given], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    form = ("--raw", f"--rate={RATE}", "--format=float32le")
    record = ["parec", *form, "--channels=3", "--channel-map=aux0,aux1,aux2", "-d", "room.monitor"]
    assert player.stdout is not None
    player.stdout.readline()  # it hears; an empty line if it ended
    with subprocess.Popen(["paplay", *form, "--channels=1", "-d", "speaker", str(sound)], env=environment) as noise:
        time.sleep(SETTLE_S)
        with subprocess.Popen(record, env=environment, stdout=subprocess.PIPE) as recorder:
            assert recorder.stdout is not None
            raw = recorder.stdout.read(round(3 * 4 * RATE * (LISTEN_S - 2.0)))
            recorder.kill()
        noise.kill()
    told, _ = player.communicate(timeout=20)
    if player.returncode:
        raise InputError("the monitor did not run; try `streamer run --monitor`")
    return Report(**json.loads(told)), np.frombuffer(raw, np.float32).reshape(-1, 3)


def main() -> None:
    """The process that plays: its argument are the settings, as JSON."""
    sys.stdout.write(json.dumps(asdict(play(MonitorSettings.model_validate_json(sys.argv[1])))))


def _may_have_real_time() -> bool:
    tried = shutil.which("chrt") is not None
    return tried and subprocess.run(["chrt", "--rr", "5", "true"], capture_output=True, check=False).returncode == 0


@contextmanager
def _server(folder: Path) -> Iterator[dict[str, str]]:
    """A PulseAudio of our own; the environment in which PortAudio sees it and nothing else."""
    (folder / ".asoundrc").write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\n")
    (folder / "run").mkdir(mode=0o700)
    socket = folder / "native"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PULSE_", "ALSA_", "XDG_"))}
    environment = kept | {
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(folder / "run"),
        "XDG_STATE_HOME": str(folder / "state"),
        "PULSE_SERVER": f"unix:{socket}",
    }
    modules = (
        f"module-native-protocol-unix socket={socket} auth-anonymous=1",
        # Without rewinds it keeps 50 ms at most, as a device would, and not 2 s.
        f"module-null-sink sink_name=room rate={RATE} channels=3 channel_map=aux0,aux1,aux2 norewinds=1",
        "module-remap-sink sink_name=speaker master=room channels=1 channel_map=mono master_channel_map=aux0 remix=no",
        "module-remap-sink sink_name=ears master=room channels=2 channel_map=front-left,front-right"
        " master_channel_map=aux1,aux2 remix=no",
        "module-remap-source source_name=ear master=room.monitor channels=1 channel_map=mono"
        " master_channel_map=aux0 remix=no",
    )
    # As a sound server has it on most systems; where this user may not, it goes without.
    real_time = ["chrt", "--rr", "5"] if _may_have_real_time() else []
    quiet = ("-n", "--daemonize=no", "--exit-idle-time=-1", "--disable-shm=yes", "--use-pid-file=no")
    loaded = [word for module in modules for word in ("-L", module)]
    server = subprocess.Popen([*real_time, "pulseaudio", *quiet, *loaded], env=environment, stderr=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + START_S
        while subprocess.run(["pactl", "info"], env=environment, capture_output=True, check=False).returncode:
            if server.poll() is not None or time.monotonic() > deadline_s:
                raise InputError("pulseaudio did not start")
            time.sleep(0.05)
        for words in (("set-default-sink", "ears"), ("set-default-source", "ear")):
            subprocess.run(["pactl", *words], env=environment, check=True, capture_output=True)
        yield environment
    finally:
        server.kill()
        with suppress(subprocess.TimeoutExpired):
            server.wait(5)
