"""Any YAML that a person or a program may write: settings, or one line that says what is wrong, and nothing else."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamer.errors import ConfigError
from streamer.settings.config import Settings, resolve

PLAIN = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats() | st.text(max_size=12)
ANYTHING = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


def keys_of(section) -> list[str]:
    return list(section.model_fields)


def sections() -> dict[str, list[str]]:
    """The keys of each section that has some."""
    fields = Settings.model_fields
    return {name: keys_of(one.annotation) for name, one in fields.items() if hasattr(one.annotation, "model_fields")}


def near(keys: list[str]) -> st.SearchStrategy:
    """Known keys with anything in them."""
    return st.dictionaries(st.sampled_from(keys), ANYTHING, max_size=4)


RULE_KEYS = keys_of(Settings.model_fields["alerts"].annotation.model_fields["rules"].annotation.__args__[0])
RULES = st.lists(near(RULE_KEYS).map(lambda given: {"id": "one", **given}), max_size=3)
SOURCES = st.lists(near(["name", "device", "input", "settings"]).map(lambda given: {"name": "a", **given}), max_size=3)
SECTIONS = st.fixed_dictionaries({}, optional={name: near(keys) | ANYTHING for name, keys in sections().items()})
WHOLE = st.one_of(
    SECTIONS,
    st.builds(lambda rules: {"alerts": {"rules": rules}}, RULES),
    st.builds(lambda sources: {"sources": sources}, SOURCES),
    ANYTHING,
)


def settle(text: str, overrides: tuple[str, ...] = ()) -> Settings | str:
    """The settings in a file of this text, or the one line that refuses it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "given.yaml"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        try:
            return resolve([path], overrides, {})
        except ConfigError as error:
            return str(error)


def is_one_line(found: Settings | str) -> bool:
    return isinstance(found, Settings) or (0 < len(found) < 3000 and "\n" not in found.strip("\n"))


@settings(max_examples=80, derandomize=True)
@given(data=WHOLE)
@example(data={"alerts": {"rules": [{"id": "one", "patterns": ["("]}]}})
@example(data={"sources": [{"name": "a", "settings": {"alerts": {"rules": [None]}}}]})
@example(data={"audio": {"buffer_s": math.nan}})
@example(data={"tags": {"spans_s": "12"}})
def test_any_mapping_is_settings_or_one_line(data):
    found = settle(yaml.safe_dump(data))
    assert is_one_line(found), found
    if isinstance(found, str) and isinstance(data, dict) and len(data) == 1:
        assert str(next(iter(data))) in found or "--config" in found


@settings(max_examples=50, derandomize=True)
@given(text=st.text(max_size=60) | st.text("{}[]:-&*!?|>'\"%@ \n\tab0", max_size=40))
@example(text="a: &x [*x]")
@example(text="audio: &a {b: *a}")
@example(text="? [1]\n: 2")
@example(text="2026-02-30: x")
@example(text="audio: {track: 0x" + "f" * 5000 + "}")
@example(text="audio: {track: " + "9" * 5000 + "}")
@example(text="[" * 5000)
@example(text="\ud800")
def test_any_text_is_settings_or_one_line(text):
    found = settle(text)
    assert is_one_line(found), found


@settings(max_examples=50, derandomize=True)
@given(
    key=st.sampled_from(["audio.track", "alerts.rules", "sources", "server", "a.b.c", "", "."]),
    value=st.text(max_size=20),
)
@example(key="server", value="{port: " + "9" * 5000 + "}")
def test_any_override_is_taken_or_one_line(key, value):
    found = settle("", (f"{key}={value}",))
    assert is_one_line(found), found


@pytest.mark.parametrize("text", ["alerts: {rules: [{id: one, patterns: ['(a+)+$']}]}", "speech: {mask: [a, 7]}"])
def test_these_do_not_hang(text):
    assert is_one_line(settle(text))
