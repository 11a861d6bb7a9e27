"""The hearing aid's own process: microphone, chain and headphones, where no model computes and nobody else's lock is.

    main thread: Microphone.blocks ─► pipe to the program (16 kHz, what it captions)
    `monitor` thread: path.py         `control` thread: what the program says    `reports` thread: once a second

Started by `aid.py` with pipes as standard input and output; it imports numpy and the audio libraries, neither the model
nor the server. A program that does not read makes the main thread wait: then the microphone's buffer of 10 s fills, and
what is lost there is a gap of known length. The headphones wait for none of it.

It ends when it is told to, or at once when the pipe from the program ends, however the program did. Ctrl-C and the
signal of a service that is stopped go to the whole group of processes: this one leaves them to the program.
"""

import gc
import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from typing import IO, Final

from streamer.audio.microphone import Microphone
from streamer.audio.portaudio import SharedAudio
from streamer.errors import DeviceLost, InputError
from streamer.monitor.messages import Begin, Heard, Opened, Refused, Said, Steer, Writer, read
from streamer.monitor.path import Monitor
from streamer.monitor.priority import ask_for_priority

REPORT_S: Final = 1.0
SWITCH_S: Final = 0.001  # within so long a thread that computes in Python lets another have its turn


class _Lines(logging.Handler):
    """Lines of the log, which the program writes: kept until the `reports` thread sends them, the last 200."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: deque[Said] = deque(maxlen=200)

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append(Said(record.levelno, record.name, self.format(record)))

    def send(self, out: Writer) -> None:
        """All that are kept."""
        while self._kept:
            out.write(self._kept.popleft())


def main() -> int:
    """Play until the program says `Stop` or is gone; the exit status."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    priority = ask_for_priority()  # before there are threads: those of PortAudio and ours inherit it
    out, commands = Writer(_own_stdout()), sys.stdin.buffer
    begin: Begin = read(commands)
    lines = _Lines()
    logging.getLogger().addHandler(lines)
    logging.getLogger().setLevel(begin.log_level)
    sys.setswitchinterval(SWITCH_S)
    try:
        audio = SharedAudio()
        monitor = Monitor(begin.settings, audio, priority)
        microphone = Microphone(begin.device, backend=audio, stall_s=begin.stall_s, tap=monitor)
        out.write(Opened(microphone.name, monitor.name, monitor.plain_name))
        if not isinstance(steer := read(commands), Steer):
            return 0
        monitor.steer(steer)
        threading.Thread(target=_obey, args=(commands, monitor, microphone), name="control", daemon=True).start()
        # Nothing here makes reference cycles while sound goes through, and a collection would be a hole in it.
        gc.collect()
        gc.freeze()
        gc.disable()
        _play(microphone, monitor, lines, out)
    except (InputError, DeviceLost) as error:
        out.write(Refused(str(error)))
        return 1
    except EOFError:
        return 1
    return 0


def _play(microphone: Microphone, monitor: Monitor, lines: _Lines, out: Writer) -> None:
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(REPORT_S):
            lines.send(out)
            out.write(monitor.report)

    reports = threading.Thread(target=report, name="reports", daemon=True)
    reports.start()
    monitor.start()
    try:
        for block in microphone.blocks():
            out.write(Heard(block, time.monotonic()))
    finally:
        monitor.stop()
        ended.set()
        reports.join()
        lines.send(out)
        out.write(monitor.report)


def _obey(commands: IO[bytes], monitor: Monitor, microphone: Microphone) -> None:
    """What the program says, until it says `Stop` or is gone."""
    try:
        while isinstance(told := read(commands), Steer):
            monitor.steer(told)
    except EOFError:
        os._exit(1)  # whatever still plays ends with the process
    microphone.close()


def _own_stdout() -> IO[bytes]:
    """Standard output for messages alone: what libraries print goes to standard error."""
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return own


if __name__ == "__main__":
    sys.exit(main())
