"""Sounds that are no alarm though they beep, sweep or sing, for the tagging head's own stage.

From the generators of the alert bench in the ranges that the detectors were built on; the bench judges with other seeds
and wider ranges.
"""

import numpy as np

from streamer.events import SAMPLE_RATE
from streamer.recipes.nano.alarms import ALARM, ALARM_CLOCK, BEEP, PHONE_BELL, TELEPHONE, WHISTLE
from streamer.recipes.nano.clips import SoundClip, activity
from streamer.recipes.synthesis.sounds import DEVELOPMENT, DISTRACTORS

WHISTLING, BIRD, CHIRP, MUSIC, REVERSING = 40, 111, 113, 137, 319
SECONDS = 7.0
LABELS = {
    "reversing_beeper": (REVERSING, BEEP),
    "microwave_timer": (BEEP,),
    "kitchen_timer": (BEEP,),
    "low_battery_chirp": (BEEP,),
    "alarm_clock": (ALARM_CLOCK, ALARM),
    "telephone": (TELEPHONE, PHONE_BELL),
    "kettle": (WHISTLE,),
    "whistling": (WHISTLING,),
    "birds": (BIRD, CHIRP),
    "music": (MUSIC,),
    "household": (),
}


def others(each: int, seed: int) -> tuple[SoundClip, ...]:
    """`each` clips of every sound."""
    clips = []
    for number, (name, labels) in enumerate(LABELS.items()):
        for index in range(each):
            random = np.random.default_rng([seed, number, index])
            sound = DISTRACTORS[name](random, 4 * SECONDS, DEVELOPMENT).samples
            start = int(random.uniform(0, 3 * SECONDS) * SAMPLE_RATE)
            audio = (sound[start : start + int(SECONDS * SAMPLE_RATE)] * 0.1).astype(np.float32)
            clips.append(SoundClip(audio, labels, activity(audio), name))
    return tuple(clips)
