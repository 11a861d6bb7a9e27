"""`streamer bench simulate`: a cluster as a discrete-event simulation, fed with step times that were measured.

Streams bring a hop every half second, of which some need the model. Each ingress does as `Worker` does: it takes the
windows that wait, one of a stream and 16 at most, sends each to a replica (the emptier of two drawn at random, as Ray
Serve does), and goes on when all are answered. Each replica does as `Replica` does: it gathers for 2 ms what comes, up
to its batch, needs for it what an engine needed for so many windows, and for each of them what a call costs there: its
event loop and its engine share one interpreter. Nothing else of the network is simulated.

Pure: no clock, and the same numbers for the same seed.
"""

import heapq
import json
import math
import random
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from streamer.errors import UsageError
from streamer.measure.report import Report, Table

HOP_S = 0.5
BATCH = 16  # windows that an ingress sends at once, and that a replica does at once
GATHER_S = 0.002
SENDERS = 128  # that an ingress takes at most
CALIBRATED = 12  # halvings of what is not known
FULL_S = 1.0  # windows that are answered later than this at the median: the cluster does not carry these streams


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What was measured. `steps_s`: seconds of an engine for so many windows at once.

    `send_s`, `finish_s`: of an ingress, for each window, to send it and for all else that its sound needs; `way_s`:
    from there to a replica and back, without the time in which it gathers, where nothing else is on the way; `call_s`:
    of a replica, for each window beside its step: to unpack it, to answer. `windows_per_s`: that a stream brings.
    """

    steps_s: Mapping[int, float]
    send_s: float
    finish_s: float
    way_s: float
    windows_per_s: float
    call_s: float = 0.0

    def in_ms(self) -> dict[str, float]:
        """All but the steps, as plain values."""
        return {
            "send_ms": round(1000 * self.send_s, 3),
            "finish_ms": round(1000 * self.finish_s, 3),
            "way_ms": round(1000 * self.way_s, 3),
            "call_ms": round(1000 * self.call_s, 3),
            "windows_per_s": round(self.windows_per_s, 3),
        }

    def step_s(self, windows: int) -> float:
        """Between two sizes that were measured on a line; beyond the largest as it went on before it."""
        sizes = sorted(self.steps_s)
        if len(sizes) == 1:
            return self.steps_s[sizes[0]] * windows / sizes[0]
        at = min(max(bisect_right(sizes, windows), 1), len(sizes) - 1)
        low, high = sizes[at - 1], sizes[at]
        slope = (self.steps_s[high] - self.steps_s[low]) / (high - low)
        return max(self.steps_s[low] + slope * (windows - low), 1e-6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """How much of what there is, and for how long. The first quarter of the time is not counted."""

    streams: int
    replicas: int
    ingresses: int = 1
    seconds: float = 20.0
    seed: int = 0


@dataclass(slots=True)
class _Ingress:
    """`waiting`: when the windows came that wait, in order; `out`: of the round at hand, how many are not answered."""

    waiting: deque[tuple[float, int]] = field(default_factory=deque)
    behind: dict[int, deque[float]] = field(default_factory=dict)
    queued: set[int] = field(default_factory=set)
    out: int = 0
    busy: bool = False
    round: list[tuple[float, int]] = field(default_factory=list)
    work_s: float = 0.0
    began_s: float = 0.0  # the round at hand


@dataclass(slots=True)
class _Replica:
    waiting: deque[int] = field(default_factory=deque)  # the ingress of each window
    busy: bool = False
    ongoing: int = 0
    work_s: float = 0.0


def simulate(costs: Costs, fleet: Fleet) -> dict[str, Any]:
    """Run it; what came of it as plain values."""
    run = _Run(costs, fleet)
    run.go()
    return run.found()


class _Run:
    """One simulation. Events: (time, number, kind, who, what); the number keeps those of one time in order."""

    def __init__(self, costs: Costs, fleet: Fleet) -> None:
        self._costs, self._fleet = costs, fleet
        self._random = random.Random(fleet.seed)
        self._events: list[tuple[float, int, int, int, int]] = []
        self._count = 0
        self._now = 0.0
        self._ingresses = [_Ingress() for _ in range(fleet.ingresses)]
        self._replicas = [_Replica() for _ in range(fleet.replicas)]
        self._latencies: list[float] = []
        self._batches: list[int] = []
        self._rounds: list[float] = []
        self._begin_s = fleet.seconds / 4
        self._chance = min(1.0, costs.windows_per_s * HOP_S)

    def go(self) -> None:
        """To the end."""
        actions = (self._hop, self._arrive, self._begin, self._stepped, self._answered, self._rounded)
        for stream in range(self._fleet.streams):
            self._at(self._random.random() * HOP_S, 0, stream, 0)
        while self._events and self._events[0][0] < self._fleet.seconds:
            self._now, _, kind, who, what = heapq.heappop(self._events)
            actions[kind](who, what)

    def found(self) -> dict[str, Any]:
        """Latencies of windows, from their hop to their answer, and how busy everything was."""
        seconds = self._fleet.seconds - self._begin_s
        latencies = np.array(self._latencies or [math.inf])
        p50, p95, p99 = (float(value) for value in np.percentile(latencies, (50, 95, 99)))
        return {
            "streams": self._fleet.streams,
            "replicas": self._fleet.replicas,
            "ingresses": self._fleet.ingresses,
            "windows_per_s": round(len(self._latencies) / seconds, 2),
            "latency_p50_ms": round(1000 * p50, 1),
            "latency_p95_ms": round(1000 * p95, 1),
            "latency_p99_ms": round(1000 * p99, 1),
            "round_mean_ms": round(1000 * float(np.mean(self._rounds or [0.0])), 1),
            "batch_mean": round(float(np.mean(self._batches or [0])), 2),
            "engines_busy": round(sum(one.work_s for one in self._replicas) / seconds / self._fleet.replicas, 3),
            "ingresses_busy": round(sum(one.work_s for one in self._ingresses) / seconds / self._fleet.ingresses, 3),
            "carried": p50 < FULL_S,
        }

    def _at(self, time_s: float, kind: int, who: int, what: int) -> None:
        self._count += 1
        heapq.heappush(self._events, (time_s, self._count, kind, who, what))

    def _hop(self, stream: int, _: int) -> None:
        """A stream's hop: the next one comes, and its window waits at its ingress, if it needs the model."""
        self._at(self._now + HOP_S, 0, stream, 0)
        if self._random.random() >= self._chance:
            return
        place = stream % self._fleet.ingresses
        ingress = self._ingresses[place]
        if stream in ingress.queued:  # one window of a stream at a time: its next waits behind it
            ingress.behind.setdefault(stream, deque()).append(self._now)
            return
        ingress.queued.add(stream)
        ingress.waiting.append((self._now, stream))
        if not ingress.busy:
            self._send(place)

    def _send(self, place: int) -> None:
        """An ingress sends what waits, one after the other."""
        ingress = self._ingresses[place]
        ingress.busy, ingress.began_s = True, self._now
        ingress.round = [ingress.waiting.popleft() for _ in range(min(BATCH, len(ingress.waiting)))]
        ingress.out = len(ingress.round)
        for number in range(ingress.out):
            self._at(self._now + (number + 1) * self._costs.send_s + self._costs.way_s / 2, 1, place, 0)
        if self._now >= self._begin_s:
            ingress.work_s += ingress.out * (self._costs.send_s + self._costs.finish_s)

    def _arrive(self, place: int, _: int) -> None:
        """A window comes to a replica."""
        count = len(self._replicas)
        two = [self._random.randrange(count) for _ in range(2)]
        chosen = min(two, key=lambda number: self._replicas[number].ongoing)
        replica = self._replicas[chosen]
        replica.ongoing += 1
        replica.waiting.append(place)
        if not replica.busy:
            replica.busy = True
            self._at(self._now + GATHER_S, 2, chosen, 0)

    def _begin(self, number: int, _: int) -> None:
        """A replica begins a batch."""
        replica = self._replicas[number]
        size = min(BATCH, len(replica.waiting))
        step_s = self._costs.step_s(size)
        if self._now >= self._begin_s:
            replica.work_s += step_s
            self._batches.append(size)
        self._at(self._now + step_s + size * self._costs.call_s, 3, number, size)

    def _stepped(self, number: int, size: int) -> None:
        """Its answers go out, and the next batch begins with what came meanwhile."""
        replica = self._replicas[number]
        replica.ongoing -= size
        for _ in range(size):
            self._at(self._now + self._costs.way_s / 2, 4, replica.waiting.popleft(), 0)
        if replica.waiting:
            self._begin(number, 0)
        else:
            replica.busy = False

    def _answered(self, place: int, _: int) -> None:
        ingress = self._ingresses[place]
        ingress.out -= 1
        if not ingress.out:
            if ingress.began_s >= self._begin_s:
                self._rounds.append(self._now - ingress.began_s)
            self._at(self._now + len(ingress.round) * self._costs.finish_s, 5, place, 0)

    def _rounded(self, place: int, _: int) -> None:
        """An ingress is through with a round."""
        ingress = self._ingresses[place]
        for came_s, stream in ingress.round:
            if self._now >= self._begin_s:
                self._latencies.append(self._now - came_s)
            ingress.queued.discard(stream)
            if behind := ingress.behind.get(stream):
                ingress.queued.add(stream)
                ingress.waiting.append((behind.popleft(), stream))
        ingress.busy = False
        if ingress.waiting:
            self._send(place)


def capacity(costs: Costs, busy: float = 0.7) -> float:
    """Streams for each replica at which it is busy for this share of the time, with batches as large as they get."""
    fastest = max(size / (step_s + size * costs.call_s) for size, step_s in costs.steps_s.items())
    return fastest * busy / costs.windows_per_s


def with_call_cost(costs: Costs, fleet: Fleet, round_s: float) -> Costs:
    """The costs with the `call_s` with which the simulated rounds of a fleet take as long on the average as measured.

    0 where they take longer without it.
    """
    low, high = 0.0, round_s
    for _ in range(CALIBRATED):
        middle = (low + high) / 2
        found_s = simulate(replace(costs, call_s=middle), fleet)["round_mean_ms"] / 1000
        low, high = (middle, high) if found_s < round_s else (low, middle)
    return replace(costs, call_s=low)


def fleet_for(costs: Costs, streams: int, busy: float = 0.7, seconds: float = 20.0) -> Fleet:
    """So many replicas and ingresses as these streams keep busy for this share of the time.

    An ingress has one round of windows out at a time: in the time that one takes it carries 16 windows, however many
    replicas there are.
    """
    replicas = math.ceil(streams / capacity(costs, busy))
    batch_s = costs.step_s(BATCH) + BATCH * costs.call_s
    round_s = BATCH * (costs.send_s + costs.finish_s) + costs.way_s + GATHER_S + 1.5 * batch_s
    ingresses = max(1, math.ceil(streams * costs.windows_per_s * round_s / BATCH / busy), math.ceil(streams / SENDERS))
    return Fleet(streams=streams, replicas=replicas, ingresses=ingresses, seconds=seconds)


def report(costs: Costs, rows: Sequence[Mapping[str, Any]], source: str) -> Report:
    """The page: how late windows are by the number of streams."""
    header = [name.replace("_", " ") for name in rows[0]]
    about = (
        f"Simulated with the step times of {source}. A window's latency goes from the end of its hop to its result. "
        f"Carried: the median is below {FULL_S:g} s."
    )
    result = {
        "bench": "simulate",
        "source": source,
        "steps_ms": {str(size): round(1000 * step_s, 2) for size, step_s in sorted(costs.steps_s.items())},
        "costs": costs.in_ms(),
        "rows": list(rows),
    }
    cells = [[str(value) if isinstance(value, bool) else value for value in row.values()] for row in rows]
    table = Table("Streams on a simulated cluster", header, cells)
    return Report("simulate", "Many streams, simulated", about, result, (table,))


def read_costs(path: Path) -> Costs:
    """The costs that `streamer bench cluster` measured. Raises UsageError where the file is none of its."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Costs(
            steps_s={int(size): step_ms / 1000 for size, step_ms in found["steps_ms"].items()},
            send_s=found["costs"]["send_ms"] / 1000,
            finish_s=found["costs"]["finish_ms"] / 1000,
            way_s=found["costs"]["way_ms"] / 1000,
            call_s=found["costs"].get("call_ms", 0.0) / 1000,
            windows_per_s=found["costs"]["windows_per_s"],
        )
    except OSError as error:
        raise UsageError(f"--steps {path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"--steps {path}: is not the JSON of `streamer bench cluster`") from None
