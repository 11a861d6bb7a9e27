"""`streamer alerts`: explain the rules, list and mark what was raised, propose thresholds from the marks; in words.

What tries the deliveries and sets up a phone stands in `notify`.
"""

import argparse
import json
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

from streamer.alerts.history import AlertHistory, HistoryEntry, RuleReport, history_path, tune, wilson
from streamer.commands import notify
from streamer.commands.run import settings_options, with_own_sounds
from streamer.errors import UsageError, meant
from streamer.events import SAMPLE_RATE, SEVERITY_RANK
from streamer.output.plain_text import clean
from streamer.settings.config import Settings, resolve
from streamer.settings.rules import AlertRule, AlertRules
from streamer.sound.alerts import AlertEngine
from streamer.sound.labels import groups, labels
from streamer.sound.patterns.state import SIRENS, CadenceKind
from streamer.sound.sound_trigger import CONSENT, CONSENT_SAMPLES, FUSED_RATIO, MISTAKEN_SAMPLES, SURE

EXAMPLES = "see docs/alerts.md; --config and --set as in `streamer run`"
WIDTH = 110  # columns
MAX_NAMED = 8  # labels of a group
_PATTERNS = {
    CadenceKind.T3: "the three-beep pattern of smoke and fire alarms (T3)",
    CadenceKind.T4: "the four-beep pattern of carbon monoxide alarms (T4)",
    CadenceKind.WAIL: "a wailing siren",
    CadenceKind.YELP: "a yelping siren",
    CadenceKind.HILO: "a two-tone siren (hi-lo)",
    CadenceKind.TONE: "a tone that keeps its pitch",
    CadenceKind.WAVER: "a high tone that wavers, as a kettle's",
}


def add(subcommands: Any) -> None:
    """Add `alerts` and what stands below it to argparse's subparsers."""
    about = "what raises alerts, what was raised, and what to change"
    alerts = subcommands.add_parser("alerts", help=about, description=about, epilog=EXAMPLES, allow_abbrev=False)
    below = alerts.add_subparsers(dest="what", required=True, metavar="WHAT", parser_class=type(alerts))
    explained = _add(below, "explain", explain, "every rule in words")
    explained.add_argument("rules", nargs="*", metavar="RULE", help="only these")
    listed = _add(below, "history", history, "what was raised on this machine, oldest first")
    listed.add_argument("--rule", metavar="ID", action="append", default=[], help="only of this rule")
    listed.add_argument("--severity", choices=("info", "warning", "critical"), help="only of at least this one")
    listed.add_argument("--since", metavar="WHEN", help="30m, 12h, 7d, or a day or time such as 2026-11-23T08:00")
    listed.add_argument("--marked", choices=("false", "true", "no"), help="only those with (or without) this mark")
    listed.add_argument("--limit", type=_count, default=50, metavar="N", help="the newest N (50); 0: all")
    listed.add_argument("--json", action="store_true", help="one JSON object a line")
    marked = _add(below, "mark", mark, "say that an alert was false, or true; the pages show it")
    marked.add_argument("id", type=_count, metavar="ID", help="the number that `history` shows")
    marked.add_argument("verdict", choices=("false", "true", "none"), help="none takes a mark back")
    notify.test_options(_add(below, "test", notify.test, "send everybody who is told a test, say what came of it"))
    notify.phone_options(_add(below, "phone", notify.phone, "have a phone told of alerts: shows a code for its camera"))
    _add(below, "tune", tune_rules, "what the marks say about each rule, and thresholds to paste into the settings")


def _add(below: Any, name: str, command: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = below.add_parser(name, help=about, description=about, allow_abbrev=False)
    settings_options(parser)
    parser.set_defaults(command=command)
    return parser


def explain(options: argparse.Namespace) -> int:
    """`streamer alerts explain [RULE…]`."""
    settings = _settings(options)
    AlertEngine(settings.alerts)  # refuses labels that do not exist, with their path
    model, fields = _fields_of_head(settings)
    rules = settings.alerts.fitted(fields)
    known = [rule.id for rule in rules.rules]
    for name in options.rules:
        if name not in known:
            raise UsageError(f"RULE: no rule is called {name!r}; there are {', '.join(known)}{meant(name, known)}")
    shown = [rule for rule in rules.rules if not options.rules or rule.id in options.rules]
    sys.stdout.write(f"With the tagging head for {model} (--set model.name=NAME: another model's).\n\n")
    sys.stdout.write("\n\n".join(explain_rule(rule, rules) for rule in shown) + "\n")
    if not options.rules:
        sys.stdout.write(
            "\nStreamer is an aid, not a certified alarm: keep your smoke and carbon monoxide detectors.\n"
        )
    return 0


def _fields_of_head(settings: Settings) -> tuple[str, Mapping[str, Any]]:
    """The model that is meant, and what its head has for fields of rules; {} where the head has none of its own.

    `auto` is `base` here: the heads differ in a threshold or two.
    """
    model = "base" if settings.model.name == "auto" else settings.model.name
    if settings.model.head != "auto":
        return model, {}
    described = files("streamer") / "data" / "heads" / f"{model}.json"
    return model, json.loads(described.read_text())["rules"] if described.is_file() else {}


def history(options: argparse.Namespace) -> int:
    """`streamer alerts history`."""
    store = _history(options)
    since = _since(options.since, datetime.now(UTC))
    entries = [
        entry
        for entry in store.read()
        if (not options.rule or entry.first.rule in options.rule)
        and (options.severity is None or SEVERITY_RANK[entry.first.severity] >= SEVERITY_RANK[options.severity])
        and (since is None or entry.time >= since)
        and (options.marked is None or (entry.verdict or "no") == options.marked)
    ]
    for entry in entries[-options.limit :] if options.limit else entries:
        if options.json:
            shown = {"number": entry.number, "time": entry.time.isoformat(), "verdict": entry.verdict}
            shown |= {"clip": None if entry.clip is None else str(entry.clip), "heard": entry.first.to_dict()["heard"]}
            line = json.dumps(shown | {"event": entry.latest.to_dict()}, ensure_ascii=False)
        else:
            line = describe_entry(entry)
        sys.stdout.write(line + "\n")
    if not entries:
        sys.stderr.write(f"no such alerts in {store.path}\n")
    return 0


def mark(options: argparse.Namespace) -> int:
    """`streamer alerts mark ID false|true|none`."""
    verdict = None if options.verdict == "none" else options.verdict
    entry = _history(options).mark(options.id, verdict, time.time())
    said = {"false": "a false alarm", "true": "a true alert", "none": "not marked any more"}[options.verdict]
    sys.stdout.write(f"{entry.number}: {entry.first.rule} of {entry.time.astimezone():%Y-%m-%d %H:%M:%S} is {said}\n")
    return 0


def tune_rules(options: argparse.Namespace) -> int:
    """`streamer alerts tune`."""
    settings = _settings(options)
    store = _history(options, settings)
    reports = tune(store.read(), settings.alerts)
    if not reports:
        sys.stderr.write(f"no alerts of the present rules in {store.path}\n")
        return 0
    sys.stdout.write("\n".join(describe_report(report) for report in reports) + "\n")
    proposed = to_yaml(reports)
    if proposed:
        sys.stdout.write(f"\nTo take the proposals, put this into your settings:\n\n{proposed}")
    sys.stdout.write(
        "\nOnly alerts that were raised can be marked: what a rule missed is not seen here, and a higher threshold\n"
        "can miss more. Marks of one place and time say little about another.\n"
    )
    return 0


def _settings(options: argparse.Namespace) -> Settings:
    """With the rules of learned sounds, as `streamer run` has them."""
    return with_own_sounds(resolve(options.config, options.set, {}))


def _history(options: argparse.Namespace, settings: Settings | None = None) -> AlertHistory:
    given = (settings or _settings(options)).delivery.history
    return AlertHistory(history_path(given), round(given.max_mb * 1e6))


def _since(text: str | None, now: datetime) -> datetime | None:
    """A moment: so long before now, or a day or time (local unless it says otherwise). UsageError."""
    if text is None:
        return None
    if found := re.fullmatch(r"(\d{1,6})([mhd])", text):
        unit = {"m": "minutes", "h": "hours", "d": "days"}[found[2]]
        return now - timedelta(**{unit: int(found[1])})
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"--since: must look like 30m, 12h, 7d or 2026-11-23T08:00, is {text!r}") from None


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"must be a whole number, is {text!r}")
    return int(text)


def explain_rule(rule: AlertRule, rules: AlertRules) -> str:
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
    lower = rule.signed_threshold
    signed = (
        ""
        if lower in (None, rule.threshold)
        else f" ({lower:g} while the signal shows at least the beginning of {_signs(rule)})"
    )
    return f"the tagger hears {names} with a score of at least {score}{signed} {often}{lasting}"


def _doubts(rule: AlertRule) -> str:
    """What must not speak against the tagger."""
    rivals, mistaken = (", ".join(map(_readable, names)) for names in (rule.rivals, rule.doubted_after))
    needed = bool(rule.signs) and rule.signed_threshold is None
    doubts = [f"the signal shows at least the beginning of {_signs(rule)}"] if needed else []
    doubts += [f"the signal does not show {_PATTERNS[CadenceKind(kind)]}" for kind in rule.unless]
    doubts += [f"none of these scores as high: {rivals}"] if rivals else []
    lately = _s(MISTAKEN_SAMPLES / SAMPLE_RATE)
    doubts += [f"none of these was heard in the last {lately}: {mistaken}"] if mistaken else []
    return f", while {' and '.join(doubts)}" if doubts else ""


def _signs(rule: AlertRule) -> str:
    return " or ".join(_PATTERNS[CadenceKind(kind)] for kind in rule.signs)


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
    at_once, last = "as soon as it is not heard any more", "it was last heard"
    if rule.lost:
        at_once = "as soon as sound comes again"
    elif rule.silence_dbfs is not None:
        at_once, last = "as soon as something is louder", "it was last so quiet"
    elif rule.loud_dbfs is not None:
        at_once, last = "as soon as it is not so loud any more", "it was last so loud"
    elif rule.phrases or rule.patterns:
        at_once, last = "at once", "it was last said"
    when = at_once if rule.lost or not rule.clear_after_s else f"{_s(rule.clear_after_s)} after {last}"
    return when + ("; people are told" if rule.all_clear else "; notifications do not tell")


def _then(rule: AlertRule) -> str:
    return f"not again within {_s(rule.cooldown_s)}" if rule.cooldown_s else "at once again, if it comes back"


def _quiet(rule: AlertRule, rules: AlertRules) -> str:
    own = [span for span in (rule.quiet_hours,) if span]
    if rules.quiet_hours and rule.severity != "critical":
        own.append(f"{rules.quiet_hours} (for all rules)")
    return f"not raised {' and '.join(own)}" if own else "none"


def _s(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 120 and seconds % 60 == 0 else f"{seconds:g} s"


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
        low, high = wilson(report.true, marked)
        lines.append(f"  right in {report.precision:.0%} of the marked (95 % interval {low:.0%} to {high:.0%})")
    now = "of the tagging head for each label" if rule.threshold is None else f"{rule.threshold:g}"
    if report.avoids_all is not None:
        missed = (
            f"missed {report.avoids_all_misses} of {report.true} true ones" if report.true else "no true one is marked"
        )
        what = f"the false ones that the score raised ({len(report.scored_false)})"
        lines.append(f"  threshold now {now}; {report.avoids_all:g} would have avoided {what}; {missed}")
    unscored = report.false - len(report.scored_false)
    if unscored:
        lines.append(f"  {unscored} false ones were not raised by the score: no threshold helps")
    if report.proposal is not None:
        lines.append(
            f"  proposal: {report.proposal:g}, avoids {report.avoided} false ones and misses no marked true one"
        )
    else:
        lines.append(f"  no proposal: {report.why_none}")
    return "\n".join(lines)
