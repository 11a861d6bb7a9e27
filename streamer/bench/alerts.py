"""`streamer bench alerts`: the alerts that recordings raise: those that ought to be, how soon, and false ones.

Each recording is heard alone, in a quiet room: 3 s of faint noise before it and 6 s after. By set: how many raised the
rule that ought to be raised, and when, from the recording's start. All other alerts are false and are counted by the
hour, but for those that a set may raise too, and for rules that are not about sounds. Which rules belong to a recording
says its manifest (column `alert`), else the name of its set.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from streamer.errors import InputError
from streamer.events import SAMPLE_RATE, Alert
from streamer.measure.recordings import BEFORE_S, NO_RULE, Recording, in_a_quiet_room
from streamer.measure.report import Report, Table, load, machine_facts
from streamer.model.whisper import Model
from streamer.runtime.stream import Stream
from streamer.settings.config import Settings

LONGEST_S = 120.0  # of a recording
PUSHED_SAMPLES = SAMPLE_RATE // 2
UNCOUNTED = frozenset({"silence", "help", "loud"})  # rules that no sound event raises
# By the last part of a set's name: the rule that ought to be raised, or none, and those that may be.
EXPECTED: Mapping[str, str] = MappingProxyType(
    {
        "smoke_alarm": "smoke_alarm",
        "siren": "siren",
        "baby_cry": "baby_cry",
        "dog_bark": "dog",
        "doorbell": "doorbell",
        "door_knock": "knock",
        "glass_break": "glass",
        "neg_car_horn": "car_horn",
        "neg_alarm_clock": "alarm_clock",
        "neg_phone_ring": "telephone",
        "urban_alert_signal": f"{NO_RULE} siren car_horn",
        "neg_street": f"{NO_RULE} siren car_horn dog",
        "neg_phone_alarm": f"{NO_RULE} alarm_clock telephone",
        "neg_appliance_beep": f"{NO_RULE} alarm_clock",
        "neg_beep": f"{NO_RULE} alarm_clock doorbell telephone",
        "neg_bell": f"{NO_RULE} doorbell alarm_clock",
        "neg_alarm_like": f"{NO_RULE} alarm_clock smoke_alarm siren",
    }
)


@dataclass(frozen=True, slots=True)
class Raised:
    """An alert that was raised, `at_s` from the recording's start."""

    rule: str
    severity: str
    at_s: float
    score: float
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Heard:
    """What one recording of `seconds` raised. `wanted` None: nothing ought to be. `false`: what ought not to be."""

    recording: str
    set: str
    seconds: float
    wanted: str | None
    raised: tuple[Raised, ...]
    false: tuple[Raised, ...]

    @property
    def after_s(self) -> float | None:
        """When the wanted rule was raised first; None: it was missed, or there is none."""
        return next((one.at_s for one in self.raised if one.rule == self.wanted), None)


def measure(
    model: Model, settings: Settings, recordings: Sequence[Recording], say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Hear every recording. Raises InputError for a rule that there is not."""
    expected = [_expected(recording, settings) for recording in recordings]
    result = {
        "bench": "alerts",
        "machine": machine_facts(torch.get_num_threads()),
        "model": model.name,
        "head": model.head.name if model.head else None,
        "dtype": model.precision,
    }
    heard = []
    for number, (recording, rules) in enumerate(zip(recordings, expected, strict=True), 1):
        heard.append(listen(model, settings, recording, rules))
        said = ", ".join(f"{one.rule} {one.at_s:.1f} s" for one in heard[-1].raised)
        say(f"alerts: {number} of {len(recordings)}, {recording.name}: {said or 'none'}")
    return {**result, **summary(heard, settings), "load_after": load()}


def listen(model: Model, settings: Settings, recording: Recording, rules: Sequence[str]) -> Heard:
    """What one recording raises. `rules`: the wanted one, or NO_RULE, and those that may be raised too."""
    samples = recording.samples()[: round(LONGEST_S * SAMPLE_RATE)]
    stream, room = Stream(model, settings), in_a_quiet_room(samples)
    events = [e for start in range(0, len(room), PUSHED_SAMPLES) for e in stream.push(room[start:][:PUSHED_SAMPLES])]
    raised = tuple(
        Raised(event.rule, event.severity, round(event.audio_t - BEFORE_S, 2), round(event.score, 3), event.labels)
        for event in (*events, *stream.finish())
        if isinstance(event, Alert) and event.state == "raised"
    )
    return Heard(
        recording=recording.name,
        set=recording.set,
        seconds=len(samples) / SAMPLE_RATE,
        wanted=None if rules[0] == NO_RULE else rules[0],
        raised=raised,
        false=tuple(one for one in raised if one.rule not in UNCOUNTED.union(rules)),
    )


def summary(heard: Sequence[Heard], settings: Settings) -> dict[str, Any]:
    """Figures by set, by rule and by severity, and what each recording raised."""
    hours = sum(each.seconds for each in heard) / 3600
    false = [one for each in heard for one in each.false]
    counts = Counter(one.rule for one in false)
    sets = {name: [each for each in heard if each.set == name] for name in dict.fromkeys(each.set for each in heard)}
    return {
        "hours": round(hours, 3),
        "sets": [_set_row(name, group) for name, group in sets.items()],
        "severities": [
            _per_hour({"alerts": name}, sum((one.severity == "critical") == critical for one in false), hours)
            for name, critical in (("critical", True), ("all others", False))
        ],
        "rules": [
            _per_hour({"rule": rule.id, "severity": rule.severity}, counts[rule.id], hours)
            for rule in settings.alerts.rules
            if rule.enabled and rule.id not in UNCOUNTED
        ],
        "recordings": [asdict(each) for each in heard],
    }


def poisson_bound(count: int) -> float:
    """Upper 95 % bound of a Poisson mean after `count` events (one-sided, exact, by bisection)."""
    low, high = 0.0, 10.0 + 3 * count
    for _ in range(60):
        middle = (low + high) / 2
        terms = np.cumprod(np.concatenate([[1.0], middle / np.arange(1, count + 1)]))
        low, high = (middle, high) if np.exp(-middle) * terms.sum() > 0.05 else (low, middle)
    return high


def _expected(recording: Recording, settings: Settings) -> Sequence[str]:
    if not recording.alert:
        return EXPECTED.get(recording.set.rpartition("/")[2], NO_RULE).split()
    known = {rule.id for rule in settings.alerts.rules}
    for rule in recording.alert:
        if rule not in known | {NO_RULE}:
            raise InputError(f"--data, {recording.name}: `alert` must be among {', '.join(sorted(known))}, is {rule!r}")
    return recording.alert


def _set_row(name: str, heard: Sequence[Heard]) -> dict[str, Any]:
    asked = [each for each in heard if each.wanted]
    after = [each.after_s for each in asked if each.after_s is not None]
    false = [one for each in heard for one in each.false]
    return {
        "set": name,
        "recordings": len(heard),
        "minutes": round(sum(each.seconds for each in heard) / 60, 2),
        "rule": ", ".join(dict.fromkeys(each.wanted or "" for each in asked)) or None,
        "raised": f"{len(after)} of {len(asked)}" if asked else None,
        "after_p50_s": round(float(np.median(after)), 2) if after else None,
        "false_critical": sum(one.severity == "critical" for one in false),
        "false_others": sum(one.severity != "critical" for one in false),
    }


def _per_hour(named: Mapping[str, Any], count: int, hours: float) -> dict[str, Any]:
    return {
        **named,
        "false": count,
        "per_hour": count / hours if hours else None,
        "bound_per_hour": poisson_bound(count) / hours if hours else None,
    }


def report(result: Mapping[str, Any]) -> Report:
    """The page: recall by set, false alerts by severity and rule, and which were critical."""
    wrong = [
        (each["recording"], one["rule"], one["at_s"], one["score"], ", ".join(one["labels"]))
        for each in result["recordings"]
        for one in each["false"]
        if one["severity"] == "critical"
    ]
    tables = [
        Table(caption, tuple(result[key][0]), [list(row.values()) for row in result[key]])
        for key, caption in (
            ("sets", "By set"),
            ("severities", f"False alerts in {result['hours']:.2f} h"),
            ("rules", "False alerts by rule"),
        )
    ]
    if wrong:
        tables.append(Table("False critical alerts", ("recording", "rule", "after s", "score", "labels"), wrong))
    return Report(
        name="alerts",
        title=f"Alerts on recordings: `{result['model']}`",
        about=" ".join((__doc__ or "").split("\n\n", 1)[1].split())
        + f" Head: {result['head'] or 'none'}. The bound is the upper 95 % one of a Poisson rate (one-sided, exact).",
        result=result,
        tables=tables,
    )
