"""The rules of alerts that settings hold, in one word for the tests."""

from typing import Any

from streamer.settings.config import validate
from streamer.settings.rules import AlertRules


def parse_rules(data: Any) -> AlertRules:
    """Rules from what stands under `alerts:`."""
    return validate({"alerts": data}).alerts
