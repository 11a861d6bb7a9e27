"""How many engines there ought to be, for the autoscaler of Ray Serve, which keeps to its bounds and delays.

Each engine says its `load`: the share of an engine that its windows need in batches as large as they were at best, and
the work that waits, in seconds. Engines whose batches are still small look half idle so, as they are: larger batches
cost less for each window.
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
