"""Streamer hears a room and tells people about it: captions and sound events from one pass of a Whisper encoder.

model = streamer.load_model("auto")
stream = streamer.Stream(model)
events = stream.push(samples) + stream.finish()
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from streamer.model.cpu_threads import before_libraries

before_libraries()  # here, because whatever of streamer is imported may be what loads numpy

if TYPE_CHECKING:
    from streamer.model.choice import load_model
    from streamer.runtime.stream import Stream
    from streamer.settings.config import Settings

__all__ = ["Settings", "Stream", "load_model"]

_HOMES = {
    "Settings": "streamer.settings.config",
    "Stream": "streamer.runtime.stream",
    "load_model": "streamer.model.choice",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use, so that importing `streamer` never imports torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'streamer' has no attribute {name!r}")
