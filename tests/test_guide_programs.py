"""docs/guides/my-own-program.md, followed to the letter: its programs and commands against the running program."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from program import ROOT, Program, write_wav

from streamer.audio.files import demo_path, read_audio

pytest.importorskip("aiohttp")
TEXT = (ROOT / "docs" / "guides" / "my-own-program.md").read_text("utf-8")
LIMIT_S = 90


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def program():
    (command, *_) = blocks("sh")
    words = shlex.split(command)
    assert words[:2] == ["streamer", "run"]
    with Program(*words[2:], "--model", "nano", "--port", "0") as running:
        line = running.wait_for_stderr("captions and sounds: http://")
        running.address = line.split("captions and sounds: http://")[1].split("/")[0]
        running.wait_for_stderr("listening with nano (")
        yield running
        running.signal(signal.SIGTERM)
        assert running.wait(30) == 0


@pytest.fixture
def folder(tmp_path):
    """Where somebody works, with a recording of what the bundled model understands."""
    write_wav(tmp_path / "talk.wav", read_audio(demo_path("nano"))[: 12 * 16_000])
    return tmp_path


def said(program, folder: Path, command: list[str], enough: int | None = None, **more) -> str:
    """What a command prints: all of it, or `enough` lines of a program that never ends."""
    places = {
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = [word.replace("localhost:8765", program.address) for word in command]
    with subprocess.Popen(
        command, cwd=folder, env={**os.environ, **places}, stdout=subprocess.PIPE, text=True, **more
    ) as running:
        limit = threading.Timer(LIMIT_S, running.kill)
        limit.start()
        assert running.stdout is not None
        lines = [line for line, _ in zip(running.stdout, range(enough or 10_000), strict=False)]
        if enough:
            running.kill()
        limit.cancel()
    if not enough:
        assert running.returncode == 0
    return "".join(lines)


def saved(program, folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text.replace("localhost:8765", program.address))
    return name


def node() -> str:
    """One that is new enough: it comes with playwright."""
    driver = pytest.importorskip("playwright._impl._driver")
    return str(driver.compute_driver_executable()[0])


def test_sending_a_recording_in_python(program, folder):
    _, listen = blocks("python")
    told = said(program, folder, [sys.executable, saved(program, folder, "listen.py", listen), "talk.wav"])
    assert re.match(r"\d+\.\d s: \w+", told)


def test_the_program_in_python(program, folder):
    captions, _ = blocks("python")
    command = [sys.executable, saved(program, folder, "captions.py", captions)]
    lines = said(program, folder, command, enough=3).split("\n")
    assert any(line and not line.startswith(("[", "ALERT")) for line in lines)


def test_the_program_in_javascript(program, folder):
    (captions,) = blocks("js")
    fetch = next(command for command in blocks("sh") if "client.mjs" in command)
    said(program, folder, [*shlex.split(fetch), "--silent"])
    lines = said(program, folder, [node(), saved(program, folder, "captions.mjs", captions)], enough=3).split("\n")
    assert any(line and not line.startswith(("[", "ALERT")) for line in lines)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_commands_for_a_terminal(program, folder):
    _, _, upload, ready, _ = blocks("sh")
    assert re.search(r"\w", said(program, folder, [*shlex.split(upload), "--silent"]))
    assert json.loads(said(program, folder, [*shlex.split(ready), "--silent"])) == {"ready": True, "troubles": {}}


def test_events_in_a_terminal(program, folder):
    *_, listen = blocks("sh")
    told = said(program, folder, shlex.split(listen), enough=20, stdin=subprocess.PIPE)
    assert '"type":"transcript"' in told
