"""The program that is tried: `streamer run` in a process of its own, with places where faults go in.

    python -m streamer.bench.chaos.program run --config …

takes faults as lines of JSON on stdin: {"fault": "raise", "times": 3}. What is not asked for changes nothing.
"""

import json
import os
import resource
import runpy
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamer.errors import DeviceFailed

HANG_S = 30.0  # longer than anybody waits for a step
SPARE_FILES = 24  # how many more descriptors a process may open that runs out of them
_real_time = time.time


class Faults:
    """What the next steps of the model do, and what else is asked (the thread that reads stdin)."""

    def __init__(self) -> None:
        self._steps: deque[str] = deque()
        self._slow_s = 0.0
        self._limits = {kind: resource.getrlimit(kind) for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)}

    def install(self) -> None:
        """Put the faults into the model's step."""
        from streamer.model.engine import Engine

        whole = Engine.step

        def step(engine: Engine, work: Any) -> Any:
            time.sleep(self._slow_s)
            match self._steps.popleft() if self._steps else "":
                case "raise":
                    raise RuntimeError("chaos: the model raises")
                case "device":
                    raise DeviceFailed("chaos: the device failed")
                case "hang":
                    time.sleep(HANG_S)
                case "end":
                    raise SystemExit("chaos: the thread ends")
            return whole(engine, work)

        Engine.step = step  # type: ignore[method-assign,assignment]

    def listen(self) -> None:
        """Take faults until stdin ends."""
        for line in sys.stdin:
            self.take(json.loads(line))

    def take(self, told: dict[str, Any]) -> None:
        """Carry out one line, or have the next steps do it."""
        match told["fault"]:
            case "slow":
                self._slow_s = float(told["seconds"])
            case "clock":
                shift_s = float(told["seconds"])
                time.time = lambda: _real_time() + shift_s
            case "disk":  # no file may grow beyond this, as if the disk were full
                self._limit(resource.RLIMIT_FSIZE, int(told["bytes"]))
            case "files":
                self._limit(resource.RLIMIT_NOFILE, len(os.listdir("/proc/self/fd")) + SPARE_FILES)
            case "none":
                for kind, (soft, _) in self._limits.items():
                    self._limit(kind, soft)
            case other:
                self._steps.extend([other] * int(told.get("times", 1)))

    def _limit(self, kind: int, soft: int) -> None:
        resource.setrlimit(kind, (soft, self._limits[kind][1]))


class Program:
    """One process of it. `said`: its stderr, which goes on in the same file after a restart."""

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        command = [sys.executable, "-m", "streamer.bench.chaos.program", "run", *arguments]
        environment = {**os.environ, "XDG_STATE_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        with (folder / "stderr.log").open("ab") as said:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said, env=environment
            )

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def ask(self, fault: str, **more: object) -> None:
        """Have it go wrong."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"fault": fault, **more}).encode() + b"\n")
        self._process.stdin.flush()

    def end(self, timeout_s: float) -> tuple[int, float]:
        """SIGTERM: the exit status, and the seconds until then. Raises subprocess.TimeoutExpired."""
        began_s = time.monotonic()
        self._process.terminate()
        return self._process.wait(timeout_s), time.monotonic() - began_s

    def kill(self) -> None:
        """As `kill -9` does; any number of times."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def sizes(self) -> tuple[float, int, int]:
        """Resident memory in MiB, open descriptors, threads."""
        own = Path("/proc") / str(self._process.pid)
        pages = int((own / "statm").read_text(encoding="ascii").split()[1])
        threads = len(os.listdir(own / "task"))
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(os.listdir(own / "fd")), threads


def main() -> None:
    """Become the program, as `python -m streamer.commands.cli` is, with the faults in place."""
    faults = Faults()
    faults.install()
    threading.Thread(target=faults.listen, name="chaos", daemon=True).start()
    runpy.run_module("streamer.commands.cli", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
