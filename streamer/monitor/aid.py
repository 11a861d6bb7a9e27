"""The hearing aid as the program sees it: a microphone whose process plays it in headphones besides.

The process (`process.py`) is started, watched and started again here; what it hears is the source's sound, and what the
session says steers it. The capture thread reads its pipe in `blocks`; anybody may `tell`, `hold` and `close`.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Final, Literal

from streamer.audio.block import AudioBlock, empty
from streamer.errors import Backoff, InputError
from streamer.events import SAMPLE_RATE, SEVERITY_RANK, Alert, Event, Scene, SceneName, Severity
from streamer.monitor import headphones
from streamer.monitor.fitting import fitting_of
from streamer.monitor.messages import Begin, Heard, Opened, Refused, Report, Said, Steer, Stop, Writer, read
from streamer.settings.monitor import MonitorSettings

START_S: Final = 30.0  # a slow disk, many sound cards
HANG_S: Final = 2.0  # it says something every second
LOOK_S: Final = 0.25  # how often is looked whether it does
END_S: Final = 0.4  # to close the devices, before it is killed
REMARKS: Final = ("ALSA lib ", "Expression ", "Cannot connect to server", "jack server is not running", "connect(2)")

log = logging.getLogger(__name__)


class Steering:
    """What the session and people say, as the program to use and whether the alarm's signal sounds (pure)."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings.alarm
        self._held = settings.program != "auto"
        self._scene: SceneName | None = None if settings.program == "auto" else settings.program
        self._alerts: set[tuple[str, int]] = set()  # that sound
        self._acknowledged: set[tuple[str, int]] = set()  # that stand still
        self._seen = False  # the last that sounded: it is not only over

    @property
    def now(self) -> Steer:
        """All that is in force."""
        return Steer(self._scene, alarm=bool(self._alerts), seen=self._seen and not self._alerts)

    def tell(self, event: Event) -> None:
        """The scene chooses the program unless one is held; alerts sound until somebody has seen them."""
        if isinstance(event, Scene) and not self._held:
            self._scene = event.scene
        elif isinstance(event, Alert) and event.source == "live":
            key = event.session, event.id
            if event.state == "acknowledged":
                self._alerts.discard(key)
                self._acknowledged.add(key)
                self._seen = True
            elif event.state == "cleared":
                self._seen = self._seen and key not in self._alerts
                self._alerts.discard(key)
                self._acknowledged.discard(key)
            elif self._is_meant(event.severity) and key not in self._acknowledged:  # news of one that was seen is none
                self._alerts.add(key)

    def _is_meant(self, severity: Severity) -> bool:
        return self._settings.enabled and SEVERITY_RANK[severity] >= SEVERITY_RANK[self._settings.severity]

    def hold(self, program: SceneName | Literal["auto"]) -> None:
        """Hold one scene's program, or let the scene choose again."""
        self._held = program != "auto"
        if program != "auto":
            self._scene = program


class HearingAid:
    """A `Source`: one microphone, played in headphones while it is heard.

    Raises InputError where a device does not fit or cannot be opened, UsageError where nobody said that the output is
    headphones. `command`: what runs the process.
    """

    live = True

    def __init__(
        self,
        settings: MonitorSettings,
        device: int | str | None = None,
        *,
        stall_s: float,
        command: Sequence[str] = (sys.executable, "-P", "-m", "streamer.monitor.process"),
    ) -> None:
        level = logging.getLogger("streamer.monitor").getEffectiveLevel()
        self._begin, self._command = Begin(settings, device, stall_s, level), command
        self.report, self.fitting = Report(), fitting_of(settings)
        self._steering, self._lock = Steering(settings), threading.Lock()
        self._closed = threading.Event()
        self.restarts = 0  # of the process
        try:
            opened = self._start().open()
            headphones.require(opened.plain_output, confirmed=settings.headphones)
        except BaseException:
            self.close()
            raise
        self.name, self.output = opened.microphone, opened.output

    def blocks(self) -> Iterator[AudioBlock]:
        """Blocks until `close`. A process that ends is `degraded`, once; a new one is started, ever less often.

        What was not heard meanwhile is a loss, by the clock. Raises InputError where the first cannot open a device.
        """
        process, backoff = self._process, Backoff()
        last_s: float | None = None  # when the last block was complete
        away = ""  # why nothing was heard since
        while True:
            try:
                if away:
                    process.open()
                for heard in self._heard(process):
                    block = heard.block
                    if away and last_s is not None:
                        lost = round((heard.at_s - last_s) * SAMPLE_RATE) - len(block.samples) + block.lost_samples
                        block = replace(block, lost_samples=max(0, lost), reason=block.reason or away)
                    last_s, away = heard.at_s, ""
                    yield block
                why = f"the hearing aid's process {process.ending}"
            except InputError as error:
                if last_s is None and not away:
                    raise
                why = f"the hearing aid cannot go on: {error}"
            rest_s = backoff.rest_s(time.monotonic())
            if not self._closed.is_set():
                log.error("monitor: %s; it is started again in %g s", why, rest_s)
                if not away:
                    yield AudioBlock(empty(), reason=f"{why}; it is started again", state="degraded")
            away = why
            if self._closed.wait(rest_s):
                return
            self.restarts += 1
            process = self._start()

    def close(self) -> None:
        """Silence, and the end of `blocks`. From any thread, any number of times."""
        self._closed.set()
        with self._lock:
            process = self._process
        process.end()

    def tell(self, event: Event) -> None:
        """What the session says. From any thread."""
        if isinstance(event, Scene | Alert):
            with self._lock:
                self._steering.tell(event)
                self._process.steer(self._steering.now)

    def hold(self, program: SceneName | Literal["auto"]) -> None:
        """Hold one scene's program, or let the scene choose again. From any thread."""
        with self._lock:
            self._steering.hold(program)
            self._process.steer(self._steering.now)

    def _start(self) -> "_Process":
        with self._lock:
            self._process = process = _Process(self._command, self._begin)
        if self._closed.is_set():
            process.end()
        return process

    def _heard(self, process: "_Process") -> Iterator[Heard]:
        """What one process hears, to its end. Raises InputError: why it cannot."""
        with self._lock:
            process.play(self._steering.now)
        for message in process.messages():
            match message:
                case Heard():
                    yield message
                case Report():
                    self.report = message
                case Refused(detail=detail):
                    raise InputError(detail)


class _Process:
    """One run of the process. It lives as long as this end of its standard input is open.

    One thread reads what it says; what it is told is written under the lock of `HearingAid`.
    """

    def __init__(self, command: Sequence[str], begin: Begin) -> None:
        home = str(Path(__file__).parents[2])  # the same Streamer as this one, however it was found
        paths = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
        flags = 0
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.HIGH_PRIORITY_CLASS
        self._popen = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal is for the program, which ends this one
            creationflags=flags,
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        assert self._popen.stderr is not None
        self._out, self._said = Writer(self._popen.stdin), self._popen.stdout
        self._steer: Steer | None = None  # what it was told last; None: it does not play yet
        self._ended = threading.Event()
        self._hung = False  # it was ended here, for it said nothing
        self._waits_since_s: float | None = None  # the reader, for the next message
        self._patience_s = START_S
        threading.Thread(target=self._watch, name="monitor-watch", daemon=True).start()
        threading.Thread(target=_note, args=(self._popen.stderr,), name="monitor-chatter", daemon=True).start()
        self._tell(begin)

    def open(self) -> Opened:
        """Let it find the devices. Raises InputError: why it cannot."""
        for message in self.messages():
            if isinstance(message, Opened):
                self._patience_s = HANG_S
                return message
            if isinstance(message, Refused):
                raise InputError(message.detail)
        raise InputError(f"--monitor: the hearing aid's process {self.ending}")

    def play(self, steer: Steer) -> None:
        """Begin."""
        self._steer = steer
        self._tell(steer)

    def steer(self, steer: Steer) -> None:
        """Where it plays: from the next block on."""
        if self._steer is not None and steer != self._steer:
            self.play(steer)

    def messages(self) -> Iterator[Any]:
        """What it says, to its end; the lines of its log are written here."""
        while True:
            self._waits_since_s = time.monotonic()
            try:
                message = read(self._said)
            except EOFError:
                self._ended.set()
                return
            finally:
                self._waits_since_s = None
            if isinstance(message, Said):
                logging.getLogger(message.logger).log(message.level, "%s", message.text)
            else:
                yield message

    @property
    def ending(self) -> str:
        """What became of it, once it said all."""
        try:
            status = self._popen.wait(HANG_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            status = self._popen.wait()
        if self._hung:
            return f"hangs: it said nothing for {self._patience_s:g} s"
        return f"ended (signal {-status})" if status < 0 else f"ended (status {status})"

    def end(self) -> None:
        """Let it close the devices, for a moment; then it ends in any case."""
        self._tell(Stop())
        try:
            self._popen.wait(END_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
        self._ended.set()

    def _tell(self, message: object) -> None:
        with suppress(OSError):  # it is gone, which who reads learns
            self._out.write(message)

    def _watch(self) -> None:
        """Kill it where it has said nothing for too long, though somebody waits: twice, for both may have slept."""
        late = False
        while not self._ended.wait(LOOK_S):
            since_s = self._waits_since_s
            was_late, late = late, since_s is not None and time.monotonic() - since_s > self._patience_s
            if was_late and late:
                self._hung = True
                self._popen.kill()
                return


def _note(chatter: IO[bytes]) -> None:
    """What libraries print in that process, to its end: ALSA's and PortAudio's remarks, of which a busy machine makes
    one a second, are for --debug; all else (why Python ends) is worth a warning.
    """
    for line in chatter:
        text = line.decode("utf-8", "replace").rstrip()
        if text:
            log.log(logging.DEBUG if text.startswith(REMARKS) else logging.WARNING, "monitor: %s", text)
