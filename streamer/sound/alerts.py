"""Alerts: rules turn evidence into raised, updated, acknowledged and cleared, each alert exactly once.

A pure state machine per rule, driven by sample time:

    IDLE ──evidence──► RAISED ──acknowledge──► ACKNOWLEDGED
     ▲  └─(cooldown, quiet hours)                  │
     └────── over, withdrawn or finished ──────────┘
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache

import numpy as np
from numpy.typing import NDArray

from streamer.errors import ConfigError
from streamer.events import SAMPLE_RATE, WITHDRAWN, Alert, AlertSource, AlertState, Severity, Stamp, Tag, seconds
from streamer.settings.rules import AlertRule, AlertRules, hours
from streamer.sound.labels import LABEL_COUNT, resolve
from streamer.sound.own_sounds import OwnTrigger
from streamer.sound.patterns.state import CadenceState
from streamer.sound.sound_trigger import SoundTrigger
from streamer.sound.triggers import AlertInput, AlertText, Evidence, LevelTrigger, LostTrigger, PhraseTrigger

Trigger = SoundTrigger | PhraseTrigger | LevelTrigger | LostTrigger | OwnTrigger

logger = logging.getLogger(__name__)
HEARD_LIMIT = 5  # tags in an alert
TEXT_LEAD_S = 5.0  # an alert quotes what was said from so long before its start until it was raised
TEXT_TAIL = 300  # characters, at most
TEXT_SEGMENTS = 20  # the latest are kept: more than TEXT_TAIL needs


@dataclass(frozen=True, slots=True)
class AlertChange:
    """An alert changed, in samples.

    `at_sample`: end of the audio that the decision used. A withdrawn alert has "withdrawn" as its last label.
    """

    at_sample: int
    id: int
    rule: str
    severity: Severity
    state: AlertState
    start_sample: int
    end_sample: int | None
    score: float
    labels: tuple[str, ...]
    heard: tuple[Tag, ...]
    text: str

    def event(self, stamp: Stamp, source: AlertSource = "live") -> Alert:
        """The protocol's `alert`, in seconds; `source`: what was listened to."""
        return Alert(
            **stamp,
            id=self.id,
            rule=self.rule,
            severity=self.severity,
            state=self.state,
            start=seconds(self.start_sample),
            end=None if self.end_sample is None else seconds(self.end_sample),
            score=round(self.score, 4),
            labels=self.labels,
            heard=self.heard,
            text=self.text,
            source=source,
        )


class _Phase(Enum):
    RAISED = "raised"
    ACKNOWLEDGED = "acknowledged"


@dataclass(slots=True)
class _Active:
    """An alert that stands."""

    id: int
    phase: _Phase
    start: int
    last: int
    score: float
    labels: tuple[str, ...]
    repeat_at: int | None
    told: int  # when it was raised, or there was news


@dataclass(slots=True)
class _Watch:
    """One rule, its trigger and the alert that stands, if any."""

    rule: AlertRule
    trigger: Trigger
    quiet: tuple[tuple[int, int], ...]
    active: _Active | None = None
    ended: int = 0  # end of the previous alert
    free_at: int = 0  # end of the cooldown


@dataclass(slots=True)
class AlertEngine:
    """All rules of a session.

    `thresholds`: float [527] of the head, for rules with `threshold: null` (None: 0.5 for all). `trained_classes`:
    those that the head was taught (None: all), else a warning says which rules it cannot serve. ConfigError where a
    rule names labels that do not exist.
    """

    rules: AlertRules = field(default_factory=AlertRules.default)
    thresholds: NDArray[np.float32] | None = None
    trained_classes: frozenset[int] | None = None
    _watches: list[_Watch] = field(init=False)
    _next_id: int = 1
    _heard: tuple[Tag, ...] = ()
    _texts: dict[int, AlertText] = field(default_factory=dict)  # the latest segments as they stand

    def __post_init__(self) -> None:
        self._watches = [self._watch(rule, f"alerts.rules[{index}]") for index, rule in enumerate(self.rules.rules)]
        self._watches = [watch for watch in self._watches if watch.rule.enabled]

    def number_from(self, first_id: int) -> None:
        """Before anything else: the first id to give, where another gave those before."""
        self._next_id = first_id

    def add(self, rule: AlertRule) -> None:
        """One more rule from the next step on, unless there is one for the same sound of one's own."""
        if all(watch.rule.own != rule.own for watch in self._watches):
            self._watches.append(self._watch(rule, f"rule {rule.id}"))

    def step(self, given: AlertInput) -> list[AlertChange]:
        """Take what is new since the last step and return what changed, in the order of the rules."""
        self._remember(given)
        changes = []
        for watch in self._watches:
            changes += self._advance(watch, watch.trigger.step(given), given)
        return changes

    @property
    def patterns(self) -> tuple[CadenceState, ...]:
        """The patterns of the signal that count for a rule after the latest step, each once."""
        triggers = (watch.trigger for watch in self._watches if isinstance(watch.trigger, SoundTrigger))
        found = {state.kind: state for trigger in triggers for state in trigger.clues.counting}
        return tuple(found.values())

    def acknowledge(self, alert_id: int, at_sample: int) -> list[AlertChange]:
        """A person has seen it: no more repeats. Nothing for an alert that is over, unknown or acknowledged."""
        for watch in self._watches:
            if watch.active is not None and watch.active.id == alert_id:
                return self._acknowledge(watch, watch.active, at_sample)
        return []

    def finish(self, at_sample: int) -> list[AlertChange]:
        """The session ends: clear everything that stands."""
        standing = [(watch, watch.active) for watch in self._watches if watch.active is not None]
        return [self._clear(watch, active, at_sample, "finished") for watch, active in standing]

    def _watch(self, rule: AlertRule, path: str) -> _Watch:
        general = None if rule.severity == "critical" else self.rules.quiet_hours
        quiet = tuple(hours(span) for span in (rule.quiet_hours, general) if span is not None)
        return _Watch(rule, self._trigger(rule, path), quiet)

    def _trigger(self, rule: AlertRule, path: str) -> Trigger:
        if rule.own:
            return OwnTrigger(rule)
        if rule.lost:
            return LostTrigger(rule)
        if rule.silence_dbfs is not None or rule.loud_dbfs is not None:
            return LevelTrigger(rule)
        if rule.phrases or rule.patterns:
            return PhraseTrigger(rule)
        members = _indices(rule.labels, f"{path}.labels")
        if self.trained_classes is not None and members.size and self.trained_classes.isdisjoint(members.tolist()):
            _say_once(rule.id, f"only its pattern ({', '.join(rule.cadence)}) does" if rule.cadence else "nothing does")
        rivals = np.setdiff1d(_indices(rule.rivals, f"{path}.rivals"), members)
        mistaken = np.setdiff1d(_indices(rule.doubted_after, f"{path}.doubted_after"), members)
        on = np.full(LABEL_COUNT, 0.5) if self.thresholds is None else self.thresholds
        if rule.threshold is not None:
            on = np.full(LABEL_COUNT, rule.threshold)
        on = np.clip(on, 0.01, 1.0).astype(np.float32)
        return SoundTrigger(rule, members, on, rivals, mistaken)

    def _remember(self, given: AlertInput) -> None:
        self._heard = given.heard[:HEARD_LIMIT] if given.heard or given.judgement or given.silent else self._heard
        for text in given.texts:
            self._texts[text.segment] = text
            if len(self._texts) > TEXT_SEGMENTS:
                del self._texts[min(self._texts)]

    def _said(self, since: int, until: int) -> str:
        """The end of what was said between these samples; by whole segments where the words' times are not known."""
        found: list[str] = []
        for text in self._texts.values():
            words = text.text.split()
            spans = text.word_spans
            if len(spans) != len(words):
                spans = ((text.start_sample, text.end_sample),) * len(words)
            found += [word for word, (start, end) in zip(words, spans, strict=True) if end > since and start < until]
            if text.end_sample > since and (spans[-1][1] if spans else text.start_sample) < until:
                found += text.partial.split()
        return " ".join(found)[-TEXT_TAIL:]

    def _advance(self, watch: _Watch, found: Evidence, given: AlertInput) -> list[AlertChange]:
        active, at = watch.active, given.end_sample
        if active is None:
            return [self._raise(watch, found, at)] if found.raises and self._may_raise(watch, given) else []
        if found.withdrawn:
            return [self._clear(watch, active, at, "withdrawn")]
        if found.lasts or found.raises:
            return self._hold(watch, active, found, at)
        active.last = min(max(active.last, found.last_sample), at)
        return [self._clear(watch, active, at, "over")]

    def _may_raise(self, watch: _Watch, given: AlertInput) -> bool:
        at, clock = given.end_sample, given.local_time_s
        if at < watch.free_at:
            return False
        return clock is None or not any(_inside(clock, start, end) for start, end in watch.quiet)

    def _raise(self, watch: _Watch, found: Evidence, at: int) -> AlertChange:
        start = min(max(found.start_sample, watch.ended), at)
        repeat = None if watch.rule.repeat_s is None else at + round(watch.rule.repeat_s * SAMPLE_RATE)
        last = max(start, min(found.last_sample, at))
        watch.active = _Active(self._next_id, _Phase.RAISED, start, last, found.score, found.labels, repeat, at)
        self._next_id += 1
        logger.info("alert %d %s: IDLE -> RAISED at %d", watch.active.id, watch.rule.id, at)
        return self._change(watch, watch.active, "raised", at)

    def _hold(self, watch: _Watch, active: _Active, found: Evidence, at: int) -> list[AlertChange]:
        active.last = min(max(active.last, found.last_sample), at)
        active.score = max(active.score, found.score)
        added = tuple(name for name in found.labels if name not in active.labels)
        active.labels += added
        if added or found.news:
            active.told = at
            return [self._change(watch, active, "updated", at)]
        if active.phase is _Phase.RAISED and active.repeat_at is not None and at >= active.repeat_at:
            assert watch.rule.repeat_s is not None
            active.repeat_at = at + round(watch.rule.repeat_s * SAMPLE_RATE)
            return [self._change(watch, active, "updated", at)]
        return []

    def _acknowledge(self, watch: _Watch, active: _Active, at: int) -> list[AlertChange]:
        if active.phase is _Phase.ACKNOWLEDGED:
            return []
        active.phase = _Phase.ACKNOWLEDGED
        logger.info("alert %d %s: RAISED -> ACKNOWLEDGED at %d", active.id, watch.rule.id, at)
        return [self._change(watch, active, "acknowledged", at)]

    def _clear(self, watch: _Watch, active: _Active, at: int, reason: str) -> AlertChange:
        if reason == "withdrawn":
            active.labels += (WITHDRAWN,)
        else:
            watch.free_at = at + round(watch.rule.cooldown_s * SAMPLE_RATE)
        watch.active, watch.ended = None, active.last
        logger.info("alert %d %s: %s -> IDLE at %d (%s)", active.id, watch.rule.id, active.phase.name, at, reason)
        return self._change(watch, active, "cleared", at, end=active.last)

    def _change(
        self, watch: _Watch, active: _Active, state: AlertState, at: int, end: int | None = None
    ) -> AlertChange:
        return AlertChange(
            at_sample=at,
            id=active.id,
            rule=watch.rule.id,
            severity=watch.rule.severity,
            state=state,
            start_sample=active.start,
            end_sample=end,
            score=active.score,
            labels=active.labels,
            heard=self._heard,
            text=self._said(active.start - round(TEXT_LEAD_S * SAMPLE_RATE), active.told),
        )


@cache
def _say_once(rule: str, rest: str) -> None:
    """Every session has these rules, and one line is enough."""
    logger.warning("alert rule %s: the tagging head was never taught its labels and does not raise it; %s", rule, rest)


def _indices(names: Sequence[str], path: str) -> NDArray[np.intp]:
    """The labels of all these labels and groups, each once."""
    found: set[int] = set()
    for place, name in enumerate(names):
        try:
            found |= resolve(name)
        except LookupError as error:
            raise ConfigError(f"{path}[{place}]: {error.args[0]}") from None
    return np.array(sorted(found), np.intp)


def _inside(clock_s: float, start_s: int, end_s: int) -> bool:
    if start_s <= end_s:
        return start_s <= clock_s < end_s
    return clock_s >= start_s or clock_s < end_s
