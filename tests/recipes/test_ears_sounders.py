"""Synthesised alarms and decoys: labelled as what they are, audible, drawn from the seed alone."""

import numpy as np
import pytest

from streamer.events import SAMPLE_RATE
from streamer.recipes.ears import sounders
from streamer.sound.labels import group, labels

SECONDS = 6.0


@pytest.mark.parametrize("kind", list(sounders.KINDS))
def test_clips_are_finite_audible_and_drawn_from_the_seed(kind: str) -> None:
    _, make, count = sounders.KINDS[kind]
    waves = [make(SECONDS, np.random.default_rng([3, index])) for index in range(8)]
    again = make(SECONDS, np.random.default_rng([3, 0]))
    assert count > 0
    assert np.array_equal(waves[0], again)
    for wave in waves:
        assert wave.shape == (int(SECONDS * SAMPLE_RATE),)
        assert np.isfinite(wave).all()
        assert wave.std() > 1e-4
    assert len({wave.tobytes() for wave in waves}) == len(waves)


def test_labels_name_what_the_rules_ask_for_and_decoys_name_none_of_it() -> None:
    alarms = {"smoke_alarm": {"piezo", "horn", "evacuation"}, "siren": {"street_siren", "civil_defence"}}
    for name, expected in alarms.items():
        assert {kind for kind, (found, *_) in sounders.KINDS.items() if group(name) & set(found)} == expected
    assert labels()[sounders.FIRE_ALARM].name == "Fire alarm"
    assert labels()[sounders.CIVIL_DEFENSE].name == "Civil defense siren"
    assert labels()[sounders.STEAM_WHISTLE].name == "Steam whistle"
    assert labels()[sounders.SOUND_EFFECT].name == "Sound effect"
