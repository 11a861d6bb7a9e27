"""Text that is safe to show: what a model or a label brings along never controls a terminal or a player."""

import re
import unicodedata

_UNWANTED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_WANTED_FORMATS = frozenset("\u200c\u200d")  # joiners, which Persian, Hindi and others need to be legible
_BEGAN = re.compile(r"-\d{8}T\d{6}$")  # as sessions are named that need a name of their own in each run


def clean(text: str) -> str:
    """One line: control, bidirectional and other invisible characters become spaces, runs of space become one."""
    kept = "".join(" " if _unwanted(char) else char for char in text)
    return " ".join(kept.split())


def source_of(session: str) -> str:
    """A session's name for people: without the time of its beginning, where it has one."""
    return _BEGAN.sub("", session)


def _unwanted(char: str) -> bool:
    return not (" " <= char <= "~") and unicodedata.category(char) in _UNWANTED and char not in _WANTED_FORMATS
