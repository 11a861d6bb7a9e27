"""The settings under their public name: see `streamer.settings.config`."""

from streamer.settings.config import Settings, resolve

__all__ = ["Settings", "resolve"]
