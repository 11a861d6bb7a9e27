"""How well alarms are heard: recall, latency, end, confusion, and false alarms per hour, rule by rule.

The whole engine with a model (patterns of the signal and tagging head together), or the patterns alone. Every scene has
a seed of its own, so that the number of processes changes nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from streamer.events import SAMPLE_RATE, Alert
from streamer.measure.processes import as_done
from streamer.recipes.synthesis import alert_scenes, sounds
from streamer.recipes.synthesis.alert_scenes import LEAD_S, Background, Pools
from streamer.recipes.synthesis.sounds import DEVELOPMENT, JUDGING, Generator, Samples, Spread
from streamer.settings.rules import AlertRules, parse_rules
from streamer.sound.alerts import AlertChange, AlertEngine, AlertInput
from streamer.sound.labels import labels, resolve
from streamer.sound.patterns.cadence import CadenceDetector
from streamer.vad.planner import BEAT_SAMPLES

RULE_OF = {
    **{"t3": "smoke_alarm", "t4": "co_alarm", "wail": "siren", "yelp": "siren", "hilo": "siren"},
    **{"siren (recorded)": "siren", "glass": "glass", "knock": "knock", "baby": "baby_cry", "dog": "dog"},
}
BACKGROUNDS = ("speech", "household", "music")
SNRS_DB = (20, 10, 0, -10)
QUIET_S, DISTRACTOR_S = 120.0, 60.0  # length of the scenes without alarms
EXPLAINED_S = 3.0  # an alert may begin so long before the sound that explains it was noted, and be raised so late

Listener = Callable[[Samples], list[AlertChange]]


@dataclass(frozen=True, slots=True)
class Job:
    """One scene to listen to. `what`: alarm, distractor or quiet."""

    what: str
    kind: str
    background: str
    snr_db: int
    number: int


@dataclass(frozen=True, slots=True)
class Trial:
    """What was raised in one scene; times in seconds. `latency_s` None: missed. `offset_s`: cleared after the end.

    `raises`: alerts of the right rule. `critical`, `others`: rules that were raised wrongly, by severity.
    """

    job: Job
    period_s: float
    latency_s: float | None
    offset_s: float | None
    raises: int
    critical: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judge:
    """Everything that decides a trial but the job: seed, pools, spread, and who listens."""

    seed: int
    pools: Pools
    spread: Spread
    listener: Listener

    def attempt(self, job: Job) -> Trial:
        """Compose the scene, listen, and compare with the truth."""
        names = ("alarm", "distractor", "quiet")
        kinds = [*RULE_OF, *sounds.DISTRACTORS, ""]
        rng = np.random.default_rng(
            [self.seed, names.index(job.what), kinds.index(job.kind), job.snr_db + 100, len(job.background), job.number]
        )
        if job.what == "alarm":
            return self._alarm(job, rng)
        if job.what == "distractor":
            scene = alert_scenes.distractor(job.kind, rng, self.pools, DISTRACTOR_S, self.spread)
            return self._without_alarm(job, Background(scene))
        kind, background = alert_scenes.mixed(rng, self.pools, QUIET_S, self.spread)
        return self._without_alarm(Job("quiet", "", kind, 0, job.number), background)

    def _alarm(self, job: Job, rng: Generator) -> Trial:
        scene = alert_scenes.compose(job.kind, job.background, job.snr_db, rng, self.pools, self.spread)
        changes = self.listener(scene.samples)
        raised = [change for change in changes if change.state == "raised" and change.at_sample > LEAD_S * SAMPLE_RATE]
        rule, latest = RULE_OF[job.kind], (scene.end_s + 1 + 2 * (scene.period_s == 0)) * SAMPLE_RATE
        own = [change for change in raised if change.rule == rule and change.at_sample <= latest]
        ids = {change.id for change in own}
        ends = [change.at_sample for change in changes if change.id in ids and change.state == "cleared"]
        return Trial(
            job=job,
            period_s=scene.period_s,
            latency_s=own[0].at_sample / SAMPLE_RATE - scene.start_s if own else None,
            offset_s=ends[-1] / SAMPLE_RATE - scene.end_s if ends else None,
            raises=len(own),
            critical=tuple(change.rule for change in raised if change.severity == "critical" and change.rule != rule),
            others=(),
        )

    def _without_alarm(self, job: Job, background: Background) -> Trial:
        wrong = [
            change
            for change in self.listener(np.clip(background.samples, -1, 1).astype(np.float32))
            if change.state == "raised" and not explained(change, background)
        ]
        critical = tuple(change.rule for change in wrong if change.severity == "critical")
        others = tuple(change.rule for change in wrong if change.severity != "critical")
        return Trial(job, 0.0, None, None, 0, critical, others)


def explained(change: AlertChange, background: Background) -> bool:
    """Whether a recording in the background really is what the alert says."""
    rule = next(rule for rule in AlertRules.default().rules if rule.id == change.rule)
    names = {labels()[index].name for label in rule.labels for index in resolve(label)}
    start, at = change.start_sample / SAMPLE_RATE - EXPLAINED_S, change.at_sample / SAMPLE_RATE
    return any(
        names & found and begins <= at and ends + EXPLAINED_S >= start for found, begins, ends in background.heard
    )


def listen(samples: Samples) -> list[AlertChange]:
    """What the default rules raise and clear on this audio by the signal's patterns alone, sirens without consent."""
    rules = parse_rules({"rules": [{"id": "siren", "labels": []}]})
    engine, detector, changes = AlertEngine(rules), CadenceDetector(), []
    for end in range(BEAT_SAMPLES, samples.size + 1, BEAT_SAMPLES):
        states = detector.step(samples[end - BEAT_SAMPLES : end], end)
        changes += engine.step(AlertInput(end_sample=end, cadence=tuple(states)))
    return changes + engine.finish(samples.size // BEAT_SAMPLES * BEAT_SAMPLES)


def engine_listener(name: str = "nano") -> Listener:
    """The whole engine with this model: patterns and tagging head together. Slower by far."""
    import torch

    import streamer

    torch.set_num_threads(1)
    model = streamer.load_model(name)

    def whole(samples: Samples) -> list[AlertChange]:
        stream = streamer.Stream(model)
        events = [*stream.push(samples), *stream.finish()]
        return [_change(event) for event in events if isinstance(event, Alert)]

    return whole


def jobs(kinds: Sequence[str], trials: int, hours: float) -> Iterator[Job]:
    """All scenes: `trials` of each alarm, background and SNR; a tenth of `hours` for each distractor; `hours` quiet."""
    for kind in kinds:
        for background in BACKGROUNDS:
            for snr in SNRS_DB:
                yield from (Job("alarm", kind, background, snr, number) for number in range(trials))
    for name in sounds.DISTRACTORS:
        yield from (Job("distractor", name, "", 0, n) for n in range(max(1, round(hours * 360 / DISTRACTOR_S))))
    yield from (Job("quiet", "", "", 0, number) for number in range(max(1, round(hours * 3600 / QUIET_S))))


def main(
    *,
    development: bool = False,
    trials: int = 10,
    hours: float = 1.0,
    seed: int = 20_261_123,
    data: Path | None = None,
    kinds: Sequence[str] | None = None,
    model: str | None = None,
    processes: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """All tables. `model`: the whole engine with it; None: the patterns alone. `development`: the set to build on.

    The judging set has other seeds, recordings (the test split) and wider ranges than the detector was built on.
    """
    seed = 2 * seed + development  # the two sets share no scene
    pools = alert_scenes.read_pools(data, development)
    wanted = list(jobs(alert_scenes.kinds(pools) if kinds is None else kinds, trials, hours))
    done: dict[int, Trial] = {}
    for place, trial in as_done(_attempt, wanted, processes, _prepare, (seed, data, development, model)):
        done[place] = trial
        if len(done) % 50 == 0:
            say(f"{len(done)} of {len(wanted)} scenes")
    found = [done[place] for place in range(len(wanted))]
    alarms = [trial for trial in found if trial.job.what == "alarm"]
    return {
        "set": "development" if development else "judging",
        "listener": "patterns alone" if model is None else f"engine with {model}",
        "recall": [_row(group) for group in _grouped(alarms, lambda job: (job.kind, job.background, job.snr_db))],
        "recall_by_snr": [_row(group) for group in _grouped(alarms, lambda job: (job.kind, job.snr_db))],
        "distractors": [
            {"sound": group[0].job.kind} | _wrong(group, DISTRACTOR_S)
            for group in _grouped([t for t in found if t.job.what == "distractor"], lambda job: (job.kind,))
        ],
        "false_alarms": _wrong([trial for trial in found if trial.job.what == "quiet"], QUIET_S),
    }


_judges: list[Judge] = []  # the one of this process of the pool


def _prepare(seed: int, data: Path | None, development: bool, model: str | None) -> None:
    spread = DEVELOPMENT if development else JUDGING
    pools = alert_scenes.read_pools(data, development)
    _judges[:] = [Judge(seed, pools, spread, listen if model is None else engine_listener(model))]


def _attempt(job: Job) -> Trial:
    return _judges[0].attempt(job)


def _grouped(trials: Sequence[Trial], key: Callable[[Job], tuple[Any, ...]]) -> list[list[Trial]]:
    ordered = sorted(trials, key=lambda trial: key(trial.job))
    return [list(group) for _, group in groupby(ordered, lambda trial: key(trial.job))]


def _row(done: Sequence[Trial]) -> dict[str, Any]:
    first = done[0].job
    latencies = [trial.latency_s for trial in done if trial.latency_s is not None]
    offsets = [trial.offset_s for trial in done if trial.offset_s is not None]
    in_time = [
        trial.latency_s is not None and trial.period_s > 0 and trial.latency_s <= 1.5 * trial.period_s for trial in done
    ]
    return {
        "kind": first.kind,
        "background": first.background if len({trial.job.background for trial in done}) == 1 else "all",
        "snr_db": first.snr_db,
        "trials": len(done),
        "recall": round(len(latencies) / len(done), 3),
        "in_1.5_periods": round(float(np.mean(in_time)), 3),
        "latency_p50_s": _quantile(latencies, 0.5),
        "latency_p95_s": _quantile(latencies, 0.95),
        "offset_p95_s": _quantile(offsets, 0.95),
        "raised_again": round(float(np.mean([trial.raises > 1 for trial in done])), 3),
        "other_critical": round(float(np.mean([bool(trial.critical) for trial in done])), 3),
    }


def _wrong(trials: Sequence[Trial], seconds_each: float) -> dict[str, Any]:
    """False alarms per hour with the one-sided 95 % Poisson bound, and which they were."""
    hours = len(trials) * seconds_each / 3600
    critical = Counter(rule for trial in trials for rule in trial.critical)
    others = Counter(rule for trial in trials for rule in trial.others)
    return {
        "hours": round(hours, 3),
        "critical": critical.total(),
        "critical_bound_per_hour": round(poisson_bound(critical.total()) / hours, 3),
        "others": others.total(),
        "others_per_hour": round(others.total() / hours, 3),
        "rules": ", ".join(f"{rule} {count}" for rule, count in (critical + others).most_common()),
        "where": ", ".join(sorted({trial.job.background for trial in trials if trial.critical})),
    }


def _change(event: Alert) -> AlertChange:
    def samples(seconds: float) -> int:
        return round(seconds * SAMPLE_RATE)

    return AlertChange(
        at_sample=samples(event.audio_t),
        id=event.id,
        rule=event.rule,
        severity=event.severity,
        state=event.state,
        start_sample=samples(event.start),
        end_sample=None if event.end is None else samples(event.end),
        score=event.score,
        labels=event.labels,
        heard=event.heard,
        text=event.text,
    )


def _quantile(values: Sequence[float], q: float) -> float | None:
    return round(float(np.quantile(values, q)), 2) if values else None


def poisson_bound(count: int) -> float:
    """Upper 95 % bound of a Poisson mean after `count` events (one-sided, exact, by bisection)."""
    low, high = 0.0, 10.0 + 3 * count
    for _ in range(60):
        middle = (low + high) / 2
        terms = np.cumprod(np.concatenate([[1.0], middle / np.arange(1, count + 1)]))
        low, high = (middle, high) if np.exp(-middle) * terms.sum() > 0.05 else (low, middle)
    return high
