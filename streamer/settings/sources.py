"""Several sources in one process: what stands under `sources:`, and the settings in force for each of them.

    sources:
      - {name: kitchen, device: Snowball}
      - {name: hall, input: hall.wav, settings: {speech: {language: de}, guards: {voice: false}}}

A source's `settings` change single keys of the sections that hold for all of them; rules of its alerts change the rules
of the same id. Model, server, outputs and deliveries are shared. Every refusal starts with the key's full path.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from streamer.errors import ConfigError

if TYPE_CHECKING:
    from streamer.settings.config import Settings

MAX_SOURCES = 128
OWN_SECTIONS = ("speech", "vad", "window", "policy", "guards", "tags", "sounds", "alerts", "audio")
OWN_AUDIO = ("buffer_s", "stall_s", "track")


def _name(value: str) -> str:
    if not re.fullmatch(r"\w(?:[\w -]{0,38}\w)?", value):
        raise ValueError("must be 1 to 40 letters, digits, spaces, - or _, for example kitchen")
    return value


class SourceSettings(BaseModel):
    """One source: `device` as in --device, or `input` as in --input; neither: the default microphone.

    `input: ingest` is what a client sends to `/ingest` with `"source": NAME` in its `start` message.

    `name` is its session's id, and what people read in front of its captions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, AfterValidator(_name)]
    device: int | str | None = None
    input: str | None = None
    settings: dict[str, Any] = Field({}, description="sections with what is different for this source")


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """One source to open. `path`: where it stands in the settings, "" for the one that --device or --input names.

    `name`: its session's id, "" where the program chooses one. In `settings.audio` is what to open.
    """

    name: str
    path: str
    settings: "Settings"


def check_sources(sources: Sequence[SourceSettings], device: int | str | None, input: str | None) -> None:
    """What can be seen before a source is opened; ConfigError names the entry."""
    if sources and (device is not None or input is not None):
        key = "audio.input (--input)" if input is not None else "audio.device (--device)"
        raise ConfigError(f"{key}: there are sources too; give only one of them (--set sources=[] leaves those out)")
    if len(sources) > MAX_SOURCES:
        raise ConfigError(f"sources: must be at most {MAX_SOURCES}; are {len(sources)}")
    taken: dict[tuple[str, str], int] = {}
    for index, source in enumerate(sources):
        if source.device is not None and source.input is not None:
            raise ConfigError(f"sources[{index}].device: there is an input too; give only one of them")
        uses = [("name", source.name.casefold())]
        if source.input == "-":
            uses.append(("input", "standard input"))
        if source.input is None:
            uses.append(("device", "" if source.device is None else str(source.device).strip().casefold()))
        for key, value in uses:
            other = taken.setdefault((key, value), index)
            if other != index:
                given = getattr(source, key)
                shown = value if key == "input" else "the default microphone" if given is None else repr(given)
                raise ConfigError(f"sources[{index}].{key}: must be another than that of sources[{other}]; is {shown}")


def overlay(settings: "Settings", source: SourceSettings, path: str) -> dict[str, Any]:
    """The settings of one source as plain data, to be validated; ConfigError for what is not a source's to change."""
    given = source.settings
    _only(given, OWN_SECTIONS, f"{path}.settings")
    sections = {name: getattr(settings, name).model_dump() for name in (*OWN_SECTIONS, "model")}
    data: dict[str, Any] = {}
    for name, common in sections.items():
        own = given.get(name, {})
        if name == "audio" and isinstance(own, Mapping):
            _only(own, OWN_AUDIO, f"{path}.settings.audio")
        if not isinstance(own, Mapping):
            data[name] = own  # refused by the section itself
        elif name == "alerts":
            data[name] = _rules(common, own)
        else:
            data[name] = {**common, **own}
    if isinstance(data["audio"], dict):
        data["audio"] |= {"device": source.device, "input": source.input}
    return data


def _only(given: Mapping[str, Any], known: Sequence[str], path: str) -> None:
    for key in given:
        if key not in known:
            raise ConfigError(f"{path}.{key}: is not for one source to set; known here: {', '.join(known)}")


def _rules(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The common alerts with a source's own over them: the own rules first, so that a refusal counts as people do."""
    rules = own.get("rules", ())
    if not isinstance(rules, list | tuple):
        return {**common, **own}
    before = {rule["id"]: rule for rule in common["rules"]}
    merged, named = [], set()
    for rule in rules:
        known = isinstance(rule, Mapping) and isinstance(rule.get("id"), str)
        named.add(rule["id"] if known else None)
        merged.append({**before.get(rule["id"], {}), **rule} if known else rule)
    kept = [rule for id, rule in before.items() if id not in named] if own.get("defaults", True) is not False else []
    return {**common, **own, "defaults": False, "rules": [*merged, *kept]}
