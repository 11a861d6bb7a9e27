"""Whose turn it is where more streams wait than one batch holds (pure): finals first, then who waits longest.

A stream that waits too long gets every fourth place whatever else is due, so that utterances which end all the time in
other streams cannot keep it waiting for ever.
"""

from collections.abc import Sequence
from dataclasses import dataclass

OVERDUE_S = 2.0  # who has waited so long is not overtaken for ever
OVERDUE_EVERY = 4  # one place in so many is for those


@dataclass(frozen=True, slots=True)
class Waiting:
    """One stream that waits. `closing`: an utterance of it ends in what waits; `since_s`: when its next plan came."""

    closing: bool
    since_s: float


def in_turn(waiting: Sequence[Waiting], now_s: float) -> list[int]:
    """The places in `waiting` in the order in which they are to be served; equals keep their order."""
    by_age = sorted(range(len(waiting)), key=lambda place: waiting[place].since_s)
    overdue = iter([place for place in by_age if now_s - waiting[place].since_s >= OVERDUE_S])
    order: dict[int, None] = {}
    for place in [place for place in by_age if waiting[place].closing]:
        if len(order) % OVERDUE_EVERY == OVERDUE_EVERY - 1:
            order |= dict.fromkeys([next((one for one in overdue if one not in order), place)])
        order[place] = None
    return list(order | dict.fromkeys(by_age))
