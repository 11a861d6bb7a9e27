from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from streamer.monitor.chain import Chain
from streamer.monitor.limiter import Limiter
from streamer.settings.monitor import MonitorSettings

ANY = st.floats(allow_nan=True, allow_infinity=True, width=32)
LOUD = st.floats(-100, 100, width=32)


@settings(max_examples=60, deadline=None)
@given(st.lists(arrays(np.float64, st.tuples(st.just(2), st.integers(1, 300)), elements=ANY), max_size=5))
def test_no_sample_is_ever_above_the_limit_whatever_comes(blocks):
    limiter = Limiter(48_000, 2, 0.25)
    for block in blocks:
        out = limiter.step(block)
        assert out.shape == block.shape
        assert np.abs(out).max() <= 0.25  # also fails for NaN


@settings(max_examples=25, deadline=None)
@given(
    st.lists(arrays(np.float32, 80, elements=ANY), min_size=1, max_size=12),
    st.floats(-60, -1),
    st.sampled_from([None, "moderate", "sloping"]),
    st.booleans(),
)
def test_nor_behind_everything_that_amplifies(blocks, limit_dbfs, audiogram, alarm):
    given = MonitorSettings(output=0, limit_dbfs=limit_dbfs, audiogram=audiogram, volume_db=30)
    chain = Chain(given, 16_000, 80)
    chain._blocks = 10_000  # faded in
    chain.alarm(alarm)
    for block in blocks:
        out = chain.step(block)
        assert out.dtype == np.float32
        assert np.all(np.abs(out.astype(np.float64)) <= 10 ** (limit_dbfs / 20))


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, (2, 900), elements=LOUD), st.lists(st.integers(0, 900), max_size=6))
def test_chunks_change_nothing(sound, cuts):
    whole, parts = Limiter(16_000, 2, 0.5), Limiter(16_000, 2, 0.5)
    edges = [0, *sorted(cuts), 900]
    pieces = [sound[:, a:b] for a, b in pairwise(edges) if b > a]
    assert np.allclose(np.concatenate([parts.step(piece) for piece in pieces], axis=1), whole.step(sound), atol=1e-9)


def test_soft_sound_passes_as_it_is_and_a_little_later():
    limiter = Limiter(48_000, 2, 0.5)
    sound = np.random.default_rng(0).uniform(-0.4, 0.4, (2, 480))
    assert np.array_equal(limiter.step(sound)[:, limiter.delay :], sound[:, : -limiter.delay])


def test_a_loud_tone_keeps_its_shape():
    """It is turned down, not cut: what is no longer there are harmonics that cutting would make."""
    limiter = Limiter(48_000, 1, 0.1)
    tone = np.sin(2 * np.pi * 1000 * np.arange(48_000) / 48_000)[None]
    power = np.abs(np.fft.rfft(limiter.step(tone)[0, -24_000:] * np.hanning(24_000))) ** 2
    near = power[490:511].sum()
    assert power.sum() - near < 1e-3 * near


@pytest.mark.parametrize("limit", [0.0, -1.0, 1.5])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(ValueError, match="limit"):
        Limiter(48_000, 2, limit)


def test_the_settings_cannot_switch_it_off():
    with pytest.raises(ValueError, match="limit_dbfs"):
        MonitorSettings(output=0, limit_dbfs=0)
