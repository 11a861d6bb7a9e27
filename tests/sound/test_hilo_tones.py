import numpy as np
import pytest

from streamer.recipes.synthesis import sounds
from streamer.sound.patterns.hilo_tones import _longest, took_turns
from streamer.sound.patterns.siren_net import STEP_FRAMES, STEPS, band_levels
from streamer.sound.patterns.spectrum import Spectrogram

RATE = 16_000
CLOCK = np.arange(5 * RATE) / RATE


def turned(pitch_hz, gate=1.0, noise=1e-3):
    """Whether two tones took turns at the end of a wave of these pitches with a few overtones."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(pitch_hz, CLOCK.shape)) / RATE
    wave = gate * sum(np.sin(k * phase) / k for k in (1, 3, 5))
    rush = noise * np.random.default_rng(0).standard_normal(CLOCK.size)
    frames, _ = Spectrogram().push((0.1 * wave + rush).astype(np.float32), CLOCK.size)
    return took_turns(band_levels(frames)[-STEP_FRAMES * STEPS :])


@pytest.mark.parametrize("end_s", [0.75, 0.8, 0.9, 1.0])
@pytest.mark.parametrize(("low", "high"), [(435, 580), (400, 500), (660, 900)])
def test_a_hilo_that_turned_once_did(low, high, end_s):
    since = CLOCK - 5 + end_s
    assert turned(np.where(since < 0.5, low, high), since >= 0)


@pytest.mark.parametrize("end_s", [0.3, 0.5, 0.6, 0.8, 1.2])
@pytest.mark.parametrize("tone", [485, 520, 555])
def test_the_first_beeps_of_a_t3_did_not(tone, end_s):
    since = CLOCK - 5 + end_s
    assert not turned(tone, (since >= 0) & (since % 1 < 0.5))
    assert not turned(tone, (since >= 0) & (since % 1 < 0.5), noise=0.1)


def test_two_tones_at_once_did_not():
    frames, _ = Spectrogram().push(
        (0.1 * (np.sin(2 * np.pi * 435 * CLOCK) + np.sin(2 * np.pi * 580 * CLOCK))).astype(np.float32), CLOCK.size
    )
    assert not took_turns(band_levels(frames)[-STEP_FRAMES * STEPS :])


@pytest.mark.parametrize("seed", range(4))
def test_a_hilo_of_the_bench_did(seed):
    made = sounds.hilo(np.random.default_rng(seed), 4.1, sounds.Spread(tone=0.07, timing=0.07, rt60_s=0.8)).samples
    frames, _ = Spectrogram().push(0.1 * made, made.size)
    assert took_turns(band_levels(frames))


def test_the_longest_run_of_each_column():
    heard = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 1], [1, 0, 1]], bool)
    assert _longest(heard).tolist() == [2, 0, 2]
