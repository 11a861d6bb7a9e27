"""What sounds are judged by: recall and seconds by rule, false alerts by the hour, average precision. Pure.

**Recall**: recordings that raised the rule that they ought to, and when (p50, p95 of those that did). **False alerts**:
by the hour of audio that was heard, with the upper 95 % bound of a Poisson rate (one-sided, exact); `recordings`: in
how many. **Average precision**: over the seconds of recordings, by the best score of a rule's labels. Right are all
seconds of recordings that ought to raise the rule, wrong those of all others but what may raise it. Such labels are
weak: a second of silence between barks counts as a bark, for every listener alike.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.bench.speech_scores import percentile
from streamer.errors import InputError
from streamer.measure.recordings import NO_RULE, Recording
from streamer.measure.report import Report, Table, evaluation_library

UNCOUNTED = frozenset({"silence", "help", "loud"})  # rules that no sound event raises
ALONE = "alone"  # the condition in which nothing else sounds
LEAST_RECORDINGS = 5  # of a class, or its average precision says nothing
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
# AudioSet's labels of what raises a rule.
LABELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "smoke_alarm": ("Smoke detector, smoke alarm", "Fire alarm"),
        "siren": (
            *("Siren", "Civil defense siren", "Police car (siren)", "Ambulance (siren)"),
            *("Fire engine, fire truck (siren)", "Emergency vehicle"),
        ),
        "baby_cry": ("Baby cry, infant cry", "Crying, sobbing"),
        "dog": ("Dog", "Bark", "Yip", "Bow-wow", "Growling", "Howl", "Whimper (dog)"),
        "doorbell": ("Doorbell", "Ding-dong"),
        "knock": ("Knock", "Tap"),
        "glass": ("Glass", "Shatter", "Breaking"),
        "car_horn": ("Vehicle horn, car horn, honking", "Toot", "Air horn, truck horn"),
        "alarm_clock": ("Alarm clock",),
        "telephone": ("Telephone", "Telephone bell ringing", "Ringtone"),
    }
)


@dataclass(frozen=True, slots=True)
class Raised:
    """An alert that was raised, `at_s` from the start of what was heard."""

    rule: str
    severity: str
    at_s: float
    score: float
    labels: tuple[str, ...] = ()

    def since(self, start_s: float) -> "Raised":
        """The same from another start on."""
        return replace(self, at_s=round(self.at_s - start_s, 2))


@dataclass(frozen=True, slots=True)
class Heard:
    """What one recording of `seconds` raised with one listener in one condition.

    `exposed_s`: of audio in which an alert could be false. `wanted` None: nothing ought to be raised; `allowed`: what
    may be, the wanted one among it. `raised`: from the recording's start. `scores`: by rule, of each second.
    """

    listener: str
    condition: str
    recording: str
    set: str
    seconds: float
    exposed_s: float
    wanted: str | None
    allowed: tuple[str, ...]
    doubtful: bool
    raised: tuple[Raised, ...]
    scores: Mapping[str, NDArray[np.float32]]

    @property
    def after_s(self) -> float | None:
        """When the wanted rule was raised first; None: it was missed, or there is none."""
        return next((one.at_s for one in self.raised if one.rule == self.wanted and one.at_s >= 0), None)

    @property
    def false(self) -> tuple[Raised, ...]:
        """The alerts that ought not to be."""
        return tuple(
            one for one in self.raised if one.rule not in UNCOUNTED and (one.rule not in self.allowed or one.at_s < 0)
        )


def expected(recording: Recording, rules: Mapping[str, str]) -> Sequence[str]:
    """The rule that ought to be raised, or NO_RULE, and those that may be. Raises InputError for one there is not."""
    if not recording.alert:
        return EXPECTED.get(recording.set.rpartition("/")[2], NO_RULE).split()
    for rule in recording.alert:
        if rule not in {*rules, NO_RULE}:
            raise InputError(f"--data, {recording.name}: `alert` must be among {', '.join(sorted(rules))}, is {rule!r}")
    return recording.alert


def summary(heard: Sequence[Heard], rules: Mapping[str, str]) -> dict[str, Any]:
    """Figures by condition and listener, and what each recording raised. `rules`: severity by id."""
    groups: dict[tuple[str, str], list[Heard]] = {}
    for each in heard:
        groups.setdefault((each.condition, each.listener), []).append(each)
    found: dict[str, list[dict[str, Any]]] = {"recall": [], "sets": [], "severities": [], "rules": [], "precision": []}
    for (condition, listener), group in groups.items():
        who = {"condition": condition, "listener": listener}
        hours = sum(each.exposed_s for each in group) / 3600
        asked = dict.fromkeys(each.wanted for each in group if each.wanted)
        found["recall"] += [{**who, "rule": rule, **_recall(group, rule)} for rule in rules if rule in asked]
        counted = [rule for rule in rules if rule not in UNCOUNTED]
        for name, critical in (("critical", True), ("all others", False)):
            these = [rule for rule in counted if (rules[rule] == "critical") == critical]
            found["severities"].append({**who, "alerts": name, **_false(group, these, hours)})
        for rule in counted:
            false = _false(group, [rule], hours)
            found["rules"].append({**who, "rule": rule, "severity": rules[rule], **false})
        ranked = {rule: _precision(group, rule) for rule in LABELS}
        found["precision"] += [{**who, "rule": rule, **row} for rule, row in ranked.items() if row]
        sets = {name: [each for each in group if each.set == name] for name in dict.fromkeys(e.set for e in group)}
        found["sets"] += [{**who, **_set_row(name, each)} for name, each in sets.items()]
    first = [each for each in heard if (each.condition, each.listener) == next(iter(groups))]
    listed = [
        {key: value for key, value in asdict(each).items() if key != "scores"}
        | {"false": [asdict(one) for one in each.false]}
        for each in heard
    ]
    return {"hours": round(sum(each.exposed_s for each in first) / 3600, 3), **found, "recordings": listed}


def _recall(group: Sequence[Heard], rule: str) -> dict[str, Any]:
    sure, doubtful = (
        [each for each in group if each.wanted == rule and each.doubtful is which] for which in (False, True)
    )
    after = [each.after_s for each in (*sure, *doubtful) if each.after_s is not None]
    return {
        "raised": _of(sure),
        "doubtful": _of(doubtful) if doubtful else None,
        "after_p50_s": percentile(after, 50),
        "after_p95_s": percentile(after, 95),
    }


def _of(asked: Sequence[Heard]) -> str:
    return f"{sum(each.after_s is not None for each in asked)} of {len(asked)}"


def _false(group: Sequence[Heard], rules: Sequence[str], hours: float) -> dict[str, Any]:
    false = [sum(one.rule in rules for one in each.false) for each in group]
    return {
        "false": sum(false),
        "recordings": sum(map(bool, false)),
        "per_hour": sum(false) / hours if hours else None,
        "bound_per_hour": poisson_bound(sum(false)) / hours if hours else None,
    }


def poisson_bound(count: int) -> float:
    """Upper 95 % bound of a Poisson mean after `count` events (one-sided, exact, by bisection)."""
    low, high = 0.0, 10.0 + 3 * count
    for _ in range(60):
        middle = (low + high) / 2
        terms = np.cumprod(np.concatenate([[1.0], middle / np.arange(1, count + 1)]))
        low, high = (middle, high) if np.exp(-middle) * terms.sum() > 0.05 else (low, middle)
    return high


def _precision(group: Sequence[Heard], rule: str) -> dict[str, Any] | None:
    """Average precision over seconds; None for a rule with too few recordings, or whose scores nobody knows."""
    right = [each for each in group if each.wanted == rule and not each.doubtful and rule in each.scores]
    wrong = [each for each in group if rule not in each.allowed and rule in each.scores]
    if len(right) < LEAST_RECORDINGS or not wrong:
        return None
    positive, negative = (np.concatenate([each.scores[rule] for each in part]) for part in (right, wrong))
    truth = np.concatenate([np.ones(len(positive)), np.zeros(len(negative))])
    metrics = evaluation_library("sklearn.metrics")
    return {
        "recordings": len(right),
        "seconds": len(positive),
        "others_s": len(negative),
        "average_precision": round(
            float(metrics.average_precision_score(truth, np.concatenate([positive, negative]))), 4
        ),
    }


def _set_row(name: str, heard: Sequence[Heard]) -> dict[str, Any]:
    asked = [each for each in heard if each.wanted]
    false = Counter(one.severity == "critical" for each in heard for one in each.false)
    return {
        "set": name,
        "recordings": len(heard),
        "minutes": round(sum(each.seconds for each in heard) / 60, 2),
        "raised": _of(asked) if asked else None,
        "false_critical": false[True],
        "false_others": false[False],
    }


def report(result: Mapping[str, Any]) -> Report:
    """The page: recall and seconds, false alerts, average precision, by set, and which false alerts were critical."""
    wrong = [
        (each["condition"], each["listener"], each["recording"], one["rule"], one["at_s"], one["score"])
        for each in result["recordings"]
        for one in each["false"]
        if one["severity"] == "critical"
    ]
    raised = [row for row in result["rules"] if row["false"]]
    tables = [
        Table(caption, tuple(rows[0]), [list(row.values()) for row in rows])
        for rows, caption in (
            (result["recall"], "Rules that ought to be raised"),
            (result["severities"], f"False alerts ({result['hours']:.2f} h alone)"),
            (raised, "False alerts by rule; rules without one are left out"),
            (result["precision"], "Average precision over seconds"),
            ([row for row in result["sets"] if row["condition"] == ALONE], "By set"),
        )
        if rows
    ]
    if wrong:
        header = ("condition", "listener", "recording", "rule", "after s", "score")
        tables.append(Table("False critical alerts", header, wrong))
    peer = (
        f" Beside it `{result['peer']}`: a score of 0.5 in one frame is an alert, once a recording."
        if result["peer"]
        else ""
    )
    return Report(
        name="sounds",
        title=f"Sounds and alerts on recordings: `{result['model']}`, head {result['head'] or 'none'}",
        about=f"Recordings by others, {result['dtype']}.{peer} "
        + " ".join((__doc__ or "").split("\n\n", 1)[1].split()),
        result=result,
        tables=tables,
        draw=(lambda figure: _draw(figure, result)) if result["recall"] else None,
    )


def _draw(figure: Any, result: Mapping[str, Any]) -> None:
    """Recall by rule, and average precision, a bar for each condition and listener."""
    colours = evaluation_library("matplotlib").colormaps["tab20"].colors  # pairs: one for each condition, two listeners
    plots = [("recall", "raised", "recall")]
    plots += [("precision", "average_precision", "average precision over seconds")] if result["precision"] else []
    for axes, (table, key, title) in zip(figure.subplots(1, len(plots), squeeze=False)[0], plots, strict=True):
        rules = list(dict.fromkeys(row["rule"] for row in result[table]))
        who = list(dict.fromkeys((row["listener"], row["condition"]) for row in result[table]))
        for place, (listener, condition) in enumerate(who):
            rows = [row for row in result[table] if (row["listener"], row["condition"]) == (listener, condition)]
            at = [rules.index(row["rule"]) + 0.8 * place / len(who) for row in rows]
            shares, name = [_share(row[key]) for row in rows], f"{listener}, {condition}"
            axes.bar(at, shares, 0.8 / len(who), label=name, color=colours[place % len(colours)])
        axes.set_xticks([index + 0.4 for index in range(len(rules))], rules, rotation=30, ha="right", fontsize=7)
        axes.set(title=title, ylim=(0, 1))
        axes.legend(fontsize=6)


def _share(value: str | float) -> float:
    """As it is, or of `3 of 4`."""
    if not isinstance(value, str):
        return value
    hit, _, asked = value.partition(" of ")
    return int(hit) / max(1, int(asked))
