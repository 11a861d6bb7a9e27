"""What CONTRIBUTING.md and docs/design.md name is there: files, folders, and what is to be started from in them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "streamer"
SOURCES = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}
TABLE = [line for line in (ROOT / "CONTRIBUTING.md").read_text("utf-8").splitlines() if line.startswith("| ")][1:]


def named(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.split("|")[1].strip())
def test_where_a_new_one_goes_is_there(row):
    for what in named(row):
        path, _, name = what.partition(": ")
        if "/" in path and " " not in path:
            found = next((base / path for base in (ROOT, PACKAGE) if (base / path).exists()), None)
            assert found is not None, what
            assert not name or name in found.read_text("utf-8"), what
        elif re.fullmatch(r"\w+", what):
            assert any(re.search(rf"\b{what}\b", text) for text in SOURCES.values()), what


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/design.md"])
def test_every_module_that_is_named_is_there(page):
    text = (ROOT / page).read_text("utf-8")
    for path in re.findall(r"[\w/]+\.py\b", text):
        there = (ROOT / path).is_file() or any(name.endswith(f"/{path}") for name in SOURCES)
        assert there, f"{page} names {path}"
