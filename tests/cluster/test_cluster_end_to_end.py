"""The real thing on Ray, on this machine, with nano: the same events, engines that are killed, sessions that move.

Skipped where Ray is not installed (extra `cluster`). A cluster takes some seconds, and 0.6 GB for each engine.
"""

import asyncio
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
import urllib.request
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
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
from streamer.client import Client, EventsGap, Ingest
from streamer.cluster.connect import Cluster
from streamer.cluster.wish import ModelWish
from streamer.commands.cli import main
from streamer.errors import EngineError, UsageError
from streamer.events import Event, Gap, Status, Transcript
from streamer.events.plans import DecodeTask, StepRequest
from streamer.model.choice import load_model
from streamer.model.engine import Engine, Work
from streamer.model.outline import ModelOutline
from streamer.server.messages import SessionInfo
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
    old.open(SessionInfo("in1", "nano", "nano_at", SECOND), "hall")
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


def test_the_program_says_the_same_with_engines_of_a_cluster(cluster, tmp_path: Path):
    """Both programs compute on one thread: nano's demo, to the byte. The engines are those that are there."""
    import ray

    sound = write_wav(tmp_path / "demo.wav", read_audio(demo_path("nano"))[: 12 * SECOND])
    common = ("--input", str(sound), "--speed", "0", "--no-server", "--quiet", "--model", "nano", "--jsonl", "-",
              "--set", "own_sounds.enabled=false")  # fmt: skip
    there = run(*common, "--cluster", ray.get_runtime_context().gcs_address)
    here = run(*common, "--set", "model.threads=1")
    assert here.returncode == there.returncode == 0, there.stderr
    assert len(events_of(here.stdout)) > 10
    assert here.stdout == there.stdout


class Ingress:
    """`streamer serve` on the cluster of the tests, with an engine of its own kind: the first one begins it."""

    def __init__(self, address: str, log: Path) -> None:
        command = [sys.executable, "-m", "streamer.commands.cli", "serve", "--cluster", address, "--model", "nano"]
        self.log = log
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                [*command, "--port", "0", "--set", "own_sounds.enabled=false", "--set", "model.threads=1",
                 "--set", "server.openai=true"],
                cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
            )  # fmt: skip
        self.url, self.sending, self.port = "", "", 0

    def wait(self) -> None:
        """Until it takes senders."""
        until_s = time.monotonic() + BACK_S
        while "listening with" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until_s, self.log.read_text()
            time.sleep(0.1)
        port = re.search(r"http://[\w.]+:(\d+)", self.log.read_text())
        assert port
        self.url, self.port = f"http://127.0.0.1:{port[1]}", int(port[1])
        self.sending = f"ws://127.0.0.1:{port[1]}/ingest"

    def get(self, path: str) -> str:
        """A page of it."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return answer.read().decode()

    def transcribed(self, folder: Path) -> str:
        """The text of an uploaded recording."""
        sound = write_wav(folder / "upload.wav", read_audio(demo_path("nano"))[: 6 * SECOND]).read_bytes()
        fields = {'name="model"': b"nano", 'name="file"; filename="upload.wav"': sound}
        body = b"".join(
            f"--part\r\nContent-Disposition: form-data; {name}\r\n\r\n".encode() + value + b"\r\n"
            for name, value in fields.items()
        )
        request = urllib.request.Request(f"{self.url}/v1/audio/transcriptions", body + b"--part--\r\n")
        request.add_header("Content-Type", "multipart/form-data; boundary=part")
        with urllib.request.urlopen(request, timeout=BACK_S) as answer:
            return json.loads(answer.read())["text"]

    def __enter__(self) -> "Ingress":
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


class Balancer:
    """One address for all ingresses, which keeps nobody to one of them: a connection goes to `port`, as it is then."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def __aenter__(self) -> str:
        self._listening = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *error: object) -> None:
        self._listening.close()

    async def _pass_on(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        far_in, far_out = await asyncio.open_connection("127.0.0.1", self.port)

        async def one_way(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while data := await source.read(65_536):
                    target.write(data)
                    await target.drain()
            target.close()

        await asyncio.gather(one_way(near_in, far_out), one_way(far_in, near_out))


async def all_of(client: Client, heard: dict[float, asyncio.Event]) -> list[Event | EventsGap]:
    """Events to the last; each of `heard` is set when so many seconds were heard."""
    found: list[Event | EventsGap] = []
    async for event in client.events():
        found.append(event)
        if isinstance(event, Status) and event.state == "stopped":
            break
        if isinstance(event, Event):
            for second, reached in heard.items():
                if event.audio_t >= second:
                    reached.set()
    return found


def test_a_session_goes_on_at_another_ingress_and_is_read_at_any(cluster, tmp_path: Path):
    """Two ingresses begin at once, and have one engine begun. One is killed in the middle of speech, the other one is
    told to end afterwards; no sound is lost.
    """
    import ray

    pcm = np.round(read_audio(demo_path("nano"))[: 14 * SECOND] * 32767).astype("<i2").tobytes()
    address = ray.get_runtime_context().gcs_address

    async def scenario(one: Ingress, two: Ingress) -> tuple[list[Event], list[Event | EventsGap], str]:
        balancer, heard = Balancer(one.port), {second: asyncio.Event() for second in (6, 12)}
        async with AsyncExitStack() as opened:
            await opened.enter_async_context(asyncio.timeout(BACK_S))
            url = await opened.enter_async_context(balancer)
            sender = await opened.enter_async_context(Ingest(url, sample_rate=SECOND))
            async with Client(two.url, session=sender.session, since_seq=0) as reader:
                reading = asyncio.create_task(all_of(reader, heard))
                telling = asyncio.create_task(events_of_sender(sender))
                await sender.send_audio(pcm[: 16 * SECOND])
                await heard[6].wait()
                one.process.kill()
                balancer.port = two.port
                await sender.send_audio(pcm[16 * SECOND :])
                await heard[12].wait()
                metrics = await asyncio.to_thread(two.get, "/metrics")
                await sender.stop()
                text = await asyncio.to_thread(two.get, f"/transcript?session={sender.session}")
                assert len(text.split()) > 3
                return await telling, await reading, metrics

    with Ingress(address, tmp_path / "one.log") as one, Ingress(address, tmp_path / "two.log") as two:
        one.wait()
        two.wait()
        with connect(two.sending, open_timeout=30) as socket:
            assert "'in9' is not kept here" in begin(socket, session="in9")["detail"]
        assert len(two.transcribed(tmp_path).split()) > 2
        told, read, metrics = asyncio.run(scenario(one, two))
        with connect(two.sending, open_timeout=30) as socket:
            begin(socket)
            two.process.terminate()
            with suppress(ConnectionClosed):
                while True:
                    assert json.loads(socket.recv(BACK_S)).get("state") != "stopped"
            assert socket.protocol.close_code == 4000  # it goes on elsewhere
        assert two.process.wait(10) == 0
        assert "/mic" in two.log.read_text()  # how sound is sent
    check_session([event.to_dict() for event in told], merged=True, degraded=True)
    assert told[-1].audio_t == pytest.approx(14.0, abs=0.01)
    assert not [event for event in told if isinstance(event, Gap)]
    spoken = [event.text for event in told if isinstance(event, Transcript) and event.final]
    assert len(" ".join(spoken).split()) > 3
    # a reader is told the same; of neither more than superseded partials is missing
    assert not [event for event in read if isinstance(event, EventsGap)]
    both = {event.seq: event for event in told}, {event.seq: event for event in read if isinstance(event, Event)}
    for here, there in (both, both[::-1]):
        for seq, event in here.items():
            assert there.get(seq, event) == event
            assert seq in there or (isinstance(event, Transcript) and not event.final)
    engines = ("windows_total{", "step_seconds_bucket{", "batch_windows_sum{", "queued_windows{", "load{")
    for name in (
        "engines 1",
        "engines_started_total 1",
        *(f"engine_{one}" for one in engines),
        "session_lag_seconds{",
        "windows_total",
    ):
        assert f"\nstreamer_{name}" in metrics


async def events_of_sender(sender: Ingest) -> list[Event]:
    return [event async for event in sender.events() if isinstance(event, Event)]


def begin(socket: Any, **more: Any) -> dict[str, Any]:
    """Say `start` and return `started`."""
    assert json.loads(socket.recv(10))["type"] == "hello"
    socket.send(json.dumps({"type": "start", "sample_rate": SECOND, "encoding": "pcm_s16le", "events": True, **more}))
    found: dict[str, Any] = json.loads(socket.recv(10))
    return found


def test_an_address_where_nobody_is_gives_one_line(capsys: pytest.CaptureFixture[str]):
    given = ("--input", "demo", "--speed", "0", "--no-server", "--model", "nano", "--cluster", "127.0.0.1:9")
    assert main(["run", *given]) == 2
    shown = capsys.readouterr().err
    assert shown == "streamer: --cluster: 127.0.0.1:9: Connection refused; is Ray running there?\n"


def test_auto_is_no_model_for_several_machines():
    with pytest.raises(UsageError, match=r"--model: auto may mean another model on each machine; name one"):
        ModelWish.of(Settings(), frozenset(), translate=False)
