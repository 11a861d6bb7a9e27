"""The last samples of one channel, for who looks back every few blocks."""

import numpy as np
from numpy.typing import NDArray

_ROOM = 8  # times as much as is looked back at: so often is it moved to the front


class Past:
    """Keeps at least the last `longest` samples; before the first they are 0."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._kept = np.zeros(_ROOM * longest)
        self.reset()

    def reset(self) -> None:
        """As if nothing had come."""
        self._kept[:] = 0.0
        self._end = self._longest

    def push(self, samples: NDArray[np.float64]) -> None:
        """The next samples [n]; n is `longest` at most."""
        if self._end + len(samples) > len(self._kept):
            self._kept[: self._longest] = self._kept[self._end - self._longest : self._end]
            self._end = self._longest
        self._kept[self._end : self._end + len(samples)] = samples
        self._end += len(samples)

    def last(self, count: int) -> NDArray[np.float64]:
        """The last `count` of them, valid until the next `push`."""
        return self._kept[self._end - count : self._end]
