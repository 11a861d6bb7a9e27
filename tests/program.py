"""Running the real program in a subprocess, as a person would."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import wave
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import streamer
from streamer.errors import DownloadError

ROOT = Path(__file__).resolve().parents[1]
LONG_S = 120
STATE = tempfile.mkdtemp(prefix="streamer-tests-")  # not the home of whoever runs the tests


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "run_stream.py"), *arguments]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    home = {"XDG_STATE_HOME": STATE, "XDG_CONFIG_HOME": STATE}
    quiet = home | {"PYTHONUNBUFFERED": "1", "STREAMER_MACHINE_FACTS": f"{os.devnull}/none"}
    return {**os.environ, **quiet, **(more or {})}


def run(*arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*arguments),
        input=stdin,
        capture_output=True,
        timeout=LONG_S,
        cwd=ROOT,
        env=environment(env),
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def write_wav(path: Path, samples: NDArray[np.float32], rate: int = 16_000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())
    return path


class Program:
    """The program, running; its stdout is read line by line, its stderr collected."""

    def __init__(self, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(env),
        )
        self.stderr: list[str] = []
        self.address = ""  # HOST:PORT of its server, where it was waited for
        self._said = threading.Condition()
        threading.Thread(target=self._read_stderr, daemon=True).start()

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10)

    def events(self) -> Iterator[dict[str, Any]]:
        """Events as they are printed (`--jsonl -`)."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield json.loads(line)

    def wait_for_stderr(self, text: str) -> str:
        """The first line of stderr with this text."""
        with self._said:
            found = self._said.wait_for(lambda: [line for line in self.stderr if text in line], LONG_S)
            assert found, "".join(self.stderr)
            return str(found[0])

    def signal(self, number: int = signal.SIGINT) -> None:
        self._process.send_signal(number)

    def wait(self, timeout_s: float = LONG_S) -> int:
        return self._process.wait(timeout_s)

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._said:
                self.stderr.append(line)
                self._said.notify_all()


@contextmanager
def for_senders(config: Path) -> Iterator[Program]:
    """The program with `tiny.en` that listens to senders, and its `address`; at the end it is asked to leave.

    Skips the test where the weights cannot be had.
    """
    try:
        streamer.load_model("tiny.en", head=None)
    except DownloadError as error:
        pytest.skip(f"needs tiny.en, which is not here and cannot be fetched: {error}")
    with Program("--config", str(config), "--model", "tiny.en", "--head", "none") as running:
        line = running.wait_for_stderr("captions and sounds: http://")
        running.address = line.split("captions and sounds: http://")[1].split("/")[0]
        running.wait_for_stderr("listening with tiny.en (")
        yield running
        running.signal(signal.SIGTERM)
        assert running.wait(30) == 0
