"""The 527 AudioSet classes as data: found by index, machine id or name; groups of labels that mean one thing to people.

Source of the names and ids: AudioSet (Google LLC, CC BY 4.0), streamer/data/audioset_labels.csv. No torch here.
"""

import csv
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal

import yaml

LABEL_COUNT = 527
DEFAULT_HOLD_S = 2.0  # a pause no longer than this does not end a sound event

EventKind = Literal["own", "none", "overlap"]


@dataclass(frozen=True, slots=True)
class Label:
    """One AudioSet class: index 0..526, machine id such as `/m/03kmc9`, display name such as `Siren`."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class LabelGroup:
    """Labels that name one thing.

    `event` own: they make one sound event called `name`; none: they make no event; overlap: only a set for rules.
    `general`: indices that make no event of their own while an event of this group lasts. `patterns`: those of the
    signal (`CadenceKind`) that make the event too. `instead`: indices that a tagger takes these for; they make no event
    while one of them shows. `hold_s`: see DEFAULT_HOLD_S.
    """

    id: str
    name: str
    event: EventKind
    members: frozenset[int]
    general: frozenset[int]
    hold_s: float
    patterns: frozenset[str] = frozenset()
    instead: frozenset[int] = frozenset()


@cache
def labels() -> tuple[Label, ...]:
    """All 527 classes in AudioSet's order."""
    text = files("streamer").joinpath("data/audioset_labels.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return tuple(Label(int(row["index"]), row["mid"], row["display_name"]) for row in rows)


def find(key: int | str) -> Label:
    """The label with this index (also as digits), machine id or display name (case does not matter).

    LookupError with the closest names where there is none.
    """
    if isinstance(key, int) or key.strip().isdigit():
        index = int(key)
        if 0 <= index < LABEL_COUNT:
            return labels()[index]
        raise LookupError(f"no label has the index {index}: indices run from 0 to {LABEL_COUNT - 1}")
    found = _by_key().get(key.strip().casefold())
    if found is None:
        raise LookupError(f"no label is called {key!r}{_hint(key, [label.name for label in labels()])}")
    return found


def group(name: str) -> frozenset[int]:
    """The indices of a group's labels, for example of every siren; LookupError with close matches."""
    found = groups().get(name.strip())
    if found is None:
        raise LookupError(f"no group of labels is called {name!r}{_hint(name, list(groups()))}")
    return found.members


def resolve(name: str) -> frozenset[int]:
    """Indices of a group's labels, or of the one label with this name, id or index; LookupError with close matches."""
    if name.strip() in groups():
        return group(name)
    try:
        return frozenset({find(name).index})
    except LookupError:
        near = _hint(name, [*groups(), *(label.name for label in labels())])
        raise LookupError(f"neither a group nor a label is called {name!r}{near}") from None


@cache
def groups() -> Mapping[str, LabelGroup]:
    """All groups of streamer/data/label_groups.yaml by id, in the file's order."""
    text = files("streamer").joinpath("data/label_groups.yaml").read_text(encoding="utf-8")
    return MappingProxyType({key: _group(key, entry) for key, entry in yaml.safe_load(text).items()})


@cache
def event_group(index: int) -> LabelGroup:
    """The group whose sound event a label makes; a group of its own for a label that is in none."""
    for found in groups().values():
        if found.event != "overlap" and index in found.members:
            return found
    label = labels()[index]
    return LabelGroup(str(index), readable(label.name), "own", frozenset({index}), frozenset(), DEFAULT_HOLD_S)


@cache
def pattern_group(pattern: str) -> LabelGroup | None:
    """The group whose sound event a pattern of the signal makes (`t4`), if any."""
    return next((found for found in groups().values() if pattern in found.patterns), None)


def readable(name: str) -> str:
    """A display name as people write it in a caption: `Siren` becomes `siren`, `Fowl` `fowl`.

    Only the first of several synonyms is kept (`Chewing, mastication`); names such as `DTMF` keep their capitals.
    """
    first = name.split(", ")[0]
    return first if first[1:2].isupper() else first[:1].lower() + first[1:]


@cache
def _by_key() -> Mapping[str, Label]:
    keys = {label.name.casefold(): label for label in labels()}
    return MappingProxyType(keys | {label.id.casefold(): label for label in labels()})


def _group(key: str, entry: Mapping[str, Any]) -> LabelGroup:
    return LabelGroup(
        id=key,
        name=entry["name"],
        event=entry.get("event", "own"),
        members=_indices(entry.get("labels", ())),
        general=_indices(entry.get("general", ())),
        instead=_indices(entry.get("instead", ())),
        hold_s=float(entry.get("hold_s", DEFAULT_HOLD_S)),
        patterns=frozenset(entry.get("patterns", ())),
    )


def _indices(entries: list[str]) -> frozenset[int]:
    found: set[int] = set()
    for entry in entries:
        first, dash, last = str(entry).partition("-")
        if dash and first.isdigit() and last.isdigit():
            found.update(range(int(first), int(last) + 1))
        else:
            found.add(find(str(entry)).index)
    return frozenset(found)


def _hint(name: str, candidates: list[str]) -> str:
    folded = {candidate.casefold(): candidate for candidate in candidates}
    near = difflib.get_close_matches(name.strip().casefold(), list(folded), n=3, cutoff=0.5)
    near += [key for key in folded if name.strip().casefold() in key and key not in near][: 3 - len(near)]
    return f"; near it: {', '.join(folded[key] for key in near)}" if near else ""
