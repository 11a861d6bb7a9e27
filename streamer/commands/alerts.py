"""`streamer alerts`: explain the rules, list and mark what was raised, propose thresholds from the marks."""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from streamer.errors import UsageError
from streamer.settings.config import Settings, resolve

EXAMPLES = "see docs/alerts.md; --config and --set as in `streamer run`"


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
    _add(below, "tune", tune_rules, "what the marks say about each rule, and thresholds to paste into the settings")


def _add(below: Any, name: str, command: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = below.add_parser(name, help=about, description=about, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", action="append", default=[], help="YAML settings")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override one setting")
    parser.set_defaults(command=command)
    return parser


def explain(options: argparse.Namespace) -> int:
    """`streamer alerts explain [RULE…]`."""
    from streamer.alerts.wording import explain as explain_rule
    from streamer.sound.alerts import AlertEngine

    rules = _settings(options).alerts
    AlertEngine(rules)  # refuses labels that do not exist, with their path
    known = [rule.id for rule in rules.rules]
    for name in options.rules:
        if name not in known:
            raise UsageError(f"RULE: no rule is called {name!r}; there are {', '.join(known)}")
    shown = [rule for rule in rules.rules if not options.rules or rule.id in options.rules]
    sys.stdout.write("\n\n".join(explain_rule(rule, rules) for rule in shown) + "\n")
    if not options.rules:
        sys.stdout.write(
            "\nStreamer is an aid, not a certified alarm: keep your smoke and carbon monoxide detectors.\n"
        )
    return 0


def history(options: argparse.Namespace) -> int:
    """`streamer alerts history`."""
    from streamer.alerts.parcels import SEVERITY_RANK
    from streamer.alerts.wording import describe_entry

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
    from streamer.alerts.history import tune
    from streamer.alerts.wording import describe_report, to_yaml

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
    return resolve([Path(path) for path in options.config], options.set, {})


def _history(options: argparse.Namespace, settings: Settings | None = None) -> Any:
    from streamer.alerts.history import AlertHistory, history_path

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
