import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from streamer.monitor.noise import NoiseReducer
from streamer.monitor.programs import FADE_S, PROGRAMS, Fader

RATE, BLOCK = 16_000, 80


def reduced(sound, depth_db, rate=RATE):
    reducer, size = NoiseReducer(rate, rate // 200), rate // 200
    return np.concatenate([reducer.step(sound[at : at + size], depth_db) for at in range(0, len(sound), size)])


def test_off_it_changes_nothing():
    sound = np.random.default_rng(0).standard_normal(RATE)
    assert np.array_equal(reduced(sound, 0.0), sound)


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_steady_noise_comes_out_softer_by_no_more_than_asked_for(rate):
    noise = np.random.default_rng(0).standard_normal(rate * 3) * 0.01
    change = 10 * np.log10(np.mean(reduced(noise, 12.0, rate)[rate:] ** 2) / np.mean(noise[rate:] ** 2))
    assert -12.5 < change < -8


def test_a_voice_above_the_noise_passes_at_once():
    """Tone bursts at 20 dB: their level stays, and they begin when they began (no delay to speak of)."""
    at = np.arange(RATE * 4) / RATE
    burst = 0.1 * np.sin(2 * np.pi * 1_000 * at) * (at % 0.5 < 0.25)
    came = reduced(burst + np.random.default_rng(0).standard_normal(len(at)) * 0.01, 12.0)
    late = at > 2
    assert 10 * np.log10(np.mean(came[late & (burst != 0)] ** 2) / np.mean(burst[burst != 0] ** 2)) > -1.5
    correlation = [np.dot(came[RATE:-200], burst[RATE - lag : -200 - lag]) for lag in range(16)]
    assert int(np.argmax(correlation)) <= 3  # samples


@settings(max_examples=30, deadline=None)
@given(st.lists(arrays(np.float64, BLOCK, elements=st.floats(-1, 1)), max_size=30), st.floats(0, 40))
def test_it_never_blows_up(blocks, depth_db):
    reducer = NoiseReducer(RATE, BLOCK)
    for block in blocks:
        out = reducer.step(block, depth_db)
        assert np.isfinite(out).all()
        assert np.abs(out).max() < 20


def test_programs_fade_within_half_a_second_without_a_jump():
    fader = Fader(0.005)
    fader.choose("music")
    steps = [fader.step() for _ in range(round(0.5 / 0.005))]
    assert FADE_S <= 0.5
    assert steps[-1] == PROGRAMS["music"]
    noise = [PROGRAMS["speech"].noise_db, *(step.noise_db for step in steps)]
    assert np.abs(np.diff(noise)).max() < 0.2
    fader.choose("noise")  # in between it turns from where it is
    first = fader.step()
    assert abs(first.noise_db - PROGRAMS["music"].noise_db) < 0.2
