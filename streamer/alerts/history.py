"""What was raised on this machine, and what people said of it: JSON lines that `streamer alerts` reads and `tune` uses.

    {"number": 12, "time": "2026-11-23T04:00:12.345+00:00", "event": {…}}    each change of an alert, as in --jsonl
    {"number": 12, "time": "…", "verdict": "false"}                          a mark: false alarm, true, null: taken back
    {"number": 12, "time": "…", "clip": "clips/000012.wav"}                  the sound around it, relative to the file

The file is this user's only. Several processes may use it at once: each change is one locked append. When it is too
large, the oldest alerts that nobody marked go, then the oldest; a line in the log says how many.

`tune` says what the marks mean for the rules: how often each was right, and which threshold would have avoided the
false alarms. A threshold only helps where the tagger's score raised the alert: alerts that a pattern of the signal,
words or a level raised are counted, and left out of the proposal.
"""

import contextlib
import json
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal, get_args

from streamer.alerts.parcels import AlertKey, read_alert
from streamer.errors import ConfigError, UsageError
from streamer.events import Alert
from streamer.settings.deliveries import HistorySettings, make_private, state_directory
from streamer.settings.rules import AlertRule, AlertRules
from streamer.sound.labels import labels

log = logging.getLogger(__name__)

Verdict = Literal["false", "true"]
KEPT_PART = 0.7  # of the limit is left when the file was too large
MAX_STANDING = 10_000
LEAST_MARKS = 10  # of one rule; fewer say too little about a threshold
LEAST_FALSE = 3
STEP = 0.01  # thresholds are proposed in such steps


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One alert. `time`: when it was raised; `first`, `latest`: its events; `clip`: the file with its sound."""

    number: int
    time: datetime
    first: Alert
    latest: Alert
    verdict: Verdict | None = None
    clip: Path | None = None

    @property
    def score(self) -> float:
        """The best score that it had."""
        return max(self.first.score, self.latest.score)


def history_path(settings: HistorySettings, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the settings say that the history is."""
    if settings.path is not None:
        return Path(settings.path).expanduser()
    return state_directory(environment) / "alerts.jsonl"


class AlertHistory:
    """The file. Not for several threads at once, but for several processes."""

    def __init__(self, path: Path, max_bytes: int = 5_000_000) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._numbers: dict[AlertKey, int] = {}
        self._broken = 0  # lines that cannot be read, as was said last

    def stamp(self) -> tuple[int, int]:
        """Which file it is, and its size in bytes: another one means that something was added, by whatever program."""
        try:
            found = self.path.stat()
        except OSError:
            return 0, 0
        return found.st_ino, found.st_size

    def check(self) -> None:
        """ConfigError where it cannot be written."""
        try:
            with self._locked():
                pass
        except OSError as error:
            raise ConfigError(
                f"delivery.history.path: {self.path}: cannot be written: {error.strerror}; name another file"
            ) from None

    def append(self, alert: Alert, made_at: float) -> int:
        """Add a change of an alert that was made at this Unix time; its number. Raises OSError."""
        key = (alert.session, alert.id)
        with self._locked() as counter:
            number = self._numbers.get(key)
            if number is None and alert.state != "raised":  # an earlier process raised it (`history.persist`)
                number = next((one.number for one in reversed(self.read()) if _is_open(one, key)), None)
            if number is None:
                number = self._next_number(counter)
            self._write({"number": number, "time": _iso(made_at), "event": alert.to_dict()})
        self._numbers[key] = number
        if alert.state == "cleared" or len(self._numbers) > MAX_STANDING:
            del self._numbers[key]
        return number

    def mark(self, number: int, verdict: Verdict | None, at: float) -> HistoryEntry:
        """Say that an alert was false or true; a later mark replaces an earlier one, None takes it back.

        Raises UsageError: there is no such alert.
        """
        entry = next((entry for entry in self.read() if entry.number == number), None)
        if entry is None:
            raise UsageError(f"ID: no alert {number} is in {self.path}; `streamer alerts history` lists them")
        try:
            self.add_mark(number, verdict, at)
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be written: {error.strerror}") from None
        return entry

    def add_mark(self, number: int, verdict: Verdict | None, at: float) -> None:
        """As `mark`, for the number of an alert that is known to be there. Raises OSError."""
        with self._locked():
            self._write({"number": number, "time": _iso(at), "verdict": verdict})

    def add_clip(self, number: int, name: str, at: float) -> None:
        """Say where the sound of an alert is, relative to the history's folder. Raises OSError."""
        with self._locked():
            self._write({"number": number, "time": _iso(at), "clip": name})

    def read(self) -> list[HistoryEntry]:
        """All alerts, oldest first. Lines that cannot be read are left out and counted in the log."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be read: {error.strerror}") from None
        entries: dict[int, HistoryEntry] = {}
        broken = 0
        for line in filter(None, text.split("\n")):  # other ends of lines than ours may stand in what was said
            try:
                self._add(entries, json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError, RecursionError):
                broken += 1
        if broken > self._broken:
            log.warning("%s: lines that cannot be read, and are left out: %d", self.path, broken)
        self._broken = broken
        return sorted(entries.values(), key=lambda entry: entry.number)

    def _add(self, entries: dict[int, HistoryEntry], line: dict[str, Any]) -> None:
        """Take a line in; any of several exceptions where it is damaged: later nobody has to expect that."""
        number = line["number"]
        if type(number) is not int:
            raise ValueError("number: must be whole")
        before = entries.get(number)
        if "event" in line:
            alert = read_alert(line["event"])
            first, time = (before.first, before.time) if before else (alert, _moment(line["time"]))
            verdict, clip = (before.verdict, before.clip) if before else (None, None)
            entries[number] = HistoryEntry(number, time, first, alert, verdict, clip)
        elif before is not None:
            verdict = line.get("verdict", before.verdict)
            if verdict not in (None, *get_args(Verdict)):
                raise ValueError("verdict: is none")
            clip = self.path.parent / line["clip"] if "clip" in line else before.clip
            if clip is not None:
                clip.relative_to(self.path.parent)  # ValueError
            entries[number] = HistoryEntry(number, before.time, before.first, before.latest, verdict, clip)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[IO[str]]:
        """Hold the lock file, which also holds the next number."""
        make_private(self.path.parent)
        lock = os.open(self.path.with_name(self.path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(lock, "r+", encoding="ascii", errors="replace") as counter:
            try:
                import fcntl

                fcntl.flock(counter, fcntl.LOCK_EX)
            except ImportError:  # Windows: one process at a time
                pass
            yield counter

    def _next_number(self, counter: IO[str]) -> int:
        text = counter.read().strip()
        number = int(text) if text.isdigit() else max((entry.number for entry in self.read()), default=0) + 1
        counter.seek(0)
        counter.truncate()
        counter.write(str(number + 1))
        counter.flush()
        return number

    def _write(self, record: dict[str, Any]) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            torn = False
            if size:  # an earlier process may have been killed within a line
                file.seek(-1, os.SEEK_END)
                torn = file.read(1) != b"\n"
            size += file.write(b"\n" * torn + _line(record).encode())
        if size > self._max_bytes:
            self._shrink(record["number"])

    def _shrink(self, newest: int) -> None:
        """Keep what `read` sees of each alert; then leave out whole alerts, the unmarked first, the newest never."""
        entries = self.read()
        texts = {entry.number: self._text_of(entry) for entry in entries}
        excess = sum(len(text.encode()) for text in texts.values()) - KEPT_PART * self._max_bytes
        gone = 0
        for entry in sorted(entries, key=lambda entry: (entry.verdict is not None, entry.number)):
            if excess > 0 and entry.number != newest:
                excess -= len(texts.pop(entry.number).encode())
                gone += 1
        begun = self.path.with_name(self.path.name + ".tmp")
        with open(os.open(begun, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write("".join(texts.values()))
        begun.replace(self.path)
        if gone:
            log.warning("%s: is full; the %d oldest alerts were left out", self.path, gone)

    def _text_of(self, entry: HistoryEntry) -> str:
        told: list[dict[str, Any]] = [{"event": entry.first.to_dict()}]
        told += [{"event": entry.latest.to_dict()}] if entry.latest != entry.first else []
        told += [{"verdict": entry.verdict}] if entry.verdict is not None else []
        told += [{"clip": entry.clip.relative_to(self.path.parent).as_posix()}] if entry.clip is not None else []
        return "".join(_line({"number": entry.number, "time": entry.time.isoformat(), **one}) for one in told)


def _is_open(entry: HistoryEntry, key: AlertKey) -> bool:
    return (entry.latest.session, entry.latest.id) == key and entry.latest.state != "cleared"


def _line(record: Mapping[str, Any]) -> str:
    """As bytes of any text can be written; lone surrogates become question marks."""
    line = json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"
    return line.encode("utf-8", "replace").decode()


def _moment(text: str) -> datetime:
    """A time with its zone, which every zone's clock can show. Raises ValueError, OverflowError or OSError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("time: must have a zone")
    moment.astimezone()
    return moment


def _iso(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True)
class RuleReport:
    """What the marks say about one rule, which raised so many `alerts`, `true` and `false` of them marked.

    `scored_true`, `scored_false`: the best scores of the marked ones that the tagger alone raised.
    """

    rule: AlertRule
    alerts: int
    true: int
    false: int
    scored_true: tuple[float, ...]
    scored_false: tuple[float, ...]

    @property
    def precision(self) -> float | None:
        """Share of true alerts among the marked; None without marks."""
        marked = self.true + self.false
        return self.true / marked if marked else None

    @property
    def avoids_all(self) -> float | None:
        """The least threshold above every false alarm that the tagger raised; None where there is none."""
        above = _above(max(self.scored_false)) if self.scored_false else 2.0
        return above if above <= 1 else None

    @property
    def avoids_all_misses(self) -> int:
        """How many true ones of the tagger lie below `avoids_all`."""
        return sum(score < (self.avoids_all or 0.0) for score in self.scored_true)

    @property
    def proposal(self) -> float | None:
        """The highest threshold that is needed and misses none of the true alerts; None: `why_none` says why."""
        return None if self.why_none else self._wanted

    @property
    def avoided(self) -> int:
        """False alarms below the proposal."""
        return sum(score < (self.proposal or 0.0) for score in self.scored_false)

    @property
    def why_none(self) -> str:
        """Why no threshold is proposed, "" where one is."""
        if not self.false:
            return "no alert was marked as false: nothing to change"
        if not self.rule.labels:
            return "it does not go by scores: a threshold changes nothing"
        if not self.scored_false:
            return "the pattern in the signal raised the false ones: a threshold changes nothing"
        if self.true + self.false < LEAST_MARKS or self.false < LEAST_FALSE:
            return f"too little to go by: needs {LEAST_MARKS} marks, {LEAST_FALSE} of them false"
        held = self.rule.threshold is not None and self._wanted <= self.rule.threshold
        if held or min(self.scored_false) >= self._wanted:
            return "false and true ones score alike: no threshold avoids any without missing a true one"
        return ""

    @property
    def _wanted(self) -> float:
        wanted = _above(max(self.scored_false))
        if self.scored_true:
            wanted = min(wanted, math.floor(min(self.scored_true) / STEP + 1e-9) * STEP)
        return round(min(wanted, 1.0), 4)


def tune(entries: Iterable[HistoryEntry], rules: AlertRules) -> list[RuleReport]:
    """A report for each rule that has alerts, in the order of the rules."""
    by_rule: dict[str, list[HistoryEntry]] = {}
    for entry in entries:
        by_rule.setdefault(entry.first.rule, []).append(entry)
    return [_report(rule, by_rule[rule.id]) for rule in rules.rules if rule.id in by_rule]


def _report(rule: AlertRule, entries: Sequence[HistoryEntry]) -> RuleReport:
    true = [entry for entry in entries if entry.verdict == "true"]
    false = [entry for entry in entries if entry.verdict == "false"]
    scores = [tuple(entry.score for entry in marked if _by_score(entry)) for marked in (true, false)]
    return RuleReport(rule, len(entries), len(true), len(false), *scores)


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
