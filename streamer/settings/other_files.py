"""Files that people take for settings: which kind each is, and which command takes it (pure)."""

import re
from collections.abc import Mapping
from typing import Any


def word_list(text: str, path: object) -> str | None:
    """As `other_kind`, for a file with one word a line, which YAML need not be able to read."""
    lines = [line for text_line in text.splitlines() if (line := text_line.partition("#")[0].strip())]
    if not lines or not all(re.fullmatch(r"[^\W_][^\s:\[\]{}]*", line) for line in lines):
        return None
    return f"a list of words: `--set speech.mask={path}` masks them; hot words stand in `speech.hot_words`"


def other_kind(data: object, path: object) -> str | None:
    """What a file holds, and what takes it, as the end of a line (`an audiogram: …`); None: settings, or nobody knows.

    `data`: the file as YAML reads it.
    """
    match data:
        case list() if data and all(isinstance(entry, Mapping) and "id" in entry for entry in data):
            return _RULES
        case Mapping():
            return _mapping(data, path)
    return None


def _mapping(data: Mapping[Any, Any], path: object) -> str | None:
    keys = set(data)
    if keys in ({"audiogram"}, {"left"}, {"right"}, {"left", "right"}):
        return f"an audiogram: `streamer run --monitor OUTPUT --set monitor.audiogram={path}` takes it"
    if "rules" in keys and keys <= {"rules", "defaults", "quiet_hours"}:
        return _RULES
    if {"data", "out"} <= keys:
        own = isinstance(data["data"], Mapping) and "manifest" in data["data"]
        return f"what a training does: `streamer train {'nano' if own else 'head'} --config {path}` takes it"
    if keys >= {"backbone", "labels", "thresholds"}:
        return "what belongs to a tagging head: `--head FILE.pth` reads the JSON beside it"
    if keys & {"alignment_heads", "variable_context"}:
        return "what belongs to a checkpoint: `--model FILE.pt` reads the JSON beside it"
    return next((about for key, about in _OF_OTHERS.items() if key in keys), None)


_RULES = "alert rules: in settings they stand below `alerts:` and `rules:`, as in configs/alerts.yaml"

# By a key that stands at the top of such files, and nowhere in settings.
_OF_OTHERS: Mapping[str, str] = {
    "slug": "an add-on of Home Assistant, which reads it by itself",
    "services": "for containers: `docker compose --file FILE up` takes it",
    "apiVersion": "for Kubernetes: `kubectl apply --filename FILE` takes it",
    "cluster_name": "for Ray's own launcher: `ray up FILE` takes it",
    "maintainer": "a repository of add-ons of Home Assistant, which reads it by itself",
}
