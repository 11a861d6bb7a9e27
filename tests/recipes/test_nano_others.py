import numpy as np

from streamer.recipes.synthesis.household import OTHERS, others
from streamer.recipes.synthesis.sounds import DISTRACTORS
from streamer.sound.labels import labels

NAMES = {
    "reversing_beeper": {"Reversing beeps", "Beep, bleep"},
    "telephone": {"Telephone", "Telephone bell ringing"},
    "whistling": {"Whistling"},
    "birds": {"Bird", "Chirp, tweet"},
    "music": {"Music"},
    "alarm_clock": {"Alarm clock", "Alarm"},
}


def test_every_sound_that_is_no_alarm_is_there_with_its_classes():
    assert set(OTHERS) == set(DISTRACTORS)
    for name, wanted in NAMES.items():
        assert {labels()[index].name for index in OTHERS[name]} == wanted


def test_clips_depend_on_the_seed_alone_and_sound():
    first, again, other = others(1, 3), others(1, 3), others(1, 4)
    for one, same, different in zip(first, again, other, strict=True):
        assert np.array_equal(one.audio, same.audio)
        assert one.category == different.category
    assert sum(bool(clip.active.any()) for clip in first) >= len(first) - 2  # some beep every half minute only
    assert not all(np.array_equal(one.audio, two.audio) for one, two in zip(first, other, strict=True))
