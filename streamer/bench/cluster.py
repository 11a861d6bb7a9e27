"""`streamer bench cluster`: the program's streams on engines of a cluster, beside an engine in the same process.

N streams of the bundled demo that the model understands, each begun elsewhere in it, paced in real time through the
threads and the worker of the live program. With `--kills`, an engine is killed at a random moment so many times
meanwhile. A final is late by as much as it comes out after the end of the audio that it was decided on. Words are
compared with those that the same streams have when each is heard alone, at once, by an engine here.

What a hop costs more than in one process (`overhead`), and what one, two … engines do in a second when there is always
work (`engines`), is measured before that. The step times of an engine are what `streamer bench simulate` needs.
"""

import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamer.audio.files import demo_path, read_audio
from streamer.audio.mel import MelFrames
from streamer.bench.simulate import GATHER_S, Costs, Fleet, simulate
from streamer.bench.throughput import Timed, fixed_hop, run_streams
from streamer.cluster.connect import Cluster
from streamer.cluster.engine import RemoteEngine
from streamer.cluster.wire import SentMel, SentWindow
from streamer.cluster.wish import ModelWish
from streamer.config import Settings
from streamer.events import SAMPLE_RATE, Gap, Status, Transcript
from streamer.measure.report import Report, Table, load, machine_facts
from streamer.measure.word_errors import plain_text, total, word_errors
from streamer.model.choice import Wish, load_model
from streamer.model.engine import Engine, Padding, Work
from streamer.plans import DecodeTask, StepRequest, StepResult
from streamer.runtime.stream import Stream
from streamer.runtime.worker import FAR_HANG_S
from streamer.settings.cluster import ClusterSettings
from streamer.settings.config import SpeechSettings

WINDOW_S = 10.0
NEW_TOKENS = 6  # that a hop writes
SIZES = (1, 2, 4, 8, 16)
ROUNDS = 9  # of each measurement; the median counts
DRIVERS = 2  # threads that keep the engines at work, each with 16 windows
BUSY_S = 8.0  # so long, for each number of engines
Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `seconds`: of audio of each stream; `cpus`: of each engine, which are its threads."""

    model: str = "tiny.en"
    streams: int = 4
    replicas: int = 2
    seconds: float = 30.0
    kills: int = 0
    cpus: int = 1
    seed: int = 0


def measure(plan: Plan, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Run the plan on a cluster of this machine. Raises what loading a model raises, and UsageError without Ray."""
    torch.set_num_threads(plan.cpus)
    model = load_model(plan.model, head=None, wish=Wish(frozenset({"en"})))
    here = Engine(model)
    here.warm_up()
    whole = read_audio(demo_path(Path(plan.model).name))
    settings = fixed_hop(Settings(speech=SpeechSettings(language="en")))
    steps_s = _steps_s(here, settings, np.resize(whole, round(plan.seconds * SAMPLE_RATE)), plan.seed)
    shown = ", ".join(f"{size}: {1000 * step_s:.0f} ms" for size, step_s in steps_s.items())
    say(f"cluster: steps of so many windows: {shown}")
    engines: list[dict[str, Any]] = []
    for count in sorted({1, plan.replicas}):
        with _cluster(plan, count) as (cluster, remote):
            if count == 1:
                overhead = _overhead(here, remote, whole)
                say(f"cluster: {overhead}")
            engines.append(_engines(cluster, remote, whole, count))
            say(f"cluster: {engines[-1]}")
            if count == plan.replicas:
                paced, costs = _paced(plan, cluster, remote, here, settings, whole, steps_s, overhead, say)
    return {
        "bench": "cluster",
        "machine": machine_facts(plan.cpus),
        "model": plan.model,
        "precision": model.precision,
        "steps_ms": {str(size): round(1000 * step_s, 2) for size, step_s in steps_s.items()},
        "overhead": overhead,
        "engines": engines,
        "paced": paced,
        **costs,
        "load_after": load(),
    }


class _Watched:
    """An engine whose rounds are timed: when each began, how many windows, how long."""

    def __init__(self, engine: RemoteEngine) -> None:
        self.engine, self.model = engine, engine.model
        self.rounds: list[tuple[int, float]] = []

    def step(self, work: Sequence[Work]) -> Sequence[StepResult]:
        began_s = time.perf_counter()
        found = self.engine.step(work)
        self.rounds.append((len(work), time.perf_counter() - began_s))
        return found


@contextmanager
def _cluster(plan: Plan, count: int) -> Iterator[tuple[Cluster, RemoteEngine]]:
    given = ClusterSettings(address="local", replicas=count, cpus=plan.cpus)
    settings = Settings.model_validate(
        {"model": {"name": plan.model, "head": "none"}, "own_sounds": {"enabled": False}}
    )
    cluster = Cluster(given, ModelWish.of(settings, frozenset({"en"}), translate=False))
    try:
        yield cluster, cluster.engine(cluster.open(), "auto")
    finally:
        cluster.close()


def _windows(engine: Engine | RemoteEngine, whole: Samples, count: int) -> list[Work]:
    """Windows of 10 s of speech, as many streams at once have them."""
    mel = MelFrames(engine.model.dims.n_mels)
    mel.append(whole[: round(WINDOW_S * SAMPLE_RATE)])
    request = StepRequest(0, mel.end_sample, (), DecodeTask(language="en", max_new_tokens=NEW_TOKENS))
    return [(mel, request)] * count


def _steps_s(here: Engine, settings: Settings, samples: Samples, seed: int) -> dict[int, float]:
    """What steps of so many windows take on the average, windows as a stream has them, drawn at random."""
    asked = _Asked(here)
    Stream(here.model, settings, engine=asked).push(samples)
    drawn = random.Random(seed)
    found: dict[int, float] = {}
    for size in SIZES:
        began_s = time.perf_counter()
        rounds = max(ROUNDS, 32 // size)
        for _ in range(rounds):
            here.step([(SentMel(window), window.request) for window in drawn.choices(asked.windows, k=size)])
        found[size] = (time.perf_counter() - began_s) / rounds
    return found


class _Asked:
    """An engine that keeps what it was asked."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.model = engine, engine.model
        self.windows: list[SentWindow] = []

    def step(self, work: Sequence[Work]) -> Sequence[StepResult]:
        padding = Padding.of(self.model, "auto")
        self.windows += [SentWindow.of(mel, request, padding, self.model.dtype) for mel, request in work]
        return self.engine.step(work)


def _median_s(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(ROUNDS + 1):
        began_s = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began_s)
    return statistics.median(taken[1:])


def _overhead(here: Engine, remote: RemoteEngine, whole: Samples) -> dict[str, Any]:
    """One window through Ray beside one here, and the bytes that it sends."""
    bytes_before, sending_before_s = remote.sent_bytes, remote.sending_s
    there_s = _median_s(lambda: remote.step(_windows(remote, whole, 1)))
    sent, sending_s = remote.sent_bytes - bytes_before, remote.sending_s - sending_before_s
    here_s = _median_s(lambda: here.step(_windows(here, whole, 1)))
    return {
        "here_ms": round(1000 * here_s, 2),
        "cluster_ms": round(1000 * there_s, 2),
        "ray_ms": round(1000 * (there_s - here_s), 2),
        "send_ms": round(1000 * sending_s / (ROUNDS + 1), 2),
        "bytes": round(sent / (ROUNDS + 1)),
    }


def _engines(cluster: Cluster, remote: RemoteEngine, whole: Samples, count: int) -> dict[str, Any]:
    """Windows in a second while there is always work, from several threads."""
    end_s = time.monotonic() + BUSY_S
    done = [0] * DRIVERS * count

    def drive(number: int) -> None:
        work = _windows(remote, whole, 16)
        while time.monotonic() < end_s:
            remote.step(work)
            done[number] += len(work)

    began_s = time.monotonic()
    threads = [threading.Thread(target=drive, args=(number,)) for number in range(len(done))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"replicas": count, "windows_per_s": round(sum(done) / (time.monotonic() - began_s), 1)}


def _paced(
    plan: Plan,
    cluster: Cluster,
    remote: RemoteEngine,
    here: Engine,
    settings: Settings,
    whole: Samples,
    steps_s: Mapping[int, float],
    overhead: Mapping[str, float],
    say: Callable[[str], None],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The streams in real time, and what the simulation makes of the same number of streams."""
    length = round(plan.seconds * SAMPLE_RATE)
    starts = np.linspace(0, len(whole), plan.streams, endpoint=False).astype(int)
    recordings = [np.resize(np.roll(whole, -start), length) for start in starts]
    watched, before, resent = _Watched(remote), cluster.facts(), remote.resent
    killer = _Killer(cluster, plan, say)
    began_s, began_work_s = time.monotonic(), time.process_time()
    killer.start()
    heard = run_streams(watched, settings, recordings, FAR_HANG_S)
    took_s, worked_s = time.monotonic() - began_s, time.process_time() - began_work_s
    killer.stop()
    after = cluster.facts()
    windows = sum(count for count, _ in watched.rounds)
    found = _heard(heard) | {
        "streams": plan.streams,
        "replicas": plan.replicas,
        "kills": len(killer.killed),
        "windows_per_s": round(windows / took_s, 1),
        "round_mean_ms": round(1000 * sum(s for _, s in watched.rounds) / max(1, len(watched.rounds)), 1),
        "resent": remote.resent - resent,
    }
    found |= _compared(heard, _alone(here, settings, recordings))
    if plan.kills:
        return found, {}
    busy_s = sum(one["busy_s"] for one in after.values()) - sum(one["busy_s"] for one in before.values())
    batches = sum(one["batches"] for one in after.values()) - sum(one["batches"] for one in before.values())
    found |= {
        "batch_mean": round(windows / max(1, batches), 2),
        "engines_busy": round(busy_s / took_s / plan.replicas, 3),
    }
    costs = Costs(
        steps_s=steps_s,
        send_s=overhead["send_ms"] / 1000,
        finish_s=max(0.0, worked_s / windows - overhead["send_ms"] / 1000),
        way_s=max(0.0, (overhead["ray_ms"] - overhead["send_ms"]) / 1000 - GATHER_S),
        windows_per_s=windows / plan.seconds / plan.streams,
    )
    said = simulate(costs, Fleet(streams=plan.streams, replicas=plan.replicas, seconds=max(40.0, plan.seconds)))
    return found, {"simulated": said, "costs": costs.in_ms()}


class _Killer:
    """Kills an engine of this machine so many times while streams run, at random moments of equal parts of the time."""

    def __init__(self, cluster: Cluster, plan: Plan, say: Callable[[str], None]) -> None:
        self._cluster, self._plan, self._say = cluster, plan, say
        self._random = random.Random(plan.seed)
        self._over = threading.Event()
        self.killed: list[int] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """No more."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        began_s, part_s = time.monotonic(), self._plan.seconds / (self._plan.kills + 1)
        for number in range(self._plan.kills):
            due_s = began_s + (number + 0.5 + self._random.random()) * part_s
            if self._over.wait(max(0.0, due_s - time.monotonic())):
                return
            victim = self._random.choice(sorted(self._cluster.facts()))
            os.kill(victim, signal.SIGKILL)
            self.killed.append(victim)
            self._say(f"cluster: engine {victim} killed after {time.monotonic() - began_s:.1f} s")


def _heard(heard: Sequence[Timed]) -> dict[str, Any]:
    finals = [at - event.audio_t for one in heard for event, at in one if isinstance(event, Transcript) and event.final]
    events = [event for one in heard for event, _ in one]
    return {
        "finals": len(finals),
        "final_late_p50_s": round(statistics.median(finals), 3) if finals else None,
        "final_late_max_s": round(max(finals), 3) if finals else None,
        "degraded": sum(isinstance(event, Status) and event.state == "degraded" for event in events),
        "gaps": sum(isinstance(event, Gap) for event in events),
    }


def _alone(here: Engine, settings: Settings, recordings: Sequence[Samples]) -> list[Timed]:
    """The streams at once, one after the other, by the engine of this process."""
    found: list[Timed] = []
    for samples in recordings:
        stream = Stream(here.model, settings, engine=here)
        found.append([(event, 0.0) for event in (*stream.push(samples), *stream.finish())])
    return found


def _compared(heard: Sequence[Timed], alone: Sequence[Timed]) -> dict[str, Any]:
    counts = total(word_errors(_text(two), _text(one)) for one, two in zip(heard, alone, strict=True))
    return {"words": counts.words, "other": counts.substituted, "lost": counts.lost, "more": counts.invented}


def _text(heard: Timed) -> str:
    finals = [event.text for event, _ in heard if isinstance(event, Transcript) and event.final]
    return plain_text(" ".join(finals))


def report(result: Mapping[str, Any]) -> Report:
    """The page."""
    about = " ".join((__doc__ or "").split("\n\n")[1].split())
    tables = [
        Table("One window of 10 s", *_columns([result["overhead"]])),
        Table("Engines that always have work", *_columns(result["engines"])),
        Table("Paced streams", *_columns([result["paced"]])),
    ]
    if simulated := result.get("simulated"):
        tables.append(Table("The same, simulated", *_columns([simulated])))
    title = f"Streams on a cluster of one machine: {result['model']}, {result['precision']}"
    return Report("cluster", title, about, result, tuple(tables))


def _columns(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[object]]]:
    header = [name.replace("_", " ") for name in rows[0]]
    return header, [[str(value) if isinstance(value, bool) else value for value in row.values()] for row in rows]
