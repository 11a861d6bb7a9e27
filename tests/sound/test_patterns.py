import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.sound.patterns import t4
from streamer.sound.patterns.beeps import LevelHistory, fit, t3_templates
from streamer.sound.patterns.spectrum import FRAME_HOP, WINDOW_SAMPLES, Spectrogram


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=20))
def test_the_spectrogram_is_the_same_for_any_chunking(sizes):
    samples = np.random.default_rng(1).standard_normal(sum(sizes)).astype(np.float32)
    split, at, parts = Spectrogram(), 0, []
    for size in sizes:
        parts.append(split.push(samples[at : at + size], at + size)[0])
        at += size
    whole, broken = Spectrogram().push(samples, samples.size)
    assert broken
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-3)
    assert split.next_frame == max(0, (samples.size - WINDOW_SAMPLES) // FRAME_HOP + 1)


def test_a_full_scale_sine_is_at_zero_decibels():
    tone = np.sin(2 * np.pi * 1000 * np.arange(4000) / 16_000).astype(np.float32)
    levels, _ = Spectrogram().push(tone, 4000)
    assert levels[:, 32] == pytest.approx(0, abs=0.1)


def test_short_gaps_are_bridged_and_long_ones_break():
    spectrogram, samples = Spectrogram(), np.zeros(4000, np.float32)
    spectrogram.push(samples, 4000)
    assert spectrogram.push(samples, 9000)[1] is False
    levels, broken = spectrogram.push(samples, 30_001)
    assert broken
    assert spectrogram.next_frame - levels.shape[0] == 26_001 // FRAME_HOP


@pytest.mark.parametrize("choices", [t3_templates(), t4.templates()])
def test_a_template_fits_itself_and_not_a_steady_tone(choices):
    size = choices.contrasts.shape[1] + 10
    levels = np.full((size, 3), -80, np.float32)
    choice = choices.each[-1]
    on = choice.weights[choice.on].sum(axis=0) > 0
    off = choice.weights[~choice.on].sum(axis=0) > 0
    levels[-on.size :, 1] = np.where(on | ~off, -30, -80)
    frames = np.repeat(levels, choice.on_frames.size // on.size, axis=0)
    found = fit(LevelHistory(levels, levels + 80, frames), choices)
    assert found is not None
    assert (found.column, found.level_db) == (1, pytest.approx(-30, abs=1))
    steady = np.full_like(levels, -30)
    assert fit(LevelHistory(steady, steady + 80, np.full_like(frames, -30)), choices) is None
