"""False alarms per hour: hours of speech, noise, household sounds and music without any alarm, rule by rule.

Every scene has a seed of its own, so that the number of processes changes nothing. What a scene raised is written down
as soon as it is known: a run that was cut off goes on where it was when the same command is given again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from streamer.bench.alerts import Listener, engine_listener, explained, listen, poisson_bound
from streamer.errors import UsageError
from streamer.events import SAMPLE_RATE
from streamer.measure import machine
from streamer.measure.processes import as_done
from streamer.measure.report import Report, Table, publish
from streamer.recipes.synthesis import alert_scenes
from streamer.recipes.synthesis.alert_scenes import EVERYDAY, Pools
from streamer.recipes.synthesis.sounds import DEVELOPMENT, JUDGING
from streamer.settings.rules import AlertRules

NAME = "alerts_false"
SCENE_S = 120.0
PUBLISHED_EVERY = 10  # scenes
# What decides what is raised:
SOURCES = ("sound/*.py", "vad/*.py", "data/alerts.yaml", "data/label_groups.yaml", "data/nano*.p*", "data/*.npz")


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. `model` None: the patterns of the signal alone. `development`: the recordings and ranges to build on."""

    hours: float = 10.0
    seed: int = 20_261_123
    data: Path | None = None
    development: bool = False
    model: str | None = "nano"
    processes: int = 2
    folder: Path = Path("build/bench")

    @property
    def scenes(self) -> int:
        """How many scenes make so many hours."""
        return max(1, round(self.hours * 3600 / SCENE_S))

    def identity(self) -> dict[str, Any]:
        """What a started run must agree in to be gone on with: everything that changes what a scene raises."""
        return {
            "seed": self.seed,
            "data": None if self.data is None else str(self.data),
            "set": "development" if self.development else "judging",
            "listener": "patterns alone" if self.model is None else f"engine with {self.model}",
            "code": _fingerprint(),
        }


@dataclass(frozen=True, slots=True)
class Wrong:
    """An alert that nothing in the scene explains; `heard`: its top tags."""

    rule: str
    severity: str
    at_s: float
    score: float
    labels: tuple[str, ...]
    heard: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Heard:
    """What one scene raised wrongly. `kind`: its background."""

    number: int
    kind: str
    wrong: tuple[Wrong, ...]


def measure(plan: Plan, say: Callable[[str], None] = lambda line: None) -> Report:
    """Listen to every scene that is not done yet and return the findings; they are published every few scenes.

    Raises UsageError where `plan.folder` cannot be written.
    """
    facts = machine.facts(1)
    log = plan.folder / f"{NAME}.jsonl"
    found = {number: heard for number, heard in _resume(log, plan.identity(), say).items() if number < plan.scenes}
    wanted = [number for number in range(plan.scenes) if number not in found]
    with log.open("a", encoding="utf-8") as file:
        for _, heard in as_done(_attempt, wanted, plan.processes, _prepare, (plan,)):
            found[heard.number] = heard
            file.write(json.dumps(asdict(heard)) + "\n")
            file.flush()
            if len(found) % PUBLISHED_EVERY == 0:
                publish(_report(found, plan, facts), plan.folder)
                say(f"{len(found)} of {plan.scenes} scenes, {sum(len(h.wrong) for h in found.values())} false alarms")
    return _report(found, plan, facts)


def _resume(log: Path, identity: Mapping[str, Any], say: Callable[[str], None]) -> dict[int, Heard]:
    """What an earlier run of the same kind wrote; otherwise the file is begun anew."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        rows = [row for line in lines if (row := _row(line)) is not None]
        if rows and rows[0] == dict(identity):
            say(f"{len(rows) - 1} scenes are done already: {log}")
            found = (_heard(row) for row in rows[1:])
            if lines and _row(lines[-1]) is None:  # cut off while it was written
                log.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            return {heard.number: heard for heard in found}
        log.write_text(json.dumps(identity) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--out {log.parent}: cannot be written: {error.strerror}") from None
    return {}


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _heard(row: Mapping[str, Any]) -> Heard:
    wrong = tuple(
        Wrong(**{**one, "labels": tuple(one["labels"]), "heard": tuple(one["heard"])}) for one in row["wrong"]
    )
    return Heard(row["number"], row["kind"], wrong)


@dataclass(frozen=True, slots=True)
class _Judge:
    plan: Plan
    pools: Pools
    listener: Listener

    def attempt(self, number: int) -> Heard:
        """Compose scene `number`, listen, and keep what nothing in it explains."""
        rng = np.random.default_rng([self.plan.seed, 1000 + number])
        spread = DEVELOPMENT if self.plan.development else JUDGING
        kind = EVERYDAY[number % len(EVERYDAY)]
        name, scene = alert_scenes.everyday(kind, rng, self.pools, SCENE_S, spread)
        changes = self.listener(scene.samples)
        wrong = (change for change in changes if change.state == "raised" and not explained(change, scene))
        return Heard(
            number,
            name,
            tuple(
                Wrong(
                    change.rule,
                    change.severity,
                    round(change.at_sample / SAMPLE_RATE, 2),
                    round(float(change.score), 3),
                    change.labels,
                    tuple(f"{tag.label} {tag.score:.2f}" for tag in change.heard),
                )
                for change in wrong
            ),
        )


_judges: list[_Judge] = []  # the one of this process of the pool


def _prepare(plan: Plan) -> None:
    pools = alert_scenes.read_pools(plan.data, plan.development, every_voice=True)
    _judges[:] = [_Judge(plan, pools, listen if plan.model is None else engine_listener(plan.model))]


def _attempt(number: int) -> Heard:
    return _judges[0].attempt(number)


def _report(found: Mapping[int, Heard], plan: Plan, facts: Mapping[str, Any]) -> Report:
    heard = list(found.values())
    hours = len(heard) * SCENE_S / 3600
    rules = [_rule_row(rule.id, rule.severity, heard, hours) for rule in AlertRules.default().rules if rule.enabled]
    severities = [
        _count_row({"alerts": name}, sum(w.severity in severities for h in heard for w in h.wrong), hours)
        for name, severities in {"critical": {"critical"}, "all others": {"warning", "info"}}.items()
    ]
    kinds = [_kind_row(kind, heard) for kind in sorted({h.kind for h in heard})]
    result = {
        "bench": NAME,
        "machine": dict(facts),
        **plan.identity(),
        "hours": round(hours, 2),
        "scenes": len(heard),
        "complete": len(heard) == plan.scenes,
        "severities": severities,
        "rules": rules,
        "backgrounds": kinds,
        "wrong": [{"scene": h.number, "background": h.kind, **asdict(w)} for h in heard for w in h.wrong],
    }
    captions = {"severities": "All rules", "rules": "Each rule", "backgrounds": "Each background"}
    tables = [
        Table(captions[key], tuple(result[key][0]), [list(row.values()) for row in result[key]])
        for key in captions
        if result[key]
    ]
    about = (
        f"{' '.join((__doc__ or '').split())} Here: {result['listener']}, {result['set']} set, {hours:.2f} of "
        f"{plan.hours:g} hours. The bound is the upper 95 % one of a Poisson rate (one-sided, exact)."
    )
    return Report(NAME, "False alarms", about, result, tables)


def _rule_row(rule: str, severity: str, heard: Sequence[Heard], hours: float) -> dict[str, Any]:
    where = sorted({h.kind for h in heard if any(wrong.rule == rule for wrong in h.wrong)})
    count = sum(wrong.rule == rule for h in heard for wrong in h.wrong)
    return {**_count_row({"rule": rule, "severity": severity}, count, hours), "where": ", ".join(where)}


def _kind_row(kind: str, heard: Sequence[Heard]) -> dict[str, Any]:
    own = [h for h in heard if h.kind == kind]
    wrong = [w for h in own for w in h.wrong]
    critical = sum(w.severity == "critical" for w in wrong)
    hours = len(own) * SCENE_S / 3600
    return {"background": kind, "hours": round(hours, 2), "critical": critical, "others": len(wrong) - critical}


def _count_row(named: Mapping[str, Any], count: int, hours: float) -> dict[str, Any]:
    per_hour = {"per_hour": count / hours if hours else None}
    bound = {"bound_per_hour": round(poisson_bound(count) / hours, 3) if hours else None}
    return {**named, "false_alarms": count, **per_hour, **bound}


def _fingerprint() -> str:
    """A hash of everything that decides what is raised: the sound code, the rules, the bundled model."""
    root, digest = Path(str(files("streamer"))), hashlib.sha256()
    for pattern in SOURCES:
        for path in sorted(root.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
