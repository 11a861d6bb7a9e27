"""Turns of the processor, asked for in a process of its own: who asks keeps them."""

import subprocess
import sys

ASK = """
import os, threading
from streamer.monitor.priority import ask_for_priority

def turns():
    return os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)

before = turns()
got = ask_for_priority()
later = []
thread = threading.Thread(target=lambda: later.append(turns()))
thread.start()
thread.join()
assert later == [turns()], later
assert (turns() == before) == (got == "normal"), (got, before, turns())
print(got)
"""


def test_threads_that_are_started_later_have_what_was_got():
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() in ("real time", "high", "normal")
