"""PROTOCOL's invariants, as `streamer bench chaos` checks them too."""

from streamer.measure.invariants import check_session

__all__ = ["check_session"]
