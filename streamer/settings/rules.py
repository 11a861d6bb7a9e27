"""The settings of alerts and sound events: what a person may write under `alerts:`, validated and frozen.

Rules are flat, so that a wrong value is named by its path: `alerts.rules[3].threshold: input should be …`. A rule of
one's own with the id of a default rule changes only the fields it names; every other default rule stays in force
unless `defaults: false`. Whether a label exists is checked
where labels are known: by `streamer.sound.alerts.AlertEngine`.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from streamer.errors import ConfigError
from streamer.events import Severity
from streamer.settings import forms
from streamer.settings.section import Section, refusal

CadenceName = Literal["t3", "t4", "wail", "yelp", "hilo"]
SignName = Literal[CadenceName, "tone"]
OtherName = Literal[CadenceName, "waver"]
MAX_RULES = 200
MAX_PATTERN = 200  # characters of a regular expression


def _clock_span(value: str) -> str:
    hours(value)
    return value


def _regular(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise PydanticCustomError("pattern", "must be a regular expression: {why}", {"why": str(error)}) from None
    return value


def _phrase(value: str) -> str:
    if not re.search(r"\w", value):
        raise PydanticCustomError("phrase", "must hold at least one word")
    return value


Score = Annotated[float, Field(ge=0, le=1)]
Decibel = Annotated[float, Field(ge=-120, le=0)]
ClockSpan = Annotated[str, AfterValidator(_clock_span)]
Phrase = Annotated[str, AfterValidator(_phrase), Field(max_length=100)]
Pattern = Annotated[str, AfterValidator(_regular), Field(max_length=MAX_PATTERN)]


def hours(span: str) -> tuple[int, int]:
    """Start and end of `22:00-07:00` in seconds after local midnight; the end may lie before the start (overnight)."""
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", span)
    if found is None:
        raise PydanticCustomError("hours", "must look like 22:00-07:00")
    start_h, start_m, end_h, end_m = (int(part) for part in found.groups())
    return (start_h * 60 + start_m) * 60, (end_h * 60 + end_m) * 60


class AlertRule(Section):
    """One thing to tell people about. Exactly one of: sounds (labels, cadence), own, words, silence, loss, level."""

    USUAL = (
        *("id", "name", "about", "enabled", "severity", "labels", "threshold", "phrases", "partial", "cooldown_s"),
        *("quiet_hours", "repeat_s", "all_clear"),
    )
    id: str = Field(pattern=forms.RULE_ID, description="what others know the rule by")
    name: str = Field("", max_length=60, description="what people read; the id in words if empty")
    about: str = Field("", max_length=500, description="what it is for, shown by `streamer alerts explain`")
    enabled: bool = Field(True, description="false: it raises nothing")
    severity: Severity = Field("warning", description="critical ones also ring here, and ignore the common quiet hours")
    labels: tuple[str, ...] = Field((), description="groups of labels or single AudioSet labels")
    cadence: tuple[CadenceName, ...] = Field((), description="patterns that the signal itself shows")
    unless: tuple[OtherName, ...] = Field(
        (), description="with one of these patterns in sight the labels do not count: it is another sound"
    )
    signs: tuple[SignName, ...] = Field(
        (), description="the labels count only while the signal shows at least the beginning of one of these"
    )
    signed_threshold: Score | None = Field(
        None, description="least score while the signs are in sight; the labels then count without them too"
    )
    rivals: tuple[str, ...] = Field(
        (), description="labels or groups that explain the sound where the tagger is as sure of them"
    )
    doubted_after: tuple[str, ...] = Field(
        (), description="labels or groups that the tagger mistakes for it: for 10 s after one the labels raise nothing"
    )
    threshold: Score | None = Field(0.5, description="least score; null: each label's own threshold from the head")
    confirm: int = Field(2, ge=1, le=5, description="so many of the last confirm + 1 judgements agree")
    phrases: tuple[Phrase, ...] = Field((), description="words, whatever their case and punctuation")
    patterns: tuple[Pattern, ...] = Field((), description="regular expressions, whatever the case")
    partial: bool = Field(False, description="also in text that may still change: sooner, and sometimes withdrawn")
    silence_dbfs: Decibel | None = Field(None, description="nothing louder than this for min_duration_s")
    loud_dbfs: Decibel | None = Field(None, description="at least this loud for min_duration_s")
    lost: bool = Field(False, description="the microphone delivers nothing")
    own: str = Field("", max_length=40, description="a sound of one's own, by the name that it was learned under")
    min_duration_s: float = Field(0.0, ge=0, le=3600, description="it lasts at least so long")
    clear_after_s: float = Field(3.0, ge=0, le=600, description="so long not heard: it is over")
    cooldown_s: float = Field(10.0, ge=0, le=86_400, description="not again so soon after its end")
    quiet_hours: ClockSpan | None = Field(None, description="local time in which it is not raised: 22:00-07:00")
    repeat_s: float | None = Field(None, ge=1, le=3600, description="say so again until acknowledged")
    all_clear: bool = Field(True, description="tell people when it is over")

    @model_validator(mode="after")
    def _one_trigger(self) -> "AlertRule":
        given = {
            "labels or cadence": bool(self.labels or self.cadence),
            "phrases or patterns": bool(self.phrases or self.patterns),
            "silence_dbfs": self.silence_dbfs is not None,
            "loud_dbfs": self.loud_dbfs is not None,
            "lost": self.lost,
            "own": bool(self.own),
        }
        if sum(given.values()) != 1:
            found = ", ".join(key for key, used in given.items() if used) or "none"
            raise PydanticCustomError(
                "trigger",
                "must have exactly one of labels/cadence, phrases/patterns, silence_dbfs, loud_dbfs, lost, own; "
                "has {found}",
                {"found": found},
            )
        return self

    @property
    def title(self) -> str:
        """What people read."""
        return self.name or self.id.replace("_", " ")


class AlertRules(Section):
    """All rules in force. `quiet_hours` holds for every rule that is not critical, beside the rules' own."""

    USUAL = ("defaults", "quiet_hours", "rules")
    defaults: bool = Field(True, description="keep the default rules that are not named here")
    quiet_hours: ClockSpan | None = Field(None, description="local time, 22:00-07:00; not for critical rules")
    rules: tuple[AlertRule, ...] = Field((), max_length=MAX_RULES, description="one's own; before the default ones")

    @classmethod
    def default(cls) -> "AlertRules":
        """The rules of streamer/data/alerts.yaml."""
        return cls.model_validate({})

    def fitted(self, fields: Mapping[str, Mapping[str, Any]]) -> "AlertRules":
        """These rules for a head that brings `fields` for some of them, by id: they take the place of the default
        rule's, but of none that a person set otherwise. Raises ConfigError where they are no such fields.
        """
        defaults = {id: AlertRule.model_validate(rule) for rule in _default_rules() if (id := rule["id"]) in fields}
        fitted = []
        for rule in self.rules:
            default = defaults.get(rule.id)
            given = {} if default is None else fields[rule.id]
            own = {
                key: value for key, value in given.items() if getattr(rule, key, None) == getattr(default, key, None)
            }
            if "signed_threshold" in own and rule.threshold != getattr(default, "threshold", None):
                own["signed_threshold"] = rule.threshold  # a person's threshold is meant, signs or not
            try:
                fitted.append(AlertRule.model_validate(rule.model_dump(exclude_unset=True) | own) if own else rule)
            except ValidationError as error:
                raise ConfigError(f"the head's rule {rule.id}: {refusal(error, AlertRule)}") from None
        return self.model_copy(update={"rules": tuple(fitted)})

    @model_validator(mode="before")
    @classmethod
    def _over_the_defaults(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not data.get("defaults", True):
            return data
        own = data.get("rules", ())
        if not isinstance(own, list | tuple):
            return data
        merged, others = rules_over(own, _default_rules())
        return {**data, "rules": [*merged, *others]}

    @model_validator(mode="after")
    def _each_once(self) -> "AlertRules":
        seen: set[str] = set()
        for index, rule in enumerate(self.rules):
            if rule.id in seen:
                raise ValueError(f"alerts.rules[{index}].id: must be used by one rule only, {rule.id!r} is used twice")
            seen.add(rule.id)
        return self


class SoundSettings(Section):
    """When a sound becomes an event. Scores are calibrated; `threshold` holds where the head has none of its own."""

    USUAL = ("threshold",)
    threshold: Score = Field(0.5, description="least score, where the head has none of its own")
    confirm: int = Field(2, ge=1, le=5, description="so many of the last confirm + 1 judgements agree")

    off_ratio: ClassVar[float] = 0.5  # it lasts while above this part of the threshold: scores waver from hop to hop
    sure: ClassVar[float] = 0.5  # so far from the threshold to 1 one judgement is enough: it need not wait for a second
    unheard_s: ClassVar[float] = 5.0  # not judged for so long: nobody knows any more whether it lasts


@cache
def _default_rules() -> tuple[dict[str, Any], ...]:
    text = files("streamer").joinpath("data/alerts.yaml").read_text(encoding="utf-8")
    return tuple(yaml.safe_load(text)["alerts"]["rules"])


def rules_over(own: Sequence[Any], known: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[Mapping[str, Any]]]:
    """One's own rules, each laid over the known one with its id, and the known ones that none of them names."""
    by_id = {rule["id"]: rule for rule in known}
    ids = [rule.get("id") if isinstance(rule, Mapping) else getattr(rule, "id", None) for rule in own]
    merged = [
        {**(by_id.get(id, {}) if isinstance(id, str) else {}), **rule} if isinstance(rule, Mapping) else rule
        for id, rule in zip(ids, own, strict=True)
    ]
    return merged, [rule for rule in known if rule["id"] not in ids]
