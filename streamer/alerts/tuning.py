"""What marks say about the rules: how often each was right, and which threshold would have avoided the false alarms.

Pure. A threshold only helps where the tagger's score raised the alert: alerts that a pattern of the signal, words or a
level raised are counted, and left out of the proposal.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streamer.alerts.history import HistoryEntry
from streamer.settings.rules import AlertRule, AlertRules
from streamer.sound.labels import labels

LEAST_MARKS = 10  # of one rule; fewer say too little about a threshold
LEAST_FALSE = 3
STEP = 0.01  # thresholds are proposed in such steps


@dataclass(frozen=True, slots=True)
class RuleReport:
    """What the marks say about one rule.

    `precision_low`, `precision_high`: 95 % interval (Wilson 1927) of the share of true alerts among the marked.
    `avoids_all`: the least threshold above every false alarm that the tagger raised, and `avoids_all_misses`: how many
    true ones of the tagger lie below it. `proposal`: the threshold to take, `avoided`: false alarms below it, or None
    and `why` says why there is none.
    """

    rule: AlertRule
    alerts: int
    true: int
    false: int
    scored_false: int
    precision_low: float
    precision_high: float
    avoids_all: float | None
    avoids_all_misses: int
    proposal: float | None
    avoided: int
    why: str

    @property
    def precision(self) -> float | None:
        """Share of true alerts among the marked; None without marks."""
        marked = self.true + self.false
        return self.true / marked if marked else None


def tune(entries: Iterable[HistoryEntry], rules: AlertRules) -> list[RuleReport]:
    """A report for each rule that has alerts, in the order of the rules."""
    by_rule: dict[str, list[HistoryEntry]] = {}
    for entry in entries:
        by_rule.setdefault(entry.first.rule, []).append(entry)
    return [_report(rule, by_rule[rule.id]) for rule in rules.rules if rule.id in by_rule]


def _report(rule: AlertRule, entries: Sequence[HistoryEntry]) -> RuleReport:
    true = [entry for entry in entries if entry.verdict == "true"]
    false = [entry for entry in entries if entry.verdict == "false"]
    low, high = wilson(len(true), len(true) + len(false))
    scored_true = [entry.score for entry in true if _by_score(entry)]
    scored_false = [entry.score for entry in false if _by_score(entry)]
    all_false = _above(max(scored_false)) if scored_false else None
    missed = sum(score < all_false for score in scored_true) if all_false is not None else 0
    proposal, avoided, why = _proposal(rule, len(true), len(false), scored_true, scored_false)
    return RuleReport(
        rule=rule,
        alerts=len(entries),
        true=len(true),
        false=len(false),
        scored_false=len(scored_false),
        precision_low=low,
        precision_high=high,
        avoids_all=all_false if all_false is not None and all_false <= 1 else None,
        avoids_all_misses=missed,
        proposal=proposal,
        avoided=avoided,
        why=why,
    )


def _proposal(
    rule: AlertRule, true: int, false: int, scored_true: Sequence[float], scored_false: Sequence[float]
) -> tuple[float | None, int, str]:
    """The highest threshold that is needed and misses none of the true alerts, what it avoids, or why there is none."""
    if not false:
        return None, 0, "no alert was marked as false: nothing to change"
    if not rule.labels:
        return None, 0, "it does not go by scores: a threshold changes nothing"
    if not scored_false:
        return None, 0, "the pattern in the signal raised the false ones: a threshold changes nothing"
    if true + false < LEAST_MARKS or false < LEAST_FALSE:
        return None, 0, f"too little to go by: needs {LEAST_MARKS} marks, {LEAST_FALSE} of them false"
    wanted = _above(max(scored_false))
    if scored_true:
        wanted = min(wanted, math.floor(min(scored_true) / STEP + 1e-9) * STEP)
    wanted = round(min(wanted, 1.0), 4)
    avoided = sum(score < wanted for score in scored_false)
    if not avoided or (rule.threshold is not None and wanted <= rule.threshold):
        return None, 0, "false and true ones score alike: no threshold avoids any without missing a true one"
    return wanted, avoided, ""


def _by_score(entry: HistoryEntry) -> bool:
    """Whether the tagger alone raised it: all labels are AudioSet's."""
    names = {label.name for label in labels()}
    return bool(entry.latest.labels) and names.issuperset(entry.latest.labels)


def _above(score: float) -> float:
    """The next threshold above a score."""
    return round((math.floor(score / STEP + 1e-9) + 1) * STEP, 4)


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Interval of a share (Wilson, 1927); 0..1 without trials."""
    if not trials:
        return 0.0, 1.0
    share = successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return max(0.0, middle - half), min(1.0, middle + half)


def to_yaml(reports: Iterable[RuleReport]) -> str:
    """The proposals as settings to paste; empty where there is none."""
    lines = [f"    - {{id: {report.rule.id}, threshold: {report.proposal:g}}}" for report in reports if report.proposal]
    return "\n".join(["alerts:", "  rules:", *lines, ""]) if lines else ""


def describe(report: RuleReport) -> str:
    """A paragraph about one rule."""
    rule, marked = report.rule, report.true + report.false
    lines = [f"{rule.id}: {report.alerts} alerts, {marked} marked ({report.true} true, {report.false} false)"]
    if report.precision is not None:
        low, high = report.precision_low, report.precision_high
        lines.append(f"  right in {report.precision:.0%} of the marked (95 % interval {low:.0%} to {high:.0%})")
    now = "of the tagging head for each label" if rule.threshold is None else f"{rule.threshold:g}"
    if report.scored_false and report.avoids_all is not None:
        missed = (
            f"missed {report.avoids_all_misses} of {report.true} true ones" if report.true else "no true one is marked"
        )
        what = f"the false ones that the score raised ({report.scored_false})"
        lines.append(f"  threshold now {now}; {report.avoids_all:g} would have avoided {what}; {missed}")
    if report.false > report.scored_false:
        lines.append(
            f"  {report.false - report.scored_false} false ones were not raised by the score: no threshold helps"
        )
    if report.proposal is not None:
        lines.append(
            f"  proposal: {report.proposal:g}, avoids {report.avoided} false ones and misses no marked true one"
        )
    else:
        lines.append(f"  no proposal: {report.why}")
    return "\n".join(lines)
