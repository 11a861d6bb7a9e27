"""Several sources in one process, and what each may have of its own:

    sources:
      - {name: kitchen, device: Snowball}
      - {name: hall, input: hall.wav, settings: {speech: {language: de}, guards: {doubt: false}}}

A source's `settings` change single keys of the sections that hold for all of them; rules of its alerts change the rules
of the same id. Model, server, outputs and deliveries are shared.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from streamer.errors import ConfigError, meant
from streamer.settings.rules import rules_over
from streamer.settings.section import Section

MAX_SOURCES = 128
OWN_SECTIONS = ("speech", "vad", "window", "policy", "guards", "tags", "sounds", "alerts", "audio")
OWN_AUDIO = ("buffer_s", "stall_s", "track")
SHARED_SECTIONS = {*OWN_SECTIONS, "model", "monitor"}  # what the settings of a source are made of


def _name(value: str) -> str:
    if not re.fullmatch(r"\w(?:[\w -]{0,38}\w)?", value):
        raise ValueError("must be 1 to 40 letters, digits, spaces, - or _, for example kitchen")
    return value


class SourceSettings(Section):
    """One source: a device or an input; neither: the default microphone. `ingest`: `"source": NAME` in `start`."""

    USUAL = ("name", "device", "input", "settings")
    name: Annotated[str, AfterValidator(_name)] = Field(description="its session's id, shown before its captions")
    device: int | str | None = Field(None, description="as audio.device")
    input: str | None = Field(None, description="as audio.input; ingest: what a client sends to /ingest")
    settings: dict[str, Any] = Field({}, description="sections with what is different for this source")


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


def overlay(common: Mapping[str, Any], source: SourceSettings, path: str) -> dict[str, Any]:
    """The settings of one source as plain data, to be validated; ConfigError for what is not a source's to change.

    `common`: the sections of `SHARED_SECTIONS` that hold for all sources.
    """
    given = source.settings
    _only(given, OWN_SECTIONS, f"{path}.settings")
    data: dict[str, Any] = {}
    for name, shared in common.items():
        own = given.get(name, {})
        if name == "audio" and isinstance(own, Mapping):
            _only(own, OWN_AUDIO, f"{path}.settings.audio")
        if not isinstance(own, Mapping):
            data[name] = own  # refused by the section itself
        elif name == "alerts":
            data[name] = _alerts(shared, own)
        else:
            data[name] = {**shared, **own}
    if isinstance(data["audio"], dict):
        data["audio"] |= {"device": source.device, "input": source.input}
    return data


def _only(given: Mapping[str, Any], known: Sequence[str], path: str) -> None:
    for key in given:
        if key not in known:
            raise ConfigError(
                f"{path}.{key}: is not for one source to set; known here: {', '.join(known)}{meant(key, known)}"
            )


def _alerts(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The common alerts with a source's own over them: the own rules first, so that a refusal counts as people do."""
    rules = own.get("rules", ())
    if not isinstance(rules, list | tuple):
        return {**common, **own}
    merged, others = rules_over(rules, common["rules"])
    kept = others if own.get("defaults", True) is not False else []
    return {**common, **own, "defaults": False, "rules": [*merged, *kept]}
