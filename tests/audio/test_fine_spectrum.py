import numpy as np
import pytest

from streamer.audio.fine_spectrum import BANDS, RANGE_DB, STEP_SAMPLES, TRANSFORM, fine_spectrum
from streamer.audio.mel import MelFrames

RATE = 16_000


def tone(hz, seconds=2.0, level=0.1):
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def noise(seed, seconds=2.0, level=0.01):
    return np.random.default_rng(seed).normal(0, level, round(seconds * RATE)).astype(np.float32)


def alike(one, other):
    one, other = (found[-1] - found[-1].mean() for found in (fine_spectrum(one), fine_spectrum(other)))
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("hz", [1046.5, 3150.0])
def test_a_pitch_is_told_from_one_a_half_tone_away_and_not_from_itself_elsewhere(hz):
    here = tone(hz) + noise(1)
    elsewhere = tone(hz * 1.002, level=0.02) + np.cumsum(noise(2, level=0.0005)).astype(np.float32)
    assert alike(here, elsewhere) > 0.6
    assert alike(here, tone(hz * 2 ** (1 / 12)) + noise(3)) < 0.3


def test_what_has_no_pitch_leaves_little():
    assert np.abs(fine_spectrum(noise(1, 10.0))[1:]).mean() < 0.1 * fine_spectrum(tone(2000.0))[-1].max()
    assert np.abs(fine_spectrum(np.zeros(RATE, np.float32))).max() < 1e-3
    assert fine_spectrum(tone(2000.0)).max() <= RANGE_DB[1]


@pytest.mark.parametrize(("samples", "steps"), [(0, 0), (1, 1), (STEP_SAMPLES, 1), (STEP_SAMPLES + 1, 2)])
def test_steps_are_counted_from_the_end(samples, steps):
    assert fine_spectrum(noise(1)[:samples]).shape == (steps, BANDS)


def test_a_step_depends_on_its_own_samples_and_those_of_one_transform_before():
    samples = noise(3) + tone(700.0)
    short = fine_spectrum(samples[-2 * STEP_SAMPLES - TRANSFORM :])
    np.testing.assert_allclose(short[-2:], fine_spectrum(samples)[-2:], atol=1e-4)


def test_a_stream_gives_that_of_its_last_samples():
    samples, mel = noise(4) + tone(700.0), MelFrames(80, 3200)
    for part in np.array_split(samples, 7):
        mel.append(part)
    mel.discard_before(3200 + 8000)
    found = mel.fine_spectrum(3200 + 16_000, 3200 + 30_000)
    np.testing.assert_array_equal(found, fine_spectrum(samples[16_000:30_000]))
