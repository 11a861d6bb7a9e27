"""Turns of the processor for a process that must not be late: what the system allows."""

import logging
import os
from typing import Final

log = logging.getLogger(__name__)

_REAL_TIME: Final = 5  # above everything without a deadline, below the sound server
_NICE: Final = -11  # what sound servers take where they are not allowed more


def ask_for_priority() -> str:
    """Ask for the calling thread and those that it starts from now on; what it has: `real time`, `high` or `normal`."""
    if hasattr(os, "sched_setscheduler"):
        try:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(_REAL_TIME))
            return "real time"
        except OSError as error:
            log.debug("no real-time priority: %s", error)
    if hasattr(os, "setpriority"):
        try:
            os.setpriority(os.PRIO_PROCESS, 0, _NICE)
            return "high"
        except OSError as error:
            log.debug("no high priority: %s", error)
    return "normal"
