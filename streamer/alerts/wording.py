"""Words for people: of alerts in notifications; of rules, history and marks for `streamer alerts`. Pure."""

import textwrap
from collections.abc import Iterable, Mapping

from streamer.alerts.history import HistoryEntry, RuleReport
from streamer.events import SAMPLE_RATE, Alert
from streamer.output.plain_text import clean
from streamer.settings.rules import AlertRule, AlertRules
from streamer.sound.labels import groups, labels
from streamer.sound.patterns.state import SIRENS, CadenceKind
from streamer.sound.sound_trigger import CONSENT, CONSENT_SAMPLES, FUSED_RATIO, MISTAKEN_SAMPLES, SURE

_MARKS = {"critical": "‼ ", "warning": "", "info": ""}
TEXT_TAIL = 200  # characters of what was being said
WIDTH = 110  # columns
MAX_NAMED = 8  # labels of a group
_PATTERNS = {
    CadenceKind.T3: "the three-beep pattern of smoke and fire alarms (T3)",
    CadenceKind.T4: "the four-beep pattern of carbon monoxide alarms (T4)",
    CadenceKind.WAIL: "a wailing siren",
    CadenceKind.YELP: "a yelping siren",
    CadenceKind.HILO: "a two-tone siren (hi-lo)",
    CadenceKind.TONE: "a tone that keeps its pitch",
}


def title(alert: Alert, names: Mapping[str, str]) -> str:
    """One line: what it is and whether it is over. `names`: what people call each rule."""
    name = names.get(alert.rule, clean(alert.rule).replace("_", " "))
    match alert.state:
        case "raised":
            return f"{_MARKS[alert.severity]}{name}"
        case "cleared":
            return f"{name}: taken back" if "withdrawn" in alert.labels else f"{name}: over"
        case "acknowledged":
            return f"{name}: seen"
        case "updated":
            return f"{_MARKS[alert.severity]}{name}: still there"


def body(alert: Alert) -> str:
    """What was heard and said, a line each; never empty."""
    lines = []
    if alert.labels:
        lines.append("Heard: " + ", ".join(clean(label) for label in alert.labels))
    if alert.heard:
        lines.append("Tags: " + ", ".join(f"{clean(tag.label)} {tag.score:.2f}" for tag in alert.heard))
    if clean(alert.text):
        lines.append(f"Said meanwhile: “{clean(alert.text)[-TEXT_TAIL:]}”")
    if alert.end is not None:
        lines.append(f"It lasted {max(0.0, alert.end - alert.start):.0f} s.")
    return "\n".join(lines) or f"Severity: {alert.severity}"


def explain(rule: AlertRule, rules: AlertRules) -> str:
    """A paragraph about one rule."""
    off = "" if rule.enabled else ", OFF"
    lines = [f"{rule.id}: {rule.title} ({rule.severity}{off})"]
    lines += [textwrap.fill(rule.about, WIDTH, initial_indent="  ", subsequent_indent="  ")] if rule.about else []
    first, *others = _raised_when(rule)
    lines += [_row("raised when", first), *(_row("", f"or {other}") for other in others)]
    lines.append(_row("over", _over(rule)))
    lines.append(_row("then", _then(rule)))
    if rule.repeat_s is not None:
        lines.append(_row("repeated", f"every {_s(rule.repeat_s)} until somebody acknowledges it"))
    lines.append(_row("quiet hours", _quiet(rule, rules)))
    return "\n".join(lines)


def _row(name: str, text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=f"  {name:11s}  ", subsequent_indent=" " * 17)


def _raised_when(rule: AlertRule) -> list[str]:
    if rule.own:
        return [f"it sounds like {rule.own!r}, which was learned (`streamer sounds list`)"]
    if rule.lost:
        return ["the microphone delivers nothing"]
    if rule.silence_dbfs is not None:
        return [f"nothing is louder than {rule.silence_dbfs:g} dBFS for {_s(rule.min_duration_s)}"]
    if rule.loud_dbfs is not None:
        return [f"it is at least as loud as {rule.loud_dbfs:g} dBFS for {_s(rule.min_duration_s)}"]
    if rule.phrases or rule.patterns:
        return _words(rule)
    lines = [_labels(rule) + _doubts(rule)] if rule.labels else []
    lines += [f"the signal itself shows {_pattern(CadenceKind(kind), rule)}" for kind in rule.cadence]
    if rule.labels and rule.cadence:
        lines.append(
            "such a pattern has plainly begun and one judgement is over the threshold, or two in a row over "
            f"{FUSED_RATIO:.0%} of it: both together are sooner"
        )
    return lines


def _pattern(kind: CadenceKind, rule: AlertRule) -> str:
    if kind not in SIRENS or not rule.labels:
        return _PATTERNS[kind]
    within = _s(CONSENT_SAMPLES / SAMPLE_RATE)
    return f"{_PATTERNS[kind]}, and the tagger consents: one of these had a score of {CONSENT:g} within {within}"


def _labels(rule: AlertRule) -> str:
    names = " or ".join(_members(name) for name in rule.labels)
    if rule.threshold is None:
        score, sure = "the threshold that the tagging head has for each of them", "far above it"
    else:
        score = f"{rule.threshold:g}"
        sure = f"of {rule.threshold + SURE * (1 - rule.threshold):.2g} or more"
    often = f"in {rule.confirm} of the last {rule.confirm + 1} judgements (one a second), or one {sure}"
    if rule.confirm == 1:
        often = "in one judgement (there is one a second)"
    lasting = f", and it lasts at least {_s(rule.min_duration_s)}" if rule.min_duration_s else ""
    return f"the tagger hears {names} with a score of at least {score} {often}{lasting}"


def _doubts(rule: AlertRule) -> str:
    """What must not speak against the tagger."""
    signs = " or ".join(_PATTERNS[CadenceKind(kind)] for kind in rule.signs)
    rivals, mistaken = (", ".join(map(_readable, names)) for names in (rule.rivals, rule.doubted_after))
    doubts = [f"the signal shows at least the beginning of {signs}"] if signs else []
    doubts += [f"none of these scores as high: {rivals}"] if rivals else []
    lately = _s(MISTAKEN_SAMPLES / SAMPLE_RATE)
    doubts += [f"none of these was heard in the last {lately}: {mistaken}"] if mistaken else []
    return f", while {' and '.join(doubts)}" if doubts else ""


def _readable(name: str) -> str:
    return groups()[name].name if name in groups() else name


def _members(name: str) -> str:
    """A group with its labels, or a label."""
    known = groups().get(name)
    if known is None:
        return name
    names = [labels()[index].name for index in sorted(known.members)]
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"{known.name} ({'; '.join(names[:MAX_NAMED])}{more})"


def _words(rule: AlertRule) -> list[str]:
    said = [f"“{phrase}”" for phrase in rule.phrases] + [f"/{pattern}/" for pattern in rule.patterns]
    sure = "" if not rule.partial else ", also in text that may still change (if it does, the alert is taken back)"
    return [f"somebody says {' or '.join(said)}{sure}"]


def _over(rule: AlertRule) -> str:
    when = "as soon as it is" if not rule.clear_after_s else f"{_s(rule.clear_after_s)} after it was last heard"
    return when + ("; people are told" if rule.all_clear else "; notifications do not tell")


def _then(rule: AlertRule) -> str:
    return f"not again within {_s(rule.cooldown_s)}" if rule.cooldown_s else "at once again, if it comes back"


def _quiet(rule: AlertRule, rules: AlertRules) -> str:
    own = [span for span in (rule.quiet_hours,) if span]
    if rules.quiet_hours and rule.severity != "critical":
        own.append(f"{rules.quiet_hours} (for all rules)")
    return f"not raised {' and '.join(own)}" if own else "none"


def describe_entry(entry: HistoryEntry) -> str:
    """One alert of the history: a line, and below it what was heard, said and kept."""
    alert, when = entry.latest, entry.time.astimezone()
    lasted = "still there, or we were ended" if alert.end is None else f"{max(0.0, alert.end - alert.start):.1f} s"
    mark = {None: "", "false": "  marked FALSE", "true": "  marked true"}[entry.verdict]
    lines = [
        f"{entry.number:5d}  {when:%Y-%m-%d %H:%M:%S}  {clean(alert.rule):16s} {alert.severity:8s} "
        f"score {entry.score:.2f}  {lasted}{mark}"
    ]
    if alert.labels:
        lines.append("       raised by  " + ", ".join(clean(label) for label in alert.labels))
    if entry.first.heard:
        lines.append(
            "       heard      " + ", ".join(f"{clean(tag.label)} {tag.score:.2f}" for tag in entry.first.heard)
        )
    if text := clean(entry.first.text or alert.text):
        lines.append(f"       said       “{text}”")
    if entry.clip is not None:
        lines.append(f"       sound      {entry.clip}")
    return "\n".join(lines)


def to_yaml(reports: Iterable[RuleReport]) -> str:
    """The proposals as settings to paste; empty where there is none."""
    lines = [f"    - {{id: {report.rule.id}, threshold: {report.proposal:g}}}" for report in reports if report.proposal]
    return "\n".join(["alerts:", "  rules:", *lines, ""]) if lines else ""


def describe_report(report: RuleReport) -> str:
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


def _s(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 120 and seconds % 60 == 0 else f"{seconds:g} s"
