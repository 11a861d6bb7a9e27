"""Libraries that only training and evaluation need, imported when they are first used."""

from importlib import import_module
from typing import Any

from streamer.errors import UsageError


def evaluation_library(name: str) -> Any:
    """A module of scikit-learn, jiwer or matplotlib. Raises UsageError that says how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        package = {"sklearn": "scikit-learn", "scipy": "scikit-learn"}.get(
            name.partition(".")[0], name.partition(".")[0]
        )
        raise UsageError(f"{package} is needed here: pip install 'streamer[eval]' ({error})") from error
