"""A process that speaks as the hearing aid's own does, without devices.

    python played_aid.py FILE [WHAT]

FILE holds how many of them began before, which is what its samples are; negative while the alarm's signal is on. WHAT
the first of them does: `die` after ten blocks, `hang` instead; `refuse`: all of them find no microphone.
"""

import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

from streamer.audio.block import AudioBlock
from streamer.monitor.messages import Begin, Heard, Opened, Refused, Report, Steer, Writer, read

BLOCK, BLOCK_S = 320, 0.02


def main() -> None:
    """Play until standard input ends."""
    began, does = Path(sys.argv[1]), sys.argv[2]
    out, commands = Writer(sys.stdout.buffer), sys.stdin.buffer
    print("ALSA lib pcm.c:8570:(snd_pcm_recover) underrun occurred", file=sys.stderr)
    print("Illegal instruction", file=sys.stderr, flush=True)
    assert isinstance(read(commands), Begin)
    if does == "refuse":
        out.write(Refused("--device x: no microphone's name contains that"))
        return
    out.write(Opened("mic", "ears (hw:1,0)", "ears"))
    told = read(commands)
    if not isinstance(told, Steer):
        return
    sign = [-1 if told.alarm else 1]

    def obey() -> None:
        while isinstance(told := read(commands), Steer):
            sign[0] = -1 if told.alarm else 1
        os._exit(0)

    threading.Thread(target=obey, daemon=True).start()
    count = int(began.read_text()) + 1
    began.write_text(str(count))
    out.write(Report(howls=count, process=os.getpid()))
    number = 0
    while True:
        number += 1
        out.write(Heard(AudioBlock(np.full(BLOCK, count * sign[0], np.float32)), time.monotonic()))
        if number == 10 and count == 1 and does == "die":
            os._exit(3)
        if number == 10 and count == 1 and does == "hang":
            time.sleep(1_000)
        time.sleep(BLOCK_S)


if __name__ == "__main__":
    main()
