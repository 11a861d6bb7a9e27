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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamer.audio.files import demo_path, read_audio
from streamer.bench.simulate import BATCH, GATHER_S, Costs, Fleet, simulate, with_call_cost
from streamer.bench.throughput import Timed, fixed_hop, run_streams
from streamer.cluster.connect import Cluster
from streamer.cluster.engine import RemoteEngine
from streamer.cluster.wire import SentMel, SentWindow
from streamer.cluster.wish import ModelWish
from streamer.events import SAMPLE_RATE, Gap, Status, Transcript
from streamer.events.plans import StepResult
from streamer.measure.report import Report, Table
from streamer.measure.word_errors import plain_text, total, word_errors
from streamer.model.choice import Wish, load_model
from streamer.model.engine import Engine, Padding, Work
from streamer.model.machine_facts import load, machine_facts
from streamer.runtime.stream import Stream
from streamer.runtime.worker import FAR_HANG_S
from streamer.settings.cluster import ClusterSettings
from streamer.settings.config import Settings, SpeechSettings

SIZES = (1, 2, 4, 8, 16)
ROUNDS = 19  # of each measurement; the median counts
DRIVERS = 2  # threads that keep the engines at work, each with 16 windows
BUSY_S = 8.0  # so long, for each number of engines
Samples = NDArray[np.float32]
Say = Callable[[str], None]


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
    length = round(plan.seconds * SAMPLE_RATE)
    starts = np.linspace(0, len(whole), plan.streams, endpoint=False).astype(int)
    recordings = [np.resize(np.roll(whole, -start), length) for start in starts]
    windows = _asked(here, recordings[0])
    steps_s = _steps_s(here, windows, plan.seed)
    shown = ", ".join(f"{size}: {1000 * step_s:.0f} ms" for size, step_s in steps_s.items())
    say(f"cluster: steps of so many windows: {shown}")
    engines: list[dict[str, Any]] = []
    for count in sorted({1, plan.replicas}):
        with _cluster(plan, count) as (cluster, remote):
            overhead = _overhead(here, remote, windows)
            engines.append(_engines(remote, windows, count))
            say(f"cluster: {overhead}, {engines[-1]}")
            if count == plan.replicas:
                # half of the streams say what things cost beside each other; with that all of them are foretold. They
                # run before and after those, as other programs may take more of the machine at one time than another
                half = _paced(replace(plan, kills=0), cluster, remote, recordings[::2], say)
                paced = _paced(plan, cluster, remote, recordings, say)
                half = half.and_again(_paced(replace(plan, kills=0), cluster, remote, recordings[::2], say))
    costs = _costs(steps_s, overhead, half, plan)
    fleet = Fleet(streams=plan.streams, replicas=plan.replicas, seconds=max(60.0, plan.seconds))
    row = paced.row(plan.replicas) | _compared(paced.heard, _alone(here, recordings))
    return {
        "bench": "cluster",
        "machine": machine_facts(plan.cpus),
        "model": plan.model,
        "precision": model.precision,
        "steps_alone_ms": {str(size): round(1000 * step_s, 2) for size, step_s in steps_s.items()},
        "steps_ms": {str(size): round(1000 * step_s, 2) for size, step_s in costs.steps_s.items()},
        "costs": costs.in_ms(),
        "overhead": overhead,
        "engines": engines,
        "paced": row,
        **({} if plan.kills else {"simulated": simulate(costs, fleet)}),
        "load_after": load(),
    }


def _settings() -> Settings:
    return fixed_hop(Settings(speech=SpeechSettings(language="en")))


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


def _asked(here: Engine, samples: Samples) -> list[SentWindow]:
    """The windows that a stream asks for, as they are sent."""
    asked = _Asked(here)
    Stream(here.model, _settings(), engine=asked).push(samples)
    return asked.windows


class _Asked:
    """An engine that keeps what it was asked."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.model = engine, engine.model
        self.windows: list[SentWindow] = []

    def step(self, work: Sequence[Work]) -> Sequence[StepResult]:
        padding = Padding.of(self.model, "auto")
        self.windows += [SentWindow.of(mel, request, padding, self.model.dtype) for mel, request in work]
        return self.engine.step(work)


def _steps_s(here: Engine, windows: Sequence[SentWindow], seed: int) -> dict[int, float]:
    """What steps of so many windows take on the average, drawn at random, of an engine in this process."""
    drawn = random.Random(seed)
    found: dict[int, float] = {}
    for size in SIZES:
        began_s = time.perf_counter()
        rounds = max(ROUNDS, 32 // size)
        for _ in range(rounds):
            here.step([(SentMel(window), window.request) for window in drawn.choices(windows, k=size)])
        found[size] = (time.perf_counter() - began_s) / rounds
    return found


def _median_s(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(ROUNDS + 1):
        began_s = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began_s)
    return statistics.median(taken[1:])


def _overhead(here: Engine, remote: RemoteEngine, windows: Sequence[SentWindow]) -> dict[str, Any]:
    """The longest window of a stream through Ray beside the same one here, and the bytes that it sends."""
    longest = max(windows, key=lambda window: window.total_frames)
    sending_s = remote.sending_s
    there_s = _median_s(lambda: remote.do([longest]))
    send_s = (remote.sending_s - sending_s) / (ROUNDS + 1)
    here_s = _median_s(lambda: here.step([(SentMel(longest), longest.request)]))
    return {
        "window_s": longest.total_frames / 100,
        "here_ms": round(1000 * here_s, 2),
        "cluster_ms": round(1000 * there_s, 2),
        "ray_ms": round(1000 * (there_s - here_s), 2),
        "send_ms": round(1000 * send_s, 2),
        "way_ms": round(1000 * max(0.0, there_s - here_s - send_s), 2),
        "bytes": longest.values.nbytes,
    }


def _engines(remote: RemoteEngine, windows: Sequence[SentWindow], count: int) -> dict[str, Any]:
    """Windows in a second while there is always work, from several threads."""
    end_s = time.monotonic() + BUSY_S
    done = [0] * DRIVERS * count

    def drive(number: int) -> None:
        drawn = random.Random(number)
        while time.monotonic() < end_s:
            done[number] += len(remote.do(drawn.choices(windows, k=BATCH)))

    began_s = time.monotonic()
    threads = [threading.Thread(target=drive, args=(number,)) for number in range(len(done))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"replicas": count, "windows_per_s": round(sum(done) / (time.monotonic() - began_s), 1)}


@dataclass(frozen=True, slots=True)
class _Paced:
    """What came of streams in real time. `steps`: of the engines that are left, batches of so many windows and their
    seconds together; `worked_s`: processor time of this process, without what sending took.
    """

    heard: Sequence[Timed]
    rounds: Sequence[tuple[int, float]]
    steps: Mapping[int, tuple[int, float]]
    kills: int
    resent: int
    took_s: float
    worked_s: float

    @property
    def windows(self) -> int:
        """That were asked for."""
        return sum(count for count, _ in self.rounds)

    def and_again(self, other: "_Paced") -> "_Paced":
        """The same streams twice, as one run of twice the time."""
        steps = dict(self.steps)
        for size, (count, total_s) in other.steps.items():
            known_count, known_s = steps.get(size, (0, 0.0))
            steps[size] = known_count + count, known_s + total_s
        return replace(
            self, rounds=[*self.rounds, *other.rounds], steps=steps,
            took_s=self.took_s + other.took_s, worked_s=self.worked_s + other.worked_s,
        )  # fmt: skip

    def row(self, replicas: int) -> dict[str, Any]:
        """For the table."""
        batches = sum(count for count, _ in self.steps.values())
        busy_s = sum(total_s for _, total_s in self.steps.values())
        return _heard(self.heard) | {
            "streams": len(self.heard),
            "replicas": replicas,
            "kills": self.kills,
            "resent": self.resent,
            "windows_per_s": round(self.windows / self.took_s, 2),
            "round_mean_ms": round(1000 * sum(s for _, s in self.rounds) / max(1, len(self.rounds)), 1),
            "batch_mean": round(sum(size * count for size, (count, _) in self.steps.items()) / max(1, batches), 2),
            "engines_busy": round(busy_s / self.took_s / replicas, 3),
        }


def _paced(plan: Plan, cluster: Cluster, remote: RemoteEngine, recordings: Sequence[Samples], say: Say) -> _Paced:
    """The streams in real time."""
    watched, before, resent, sending_s = _Watched(remote), cluster.facts(), remote.facts.resent, remote.sending_s
    killer = _Killer(cluster, plan, say)
    began_s, began_work_s = time.monotonic(), time.process_time()
    killer.start()
    heard = run_streams(watched, _settings(), recordings, FAR_HANG_S)
    took_s, worked_s = time.monotonic() - began_s, time.process_time() - began_work_s
    killer.stop()
    steps: dict[int, tuple[int, float]] = {}
    for pid, one in cluster.facts().items():
        earlier = before[pid].batches if pid in before else {}
        for size, (count, total_s) in one.batches.items():
            old_count, old_s = earlier.get(size, (0, 0.0))
            known_count, known_s = steps.get(size, (0, 0.0))
            steps[size] = known_count + count - old_count, known_s + total_s - old_s
    return _Paced(
        heard, watched.rounds, steps, len(killer.killed), remote.facts.resent - resent, took_s,
        worked_s - (remote.sending_s - sending_s),
    )  # fmt: skip


def _costs(steps_s: Mapping[int, float], overhead: Mapping[str, float], paced: _Paced, plan: Plan) -> Costs:
    """The steps of an engine that was alone, scaled to what engines needed beside everything else that runs here.

    The way to an engine and back is what rounds of one window took beside their step: there nothing waits for anything
    else. What larger rounds took more than the same rounds simulated is what calls cost at the engines.
    """
    alone = Costs(steps_s=steps_s, send_s=0.0, finish_s=0.0, way_s=0.0, windows_per_s=1.0)
    expected_s = sum(count * alone.step_s(size) for size, (count, _) in paced.steps.items())
    stepped_s = sum(total_s for _, total_s in paced.steps.values())
    scale = stepped_s / max(expected_s, 1e-9)
    send_s = overhead["send_ms"] / 1000
    singles = [round_s for windows, round_s in paced.rounds if windows == 1]
    way_s = overhead["way_ms"] / 1000
    if len(singles) >= ROUNDS and 1 in paced.steps:
        count, total_s = paced.steps[1]
        way_s = statistics.fmean(singles) - send_s - GATHER_S - total_s / max(1, count)
    costs = Costs(
        steps_s={size: step_s * scale for size, step_s in steps_s.items()},
        send_s=send_s,
        finish_s=paced.worked_s / max(1, paced.windows),
        way_s=max(0.0, way_s),
        windows_per_s=paced.windows / paced.took_s / len(paced.heard),
    )
    fleet = Fleet(streams=len(paced.heard), replicas=plan.replicas, seconds=max(60.0, plan.seconds))
    return with_call_cost(costs, fleet, statistics.fmean(round_s for _, round_s in paced.rounds))


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


def _alone(here: Engine, recordings: Sequence[Samples]) -> list[Timed]:
    """The streams at once, one after the other, by the engine of this process."""
    found: list[Timed] = []
    for samples in recordings:
        stream = Stream(here.model, _settings(), engine=here)
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
        Table("One window", *_columns([result["overhead"]])),
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
