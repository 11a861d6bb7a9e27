"""Where the time of a step goes: methods of live objects, timed; what is inside another is counted once."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any


class Stopwatch:
    """`seconds` by part, by `clock`. `watch` puts itself around a bound method of one object for good.

    `settle` waits for work that is queued on a device, so that each part is charged with its own.
    """

    def __init__(
        self, settle: Callable[[], None] = lambda: None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._settle, self._clock = settle, clock
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []  # per call under way, the seconds that parts inside it took

    def watch(self, owner: Any, method: str, part: str) -> None:
        """Count the time of `owner.method` as `part`, less that of other watched methods inside it."""
        inside = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            self._settle()
            start = self._clock()
            try:
                return inside(*args, **kwargs)
            finally:
                self._settle()
                took = self._clock() - start
                self.seconds[part] += took - self._inner.pop()
                if self._inner:
                    self._inner[-1] += took

        setattr(owner, method, timed)

    def take(self) -> dict[str, float]:
        """The seconds since the last time, and start anew."""
        taken = dict(self.seconds)
        self.seconds.clear()
        return taken
