"""Text that is safe to show: what a model or a label brings along never controls a terminal or a player."""

import unicodedata

_UNWANTED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_WANTED_FORMATS = frozenset("\u200c\u200d")  # joiners, which Persian, Hindi and others need to be legible


def clean(text: str) -> str:
    """One line: control, bidirectional and other invisible characters become spaces, runs of space become one."""
    kept = "".join(" " if _unwanted(char) else char for char in text)
    return " ".join(kept.split())


def cells(text: str) -> int:
    """The width of `text` in columns: two for East Asian wide characters, none for combining marks (UAX #11)."""
    return sum(_cells(char) for char in text)


def _unwanted(char: str) -> bool:
    return not (" " <= char <= "~") and unicodedata.category(char) in _UNWANTED and char not in _WANTED_FORMATS


def _cells(char: str) -> int:
    if " " <= char <= "~":
        return 1
    if unicodedata.combining(char) or char in _WANTED_FORMATS:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
