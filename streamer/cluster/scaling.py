"""How many engines there ought to be, for the autoscaler of Ray Serve, which keeps to its bounds and delays.

Each engine says its `load`: the share of its time that its windows need in full batches, by what its last steps took,
and what waits, in seconds of the same. Engines whose batches are small look half idle so, as they are: in larger ones
a window costs less.
"""

import math
from typing import Any

LOAD = "load"
FULL = 0.7  # of an engine's time, at most


def engines_wanted(context: Any) -> tuple[int, dict[str, Any]]:
    """The number of engines for what they say they have to do; `context`: Serve's AutoscalingContext."""
    loads = (context.aggregated_metrics or {}).get(LOAD, {})
    if not loads:  # nobody has said anything yet
        return context.target_num_replicas, {}
    return max(1, math.ceil(sum(loads.values()) / FULL)), {}
