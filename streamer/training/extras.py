"""Libraries that only training and evaluation need, imported when they are first used."""

from importlib import import_module
from typing import Any

from streamer.errors import UsageError


def evaluation_library(name: str) -> Any:
    """A module of scikit-learn, scipy, jiwer or matplotlib. Raises UsageError that says how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        module = name.partition(".")[0]
        package = "scikit-learn" if module == "sklearn" else module
        raise UsageError(f"{package} is needed here: pip install 'streamer[eval]' ({error})") from error
