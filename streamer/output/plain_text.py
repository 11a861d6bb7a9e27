"""Text that is safe to show: what a model or a label brings along never controls a terminal or a player."""

import unicodedata

_UNWANTED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_WANTED_FORMATS = frozenset("\u200c\u200d")  # joiners, which Persian, Hindi and others need to be legible


def clean(text: str) -> str:
    """One line: control, bidirectional and other invisible characters become spaces, runs of space become one."""
    kept = "".join(" " if _unwanted(char) else char for char in text)
    return " ".join(kept.split())


def _unwanted(char: str) -> bool:
    return not (" " <= char <= "~") and unicodedata.category(char) in _UNWANTED and char not in _WANTED_FORMATS
