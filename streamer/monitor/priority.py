"""Turns of the processor for threads that must not be late: what the system allows, asked for by each thread itself."""

import logging
import os
import threading
from typing import Final

log = logging.getLogger(__name__)

_REAL_TIME: Final = 5  # above everything without a deadline, below the sound server
_NICE: Final = -11  # what sound servers take where they are not allowed more


def ask_for_priority() -> str:
    """Ask for the calling thread; what it has now: `real time`, `high` or `normal`."""
    thread = threading.get_native_id()
    if hasattr(os, "sched_setscheduler"):
        try:
            os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(_REAL_TIME))
            return "real time"
        except OSError as error:
            log.debug("no real-time priority: %s", error)
        try:
            os.setpriority(os.PRIO_PROCESS, thread, _NICE)  # on Linux a thread has its own
            return "high"
        except OSError as error:
            log.debug("no high priority: %s", error)
    return "normal"
