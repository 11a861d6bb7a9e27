"""`streamer bench chaos`: random faults on the running program while people speak; does it keep what it promises?

In each round a witness sends a piece of the recordings to `/ingest` in real time, and one fault is injected meanwhile.
`room`, a source of the program's own, goes on through all rounds and is read by a client that comes back with
`since_seq`. Every event log is checked against the protocol's invariants. Words lost: what the same piece gives without
a server and faults and the witness was not given, where the fault is one that must not cost words. Slopes are those of
the second half before the kills: in the first each kind of work is done for the first time.
"""

import secrets
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from streamer.bench.busy import write_wav
from streamer.bench.chaos.clients import Place, Sender
from streamer.bench.chaos.faults import (
    END,
    FAULTS,
    KILL,
    LAG_S,
    RECOVER_S,
    Fault,
    World,
    closed_stalled,
    missing,
    was_taken,
    words_in,
)
from streamer.bench.soak import committed
from streamer.events import SAMPLE_RATE
from streamer.measure.invariants import BrokenInvariant, check_session, must
from streamer.measure.report import Report, Table
from streamer.model.machine_facts import load, machine_facts
from streamer.model.whisper import Model
from streamer.runtime.stream import Stream
from streamer.settings.config import Settings

Samples = NDArray[np.float32]
Say = Callable[[str], None]
SAMPLE_S = 2.0  # how often sizes are looked at
PIECE_S = 20.0
QUIET_S = 2.0  # behind a piece, so that its last words are closed
KEPT_LOG = 50_000  # characters of what the program said, for whoever looks for the cause
END_S = 60.0  # a witness is through so long after its sound


@dataclass(frozen=True, slots=True)
class Plan:
    """`minutes` of rounds with faults, then `kills` with kill -9. `options`: of the command line, for the model."""

    seed: int
    minutes: float
    kills: int
    options: Sequence[str]


@dataclass(frozen=True, slots=True)
class Round:
    """What was injected and what happened. `broken`: the promise that was not kept, empty: none.

    `lost`: words of the witness that are missing; None: not defined, since the fault may cost words or it was told that
    something is left out. `lag_s`: how far `room` was behind at most meanwhile.
    """

    fault: str
    happened: str
    broken: str = ""
    words: int = 0
    lost: int | None = None
    lag_s: float = 0.0


class Sizes:
    """Looks at a process every so often, in a thread of its own: (s, MiB, descriptors, threads)."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.rows: list[tuple[float, float, int, int]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sizes", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        began_s = time.monotonic()
        while not self._ended.wait(SAMPLE_S):
            with suppress(OSError, ValueError, IndexError):  # it ended
                self.rows.append((time.monotonic() - began_s, *self._world.program.sizes()))


def pieces(samples: Samples) -> list[Samples]:
    """Recordings in pieces of `PIECE_S` with a quiet end, float32 [n] each; a rest of less than half of it is left."""
    size = round(PIECE_S * SAMPLE_RATE)
    cut = [samples[at : at + size] for at in range(0, len(samples), size)]
    quiet = np.random.default_rng(0).normal(0.0, 1e-4, round(QUIET_S * SAMPLE_RATE)).astype(np.float32)
    return [np.concatenate([one, quiet]) for one in cut if len(one) >= size / 2]


def words_of(model: Model, settings: Settings, samples: Samples) -> list[str]:
    """The committed words without a server and faults, of what 16 bits hold of the samples."""
    stream = Stream(model, settings)
    heard = (np.clip(samples, -1, 1) * 32767).astype("<i2").astype(np.float32) / 32768
    return [word.word for word in committed([*stream.push(heard), *stream.finish()])]


def measure(plan: Plan, model: Model, settings: Settings, spoken: Samples, say: Say) -> dict[str, Any]:
    """Run it all. Raises StreamerError where the program does not start."""
    result: dict[str, Any] = {"bench": "chaos", "machine": machine_facts(None), "model": model.name, "seed": plan.seed}
    parts, rng = pieces(spoken), Random(plan.seed)
    expected = [words_of(model, settings, part) for part in parts]
    with tempfile.TemporaryDirectory(prefix="streamer-chaos-") as name:
        folder = Path(name)
        world = _world(folder, plan, spoken, parts, expected, rng)
        rounds: list[Round] = []
        try:
            world.start()
            sizes, until_s = Sizes(world), time.monotonic() + plan.minutes * 60
            waiting: list[Fault] = []
            while time.monotonic() < until_s:
                waiting = waiting or rng.sample(FAULTS, len(FAULTS))
                began_s = time.monotonic()
                found = _round(world, waiting.pop(), rng.randrange(len(parts)))
                lag_s = world.lags.worst_s(began_s)
                late = f"lag levels off at {LAG_S:g} s: {lag_s:.1f}" if lag_s > LAG_S else ""
                rounds.append(replace(found, lag_s=lag_s, broken=found.broken or late))
                say(f"chaos: {found.fault}: {rounds[-1].broken or found.happened}; lag {lag_s:.1f} s")
            rounds.append(_told("a viewer stalls", lambda: closed_stalled(world)))
            sizes.end()
            for last in [KILL] * plan.kills + [END]:
                time.sleep(rng.uniform(2, 8))
                rounds.append(_told(last.name, lambda last=last: last.inject(world)))  # type: ignore[misc]
                say(f"chaos: {rounds[-1].fault}: {rounds[-1].broken or rounds[-1].happened}")
        finally:
            if hasattr(world, "program"):
                world.program.kill()
        log = (folder / "stderr.log").read_text(errors="replace")
    lags = [lag_s for _, lag_s in world.lags.rows]
    return {
        **result,
        "minutes": plan.minutes,
        "rounds": [
            {
                "fault": one.fault,
                "happened": one.happened,
                "broken": one.broken,
                "lost": one.lost,
                "lag_s": round(one.lag_s, 1),
            }
            for one in rounds
        ],
        "broken": sum(bool(one.broken) for one in rounds),
        "words": sum(one.words for one in rounds if one.lost is not None),
        "words_lost": sum(one.lost or 0 for one in rounds),
        "strangers_let_in": world.let_in,
        "tracebacks": log.count("Traceback (most recent call last)"),
        "events_of_room": world.reader.count,
        "lag_median_s": statistics.median(lags) if lags else None,
        "lag_worst_s": max(lags, default=None),
        **slopes(sizes.rows),
        "said": log[-KEPT_LOG:],
        "sizes": sizes.rows[:: max(1, len(sizes.rows) // 400)],
        "load_after": load(),
    }


def _world(
    folder: Path,
    plan: Plan,
    spoken: Samples,
    parts: Sequence[Samples],
    expected: Sequence[Sequence[str]],
    rng: Random,
) -> World:
    """The program's settings and recordings in `folder`: a source that lasts, alerts that come and go, a history."""
    long_s = plan.minutes * 60 + 120 * (plan.kills + 2)
    write_wav(folder / "room.wav", np.tile(spoken, int(long_s * SAMPLE_RATE / len(spoken)) + 1))
    token = secrets.token_hex(16)
    (folder / "token").touch(mode=0o600)
    (folder / "token").write_text(token)
    loud = {"severity": "info", "loud_dbfs": -45, "cooldown_s": 0}
    rules = [{"id": "short", "clear_after_s": 1, **loud}, {"id": "lasting", "clear_after_s": 300, **loud}]
    given = {
        "sources": [{"name": "room", "input": str(folder / "room.wav")}],
        "server": {"port": _free_port(), "token_file": str(folder / "token")},
        "history": {"persist": True, "path": str(folder / "events.log")},
        "alerts": {"rules": rules},
        "output": {"jsonl": str(folder / "events.jsonl"), "quiet": True},
    }
    (folder / "chaos.yaml").write_text(yaml.safe_dump(given))
    arguments = [*plan.options, "--config", str(folder / "chaos.yaml")]
    return World(folder, Place(given["server"]["port"], token), arguments, parts, expected, rng)  # type: ignore[index]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _round(world: World, fault: Fault, part: int) -> Round:
    """One fault while a witness speaks."""
    samples = world.spoken[part]
    witness = Sender(world.place, samples)
    time.sleep(world.rng.uniform(2, PIECE_S / 2))

    def inject() -> str:
        happened = fault.inject(world)
        must(witness.wait(len(samples) / SAMPLE_RATE + END_S), "the witness is through")
        if was_taken(witness):
            check_session(witness.events, merged=True, degraded=True)
        world.until_ready(RECOVER_S)
        return happened

    found = _told(fault.name, inject)
    if (
        not fault.gentle
        or found.broken
        or not witness.session
        or any(event.get("state") == "degraded" for event in witness.events)
    ):
        return found
    lost = missing(world.expected[part], words_in(witness.events))
    return Round(found.fault, found.happened, found.broken, len(world.expected[part]), lost)


def _told(name: str, work: Callable[[], str]) -> Round:
    try:
        return Round(name, work())
    except BrokenInvariant as error:
        return Round(name, "", str(error)[:2000])


def slopes(rows: Sequence[tuple[float, float, int, int]]) -> dict[str, Any]:
    """How memory, descriptors and threads rise in an hour, in the second half; None of fewer than ten points."""
    settled = rows[len(rows) // 2 :]
    names = ("rss_mib_per_hour", "descriptors_per_hour", "threads_per_hour")
    if len(settled) < 10:
        return dict.fromkeys(names)
    hours = [row[0] / 3600 for row in settled]
    return {
        name: round(float(np.polyfit(hours, [row[place + 1] for row in settled], 1)[0]), 2)
        for place, name in enumerate(names)
    }


def report(result: Mapping[str, Any]) -> Report:
    """The page: each fault with what had to happen and what did, and how the process went on."""
    musts = {fault.name: fault.must for fault in (*FAULTS, KILL, END)}
    rounds: dict[str, list[Mapping[str, Any]]] = {}
    for one in result["rounds"]:
        rounds.setdefault(one["fault"], []).append(one)
    rows = []
    for name, found in rounds.items():
        broken = [one["broken"] for one in found if one["broken"]]
        lost = [one["lost"] for one in found if one["lost"] is not None]
        happened = f"BROKEN: {broken[0][:160]}" if broken else found[-1]["happened"]
        lag_s = max(one["lag_s"] for one in found)
        rows.append([name, len(found), musts[name], happened, len(broken), sum(lost) if lost else None, lag_s])
    kept = ("broken", "words", "words_lost", "strangers_let_in", "tracebacks", "events_of_room", "lag_median_s")
    columns = ("injected", "times", "must", "happened (the last)", "broken", "words lost", "lag, s")
    sizes = ("lag_worst_s", "rss_mib_per_hour", "descriptors_per_hour", "threads_per_hour")
    return Report(
        name="chaos",
        title=f"Chaos, seed {result['seed']}, {result['minutes']:g} minutes: `{result['model']}`",
        about=" ".join((__doc__ or "").split("\n\n", 1)[1].split()),
        result=result,
        tables=(
            Table("Faults", columns, rows),
            Table("The whole run", ("what", "value"), [[name, result[name]] for name in (*kept, *sizes)]),
        ),
        draw=lambda figure: _draw(figure, result["sizes"]),
    )


def _draw(figure: Any, rows: Sequence[tuple[float, float, int, int]]) -> None:
    minutes = [row[0] / 60 for row in rows]
    names = ("memory, MiB", "descriptors", "threads")
    for place, (name, axes) in enumerate(zip(names, figure.subplots(3, 1, sharex=True), strict=True)):
        axes.plot(minutes, [row[place + 1] for row in rows])
        axes.set(ylabel=name, ylim=(0, None))
    axes.set(xlabel="minutes")
