"""What all settings share: the base of the sections, the line that refuses a wrong value, and YAML from people."""

import os
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, ClassVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from streamer.errors import ConfigError, meant
from streamer.settings.forms import IN_WORDS
from streamer.settings.other_files import other_kind, word_list


def _grouped(schema: dict[str, Any], section: "type[Section]") -> None:
    """Each setting's group in `streamer schema`."""
    for name, about in schema.get("properties", {}).items():
        about["group"] = "usual" if name in section.USUAL else "expert"


class Section(BaseModel):
    """One section: frozen; unknown keys are refused; no traceback shows what was given, it may be secret.

    `USUAL`: the settings that people choose; all others are for those who know what they change.
    """

    USUAL: ClassVar[tuple[str, ...]] = ()
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True, json_schema_extra=_grouped
    )


def refusal(error: ValidationError, root: type[Section], path: str = "") -> str:
    """The first fault in one line that starts with the key's path; `root` stands at `path`, "" for all settings."""
    first = error.errors()[0]
    if first["type"] == "extra_forbidden":
        known = _known(root, first["loc"])
        alike = meant(str(first["loc"][-1]), known)
        return f"{_place(first['loc'], path)}: unknown key; known here: {', '.join(known)}{alike}"
    return first_fault(error, path)


def first_fault(error: ValidationError, path: str = "") -> str:
    """The first fault in one line that starts with the field's path below `path`, and says what was given."""
    first = error.errors()[0]
    path = _place(first["loc"], path)
    message = first["msg"].removeprefix("Value error, ").strip().replace("\n", " ")
    if first["type"] == "value_error" and (not path or message.startswith(path)):
        return message
    if first["type"] == "string_pattern_mismatch" and (words := IN_WORDS.get(first["ctx"]["pattern"])):
        message = f"must be {words}"
    plain = first["type"] == "string_type" and isinstance(first["input"], int | float | date)
    quoted = "; YAML reads it as one in quotes" if plain else ""
    return f"{path}: {message[:1].lower() + message[1:]}{_given(path, first['input'])}{quoted}"


def _place(loc: tuple[int | str, ...], path: str) -> str:
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def _given(path: str, value: Any) -> str:
    """What was wrong, unless it may be a secret: deliveries have addresses with tokens in them, sections may too."""
    addressed = path.startswith(("delivery", "output.obs", "output.youtube", "output.zoom"))
    secret = path.endswith("token") or (addressed and not isinstance(value, int | float))
    if secret or isinstance(value, Mapping):
        return ""
    return f"; is {_shown(value)}"


def _shown(value: Any) -> str:
    """A value as people recognise it, in a line."""
    try:
        shown = repr(value)
    except ValueError:  # a number of more digits than Python writes
        return "a very long number"
    return shown if len(shown) <= 60 else f"{shown[:57]}…"


def _line(text: str) -> str:
    """What somebody typed, as one line that is not too long."""
    return " ".join(text.split())[:200]


def _known(root: type[Section], loc: tuple[int | str, ...]) -> list[str]:
    section: Any = root
    for part in loc[:-1]:
        if isinstance(part, int):
            section = next(iter(get_args(section)), None)
            continue
        field = getattr(section, "model_fields", {}).get(part)
        if field is None:
            return ["see --print-config"]
        section = field.annotation
    return list(getattr(section, "model_fields", {})) or ["see --print-config"]


def own_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Where a person's own settings stand: $XDG_CONFIG_HOME/streamer/config.yaml, else under ~/.config."""
    return Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "streamer" / "config.yaml"


def own_files() -> list[Path]:
    """The same file, if there is one."""
    return [path for path in (own_file(),) if path.is_file()]


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping: of two `rules:` the first would be gone without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                continue
            if key.value in lines:
                problem = f"{_line(key.value)} stands here and at line {lines[key.value]}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def read_file(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; ConfigError where it cannot be read, is none, or is plainly no file of settings."""
    try:
        text = path.read_text(encoding="utf-8")
        other = word_list(text, path)
        data = None if other else yaml.load(text, _Loader)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"--config {path}: cannot be read: {reason}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(
            f"--config {path}: not valid YAML{place}: {getattr(error, 'problem', None) or 'broken'}"
        ) from None
    if other := other or other_kind(data, path):
        raise ConfigError(f"{path}: not settings, but {other}")
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(
            f"--config {path}: must be a mapping of sections such as 'audio:', is a {type(data).__name__}"
        )
    return data


def put(data: dict[str, Any], key: str, value: Any) -> None:
    """Set `section.key` in nested plain data, making the sections on the way."""
    *sections, last = key.split(".")
    for section in sections:
        inner = data.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{key}: {section} is not a section")
        data = inner
    data[last] = value


def apply_override(data: dict[str, Any], text: str) -> None:
    """Apply one `--set KEY=VALUE`; VALUE is read as YAML (numbers, true/false, null, lists)."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"--set {_line(text)}: must be KEY=VALUE, for example --set window.hop_s=0.5")
    try:
        put(data, key.strip(), yaml.safe_load(value))
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError(f"--set {_line(key)}: value {_shown(value)} is not valid YAML") from None
