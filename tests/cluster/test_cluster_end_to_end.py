"""The real thing on Ray, on this machine, with nano: the same events, engines that are killed, sessions that move.

Skipped where Ray is not installed (extra `cluster`). A cluster takes some seconds, and 0.6 GB for each engine.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program import ROOT, environment, events_of, run, write_wav
from protocol import check_session
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from streamer.audio.files import demo_path, read_audio
from streamer.audio.mel import MelFrames
from streamer.cluster.connect import Cluster
from streamer.cluster.wish import ModelWish
from streamer.errors import EngineError, UsageError
from streamer.events import Event, Status
from streamer.events.plans import DecodeTask, StepRequest
from streamer.model.choice import load_model
from streamer.model.engine import Engine, Work
from streamer.model.outline import ModelOutline
from streamer.settings.cluster import ClusterSettings
from streamer.settings.config import Settings

if find_spec("ray") is None:
    pytest.skip("needs Ray (extra `cluster`)", allow_module_level=True)
pytestmark = [pytest.mark.timeout(280), pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")]

SECOND = 16_000
BACK_S = 60.0  # within which a new engine is there, on a busy machine


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    """Where Ray keeps its sockets and logs: their paths must be short."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    before = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = folder
    yield folder
    if before is None:
        del os.environ["RAY_TMPDIR"]
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(place: str) -> Iterator[tuple[Cluster, ModelOutline]]:
    settings = Settings.model_validate({"model": {"name": "nano"}, "own_sounds": {"enabled": False}})
    wish = ModelWish.of(settings, frozenset({""}), translate=False)
    found = Cluster(ClusterSettings(address="local", replicas=2), wish)
    try:
        yield found, found.open()
    finally:
        found.close()


def windows(model: Any, count: int) -> list[Work]:
    mel = MelFrames(model.dims.n_mels)
    mel.append(read_audio(demo_path("nano"))[: 8 * SECOND])
    task = DecodeTask(language="en", max_new_tokens=6)
    return [(mel, StepRequest(1600 * place, 1600 * place + 4 * SECOND, (2.0,), task)) for place in range(count)]


def test_engines_elsewhere_find_what_one_here_finds(cluster):
    there, outline = cluster
    here = Engine(load_model("nano"))
    assert outline.name == here.model.name
    work = windows(here.model, 3)
    for one in work:  # alone: how windows share a step may change the last bits
        (near,), (far,) = here.step([one]), there.engine(outline, "auto").step([one])
        assert (near.request, near.hypothesis, near.own) == (far.request, far.hypothesis, far.own)
        assert len(near.judgement) == len(far.judgement) == 1
        assert np.array_equal(near.judgement[0].scores, far.judgement[0].scores)


def test_what_an_engine_takes_with_it_is_done_by_another(cluster):
    there, outline = cluster
    engine = there.engine(outline, "auto")
    work = windows(outline, 4)
    asked = [request for _, request in work]
    over, counts, failures = threading.Event(), [0], list[Exception]()

    def keep_asking() -> None:
        try:
            while not over.is_set():
                assert [one.request for one in engine.step(work)] == asked
                counts[0] += 1
        except (EngineError, AssertionError) as error:
            failures.append(error)

    thread = threading.Thread(target=keep_asking)
    thread.start()
    try:
        for _ in range(2):
            until_s = time.monotonic() + BACK_S
            while (there.replicas() < 2 or counts[0] < 3) and time.monotonic() < until_s and not failures:
                time.sleep(0.1)
            assert there.replicas() == 2
            os.kill(min(there.facts()), signal.SIGKILL)
            counts[0] = 0
    finally:
        over.set()
        thread.join(BACK_S)
    assert not failures


def test_a_session_goes_on_with_all_that_people_were_told(cluster):
    there, _ = cluster
    told: list[Event] = []
    said, gone = threading.Event(), threading.Event()

    def emit(events: Any) -> None:
        told.extend(events)
        said.set()

    old, new = there.book(), there.book()
    old.open("in1", "hall")
    say = old.emitter("in1", emit, gone.set)
    event = Status(session="in1", seq=1, audio_t=0.5, state="listening", detail="")
    say([event])
    assert said.wait(BACK_S)
    kept = new.take("in1")
    assert kept is not None
    assert (kept.events, kept.source, kept.told.seq) == ((event,), "hall", 1)
    say([event])
    assert gone.wait(BACK_S)
    assert told == [event]
    assert new.take("in2") is None
    old.leave()
    new.leave()


def test_the_program_says_the_same_with_engines_of_a_cluster(place: str, tmp_path: Path):
    """Both programs compute on one thread: nano's demo, to the byte."""
    sound = write_wav(tmp_path / "demo.wav", read_audio(demo_path("nano"))[: 12 * SECOND])
    common = ("--input", str(sound), "--speed", "0", "--no-server", "--quiet", "--model", "nano", "--jsonl", "-")
    threads = ("--set", "model.threads=1")
    here, there = (run(*common, *threads, *more, env={"RAY_TMPDIR": place}) for more in ((), ("--cluster",)))
    assert here.returncode == there.returncode == 0, there.stderr
    assert len(events_of(here.stdout)) > 10
    assert here.stdout == there.stdout


class Ingress:
    """`streamer serve` on the cluster of the tests; it finds the engines with nano there, or begins one."""

    def __init__(self, address: str, log: Path) -> None:
        command = [sys.executable, "-m", "streamer.commands.cli", "serve", "--cluster", address, "--model", "nano"]
        self._log = log
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                [*command, "--port", "0", "--set", "own_sounds.enabled=false"],
                cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
            )  # fmt: skip
        self.url = ""

    def wait(self) -> None:
        """Until it takes senders."""
        until_s = time.monotonic() + BACK_S
        while "listening with" not in self._log.read_text():
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < until_s, self._log.read_text()
            time.sleep(0.1)
        port = re.search(r"http://[\w.]+:(\d+)", self._log.read_text())
        assert port
        self.url = f"ws://127.0.0.1:{port[1]}/ingest"

    def __enter__(self) -> "Ingress":
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


def begin(socket: Any, **more: Any) -> dict[str, Any]:
    """Say `start` and return `started`."""
    assert json.loads(socket.recv(10))["type"] == "hello"
    socket.send(json.dumps({"type": "start", "sample_rate": SECOND, "encoding": "pcm_s16le", "events": True, **more}))
    found: dict[str, Any] = json.loads(socket.recv(10))
    return found


def events_from(socket: Any, done: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Events until one is `done` or the socket is closed."""
    found: list[dict[str, Any]] = []
    with suppress(ConnectionClosed, TimeoutError):
        while not found or not done(found[-1]):
            message = json.loads(socket.recv(BACK_S))
            found += [message] if "seq" in message else []
    return found


def test_a_sender_whose_ingress_goes_goes_on_at_another(cluster, tmp_path: Path):
    """One is killed; the next is told to end. The sender has all its sound still, and nothing is lost."""
    import ray

    pcm = np.round(read_audio(demo_path("nano"))[: 14 * SECOND] * 32767).astype("<i2")
    address = ray.get_runtime_context().gcs_address
    with Ingress(address, tmp_path / "one.log") as one, Ingress(address, tmp_path / "two.log") as two:
        one.wait()
        two.wait()
        with connect(two.url, open_timeout=30) as socket:
            assert "'in9' is not kept here" in begin(socket, session="in9")["detail"]
        with connect(one.url, open_timeout=30) as socket:
            started = begin(socket)
            assert "audio_t" not in started
            socket.send(pcm[: 8 * SECOND].tobytes())
            before = events_from(socket, lambda event: event["audio_t"] >= 6)
            one.process.kill()
            before += events_from(socket, lambda event: False)
        with connect(two.url, open_timeout=30) as socket:
            again = begin(socket, session=started["session"], audio_t=0.0)
            assert again["session"] == started["session"]
            assert before[-1]["audio_t"] - 15 <= again["audio_t"] <= before[-1]["audio_t"]
            socket.send(pcm[round(again["audio_t"] * SECOND) :].tobytes())
            socket.send('{"type":"stop"}')
            after = events_from(socket, lambda event: event.get("state") == "stopped")
        with connect(two.url, open_timeout=30) as socket:
            begin(socket)
            two.process.terminate()
            assert not [event for event in events_from(socket, lambda event: False) if event.get("state") == "stopped"]
            assert socket.protocol.close_code == 4000  # it goes on elsewhere
        assert two.process.wait(10) == 0
    numbers = {event["seq"]: event for event in before}
    kept = {event["seq"]: event for event in after}
    assert all(numbers.get(number, event) == event for number, event in kept.items())
    # of what people were told only superseded partials are not told again
    assert all(number in kept or (event["type"], event.get("final")) == ("transcript", False)
               for number, event in numbers.items())  # fmt: skip
    check_session(after, merged=True, degraded=True)
    assert after[-1]["audio_t"] == pytest.approx(14.0, abs=0.01)
    assert not [event for event in after if event["type"] == "gap"]
    spoken = [event["text"] for event in after if event["type"] == "transcript" and event["final"]]
    assert len(" ".join(spoken).split()) > 3


def test_an_address_where_nobody_is_gives_one_line(place: str):
    done = run("--input", "demo", "--speed", "0", "--no-server", "--model", "nano", "--cluster", "127.0.0.1:9",
               env={"RAY_TMPDIR": place})  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "streamer: --cluster: 127.0.0.1:9: Connection refused; is Ray running there?\n"


def test_auto_is_no_model_for_several_machines():
    with pytest.raises(UsageError, match=r"--model: auto may mean another model on each machine; name one"):
        ModelWish.of(Settings(), frozenset(), translate=False)
