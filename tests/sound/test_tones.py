import numpy as np
import pytest

from streamer.recipes.synthesis import sounds
from streamer.sound.patterns.cadence import CadenceDetector
from streamer.sound.patterns.state import CadenceKind, CadencePhase

RATE = 16_000


def tones(samples, seed=0):
    """(time, onset, last) in seconds at the end of every half second in which a tone keeps its pitch."""
    noise = 1e-4 * np.random.default_rng(seed).standard_normal(samples.size)
    detector, found = CadenceDetector(), []
    for end in range(8_000, samples.size + 1, 8_000):
        for state in detector.step((samples * 0.05 + noise).astype(np.float32)[end - 8_000 : end], end):
            if state.kind is CadenceKind.TONE:
                assert state.phase is CadencePhase.CANDIDATE
                found.append((end / RATE, state.onset_sample / RATE, state.last_sample / RATE))
    return found


def beeping(on_s, off_s, hz=3000, seconds=8):
    clock = np.arange(seconds * RATE) / RATE
    return np.sin(2 * np.pi * hz * clock) * (clock % (on_s + off_s) < on_s)


@pytest.mark.parametrize(("on_s", "off_s"), [(8.0, 0.0), (0.2, 0.2), (0.5, 0.5)])
def test_a_horn_and_beeps_of_any_cadence_keep_their_pitch(on_s, off_s):
    found = tones(beeping(on_s, off_s))
    assert found[0][0] <= 3
    assert found[-1][0] == 8
    assert all(onset <= last <= at for at, onset, last in found)


def test_a_tone_that_is_over_is_forgotten():
    samples = np.concatenate([beeping(8, 0, seconds=4), np.zeros(6 * RATE)])
    assert tones(samples)[-1][0] <= 7


def test_birds_sweeps_and_noise_do_not_keep_a_pitch():
    rng = np.random.default_rng(3)
    for maker in (sounds.birds, sounds.yelp, sounds.noise):
        assert tones(maker(rng, 8.0, sounds.DEVELOPMENT).samples) == []
