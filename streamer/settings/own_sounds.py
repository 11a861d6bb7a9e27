"""The settings of sounds of one's own: where what was learned lies, and the alert that each raises."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from pydantic import Field, model_validator

from streamer.events import Severity
from streamer.settings.deliveries import state_directory
from streamer.settings.rules import MAX_RULES, AlertRule, AlertRules
from streamer.settings.section import Section

SEVERITY: Severity = "info"  # as the doorbell among the default rules


class OwnSoundSettings(Section):
    """Sounds that were learned from clips: `streamer sounds`, and the viewer where `from_pages` says so."""

    USUAL = ("enabled", "folder", "from_pages")
    enabled: bool = Field(True, description="false: what was learned is not listened for")
    folder: str | None = Field(None, description="where it is kept; null: sounds/ in the user's state folder")
    from_pages: bool = Field(
        False, description="who may `set` (server.allow_set) may teach sounds from the viewer; their clips are kept"
    )

    @model_validator(mode="after")
    def _listens_for_what_is_taught(self) -> "OwnSoundSettings":
        if self.from_pages and not self.enabled:
            raise ValueError("from_pages: what is taught would not be listened for; leave enabled at true")
        return self

    def place(self, environment: Mapping[str, str] = os.environ) -> Path:
        """The folder in force."""
        return Path(self.folder).expanduser() if self.folder is not None else state_directory(environment) / "sounds"


def checked_name(name: str) -> str:
    """A name as people write it, without surrounding space. ValueError says what is allowed."""
    name = " ".join(name.split())
    if not re.fullmatch(r"\w(?:[\w '-]{0,38}\w)?", name):
        raise ValueError("must be 1 to 40 letters, digits, spaces, ', - or _, for example my doorbell")
    return name


def stored_name(name: str) -> str:
    """What a sound's file and folder are called, whatever the case of its name."""
    return quote(name.casefold(), safe=" ")


def rule_id(name: str) -> str:
    """The id of the rule that a sound of this name has."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_")
    return plain[:40] if re.match("[a-z]", plain) else f"own_{plain}"[:40].rstrip("_")


def own_rule(name: str, severity: Severity, taken: Iterable[str] = ()) -> AlertRule:
    """The rule of a sound that no rule of the settings names; `taken`: ids that others have."""
    found, others = rule_id(name), frozenset(taken)
    free = next(id for id in (found, *(f"{found[:36]}_{n}" for n in range(2, MAX_RULES + 3))) if id not in others)
    about = "A sound that you taught; `streamer sounds` lists it."
    return AlertRule(id=free, name=name, about=about, severity=severity, own=name, clear_after_s=4, cooldown_s=5)


def with_own_rules(alerts: AlertRules, sounds: Iterable[tuple[str, Severity]]) -> AlertRules:
    """The rules with one more for each sound (name, severity) that none of them is about."""
    rules = list(alerts.rules)
    for name, severity in sounds:
        if len(rules) < MAX_RULES and all(rule.own != name for rule in rules):
            rules.append(own_rule(name, severity, (rule.id for rule in rules)))
    return alerts.model_copy(update={"rules": tuple(rules)})
