"""What waits for an engine, and what of it goes into the next batch (pure): ends of utterances first, then by age.

Nobody is overtaken for ever: who was passed over `PATIENCE` times counts as an end of an utterance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

PATIENCE = 3

Item = TypeVar("Item")


@dataclass(slots=True)
class _Place(Generic[Item]):
    item: Item
    cost: int
    urgent: bool
    passed_over: int = 0


class Waiting(Generic[Item]):
    """Items that wait, each with its cost."""

    def __init__(self) -> None:
        self._places: list[_Place[Item]] = []  # in the order in which they came

    def __len__(self) -> int:
        return len(self._places)

    def put(self, item: Item, cost: int, *, urgent: bool) -> None:
        """One more waits."""
        self._places.append(_Place(item, cost, urgent))

    def take(self, most: int) -> Sequence[Item]:
        """The next batch, of a cost of `most` together; at least one, if there is any."""
        order = sorted(self._places, key=lambda place: not (place.urgent or place.passed_over >= PATIENCE))
        taken: list[_Place[Item]] = []
        cost = 0
        for place in order:
            if taken and cost + place.cost > most:
                break
            taken.append(place)
            cost += place.cost
        chosen = {id(place) for place in taken}
        self._places = [place for place in self._places if id(place) not in chosen]
        for place in self._places:
            place.passed_over += 1
        return [place.item for place in taken]
